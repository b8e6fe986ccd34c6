"""One row for every score of finished bench runs: ``python table.py RUN ... > table.csv``."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from privhier.evaluation.headline import headline
from privhier.evaluation.result import Result, Score
from privhier.report.bench_figures import attack_seconds

COLUMNS = ("run", "target", "attack", "score", "value", "low", "high", "n", "seconds")
_LEAKAGE = ("auc", "balanced_accuracy", "top1", "matched_verification_auc", "verification_auc")
_PICTURES = (
    "ssim",
    "ms_ssim",
    "psnr",
    "mean_image_ssim",
    "reid_rank1",
    "original_reid_rank1",
    "verification_tar",
)
_MEMBERSHIP = ("auc", "tpr_at_fpr_01", "tpr_at_fpr_001")

Row = tuple[object, ...]


def _score(score: Score | None) -> Row | None:
    if score is None:
        return None
    return (f"{score.value:.4f}", f"{score.low:.4f}", f"{score.high:.4f}", score.n)


def rows(result: Result) -> Iterator[Row]:
    """Utility, leakage by attacker, reconstructions, make-up, membership."""
    for task, utility in result.utility.items():
        for name in ("auc", "balanced_accuracy"):
            yield (task, "cloud", name, *(_score(getattr(utility.cloud, name)) or ()), "")
    for target, leakage in result.leakage.items():
        for attack in (*leakage.attacks, *leakage.attacks_with_labels):
            seconds = attack_seconds(result.timing, target, attack)
            for name in _LEAKAGE:
                if (found := _score(getattr(attack, name))) is not None:
                    yield (target, attack.attack, name, *found, "" if seconds is None else f"{seconds:.0f}")
        if (top := headline(leakage)) is not None:
            for what, score in (("headline", top.score), ("floor", top.floor), ("excess", top.excess)):
                if (found := _score(score)) is not None:
                    yield (target, f"{what}: {top.attack}, {top.records} records", top.metric, *found, "")
        for kind, worst in (("worst", leakage.worst), ("raw images", leakage.raw_image_attack)):
            for name in _LEAKAGE:
                if worst is not None and (found := _score(getattr(worst, name))) is not None:
                    yield (target, f"{kind}: {worst.attack}", name, *found, "")
        for point in leakage.by_auxiliary:
            if (found := _score(point.worst.auc)) is not None:
                yield (target, f"auxiliary {point.auxiliary}: {point.worst.attack}", "auc", *found, "")
    for attack_name, pictures in result.reconstruction.items():
        bare, _, model = attack_name.partition("@")
        taken = result.timing.get(f"attack/{model or 'curious_cloud'}/pictures/{bare}")
        for name in _PICTURES:
            if (found := _score(getattr(pictures, name))) is not None:
                yield ("images", attack_name, name, *found, "" if taken is None else f"{taken:.0f}")
    for target, estimates in result.property_inference.items():
        for estimate in estimates:
            yield (target, estimate.attack, "share error", *(_score(estimate.error) or ()), "")
    if result.membership is not None:
        for part, attacks in result.membership.parts.items():
            for attack_name, scores in attacks.items():
                for name in _MEMBERSHIP:
                    if (found := _score(getattr(scores, name))) is not None:
                        yield (f"membership, {part}", attack_name, name, *found, "")


def main(runs: list[str]) -> None:
    """Write the table of these run folders to standard output."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        result = Result.read(Path(run) / "result.json")
        writer.writerows((result.name, *row) for row in rows(result))


if __name__ == "__main__":
    main(sys.argv[1:])
