"""``report.html``: one self-contained page per run, readable offline from top to bottom."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from yaml import safe_dump

from privhier.config import LEFT_OUT, RunConfig
from privhier.errors import OutputError
from privhier.evaluation.additions import addition_of
from privhier.evaluation.headline import (
    METRIC_NAMES,
    ceiling_value,
    chance,
    headline,
    leading_metric,
    telling,
    worst_of,
)
from privhier.evaluation.points import Estimate
from privhier.evaluation.result import AttributeLeakage, GuaranteeRow, Result, Score
from privhier.evaluation.sheets import ReconstructionSheet
from privhier.evaluation.statement import may_say
from privhier.evaluation.verdict import beside_verdicts, verdicts
from privhier.evaluation.warnings import loud
from privhier.figures.style import Drawing
from privhier.privacy.guarantees import OWN_RELEASES
from privhier.privacy.leakage_guarantee import factor
from privhier.privacy.shown import TWO_PROMISES, allowance, claim, mixed_promises
from privhier.report.bench_figures import attack_seconds, draw_bench
from privhier.report.figures import draw_all, reference_title, worst_first
from privhier.report.pictures import data_uri, victims_of
from privhier.report.statements import by_words, common_limits, statements
from privhier.report.summary import certified_text, show_gain, uplink_text
from privhier.storage.files import whole_file

VACUOUS = 10.0
"""An epsilon above this says nothing numerically (DESIGN 6.10)."""

_IMAGE_SCORES = {
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "psnr": "PSNR, dB",
    "lpips": "LPIPS",
    "reid_rank1": "re-identified, rank 1",
    "original_reid_rank1": "the photo itself, rank 1",
    "verification_tar": "verified (TAR at FAR 1 %)",
    "mean_image_ssim": "SSIM of the mean image",
}
_NOISE_SEED = re.compile(r"(noise_seed[=:]\s*)[^\s'\"}]+")
_PACKAGES = ("privhier", "torch", "torchvision", "opacus", "scikit-learn", "numpy", "mlflow")


def write_report(
    run: Path,
    result: Result,
    config: RunConfig,
    *,
    history: Sequence[Mapping[str, Any]],
    reconstructions: Sequence[ReconstructionSheet],
    command: str,
) -> Path:
    """Write ``run/report.html`` and ``run/figures/*.{svg,png}``, each file atomically.

    Args:
        run: The run folder.
        result: What the run claims.
        config: The resolved configuration behind it.
        history: One mapping per epoch: ``phase``, ``epoch`` and named numbers.
        reconstructions: Originals beside what each attacker made of them.
        command: The exact command that repeats the run.

    Returns:
        The path of ``report.html``.

    Raises:
        OutputError: The run folder cannot be written.
    """
    drawings = draw_all(result, history) | draw_bench(result)
    page = render(
        result, config, drawings=drawings, reconstructions=reconstructions, command=command
    ).encode()
    try:
        (run / "figures").mkdir(parents=True, exist_ok=True)
        for drawing in drawings.values():
            _write(run / "figures" / f"{drawing.name}.svg", drawing.svg)
            _write(run / "figures" / f"{drawing.name}.png", drawing.png)
        _write(run / "report.html", page)
    except OSError as error:
        raise OutputError(
            key="run folder",
            value=str(run),
            rule=f"must be writable for the report: {error}",
            remedy="Free space or mend the rights, then `privhier report RUN`",
        ) from error
    return run / "report.html"


def render(
    result: Result,
    config: RunConfig,
    *,
    drawings: Mapping[str, Drawing],
    reconstructions: Sequence[ReconstructionSheet],
    command: str,
) -> str:
    """The page as text. Every value from outside is escaped; figures and pictures are data URIs."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(gain=format_gain, gain_words=show_gain)
    environment.filters.update(score=format_score, number=_number, epsilon=format_epsilon, delta=_delta)
    environment.filters.update(ceiling=format_ceiling, telling=telling, factor=factor, claimed=claim)
    environment.filters.update(allowance=allowance, allows=format_allows)
    here = resources.files("privhier.report")
    template = environment.from_string(here.joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        r=result,
        config=config,
        command=_NOISE_SEED.sub(rf"\1{LEFT_OUT}", command),
        css=Markup(here.joinpath("report.css").read_text(encoding="utf-8")),
        figures={name: data_uri("image/svg+xml", d.svg) for name, d in drawings.items()},
        alts={name: d.alt for name, d in drawings.items()},
        leakage=_leakage_blocks(result),
        headline_guarantee=_headline(result.guarantees),
        unprotected=[g for g in result.guarantees if g.epsilon is None and g.measure == "epsilon"],
        not_covered=common_limits(result.guarantees),
        statements=statements(result.guarantees),
        by_words=by_words,
        verdicts=verdicts(result),
        vacuous=VACUOUS,
        sheets=[(s, victims_of(s)) for s in reconstructions if config.report.pictures != "none"],
        bounded=[g for g in result.guarantees if g.epsilon is not None],
        references={name: reference_title(name) for name in result.references},
        metric_names=METRIC_NAMES,
        added=lambda attack: " (added)" if addition_of(result.additions, attack) else "",
        headline=headline,
        urgent=beside_verdicts(result),
        routine=[warning for warning in result.warnings if warning not in loud(result.warnings)],
        may_say=may_say(result),
        two_promises=TWO_PROMISES if mixed_promises(g.delta for g in result.guarantees if g.epsilon) else "",
        image_scores=_image_scores(result),
        simulated=config.privacy.noise_source == "seeded",
        resolved=safe_dump(config.to_publish(), sort_keys=False),
        dataset=_facts(result.dataset),
        release=_facts(result.release),
        git_rows=[(f"git {name}", text) for name, text in _facts(result.git)],
        versions=_versions(),
        size=_size,
        ceiling_text=ceiling_text,
        uplink=uplink_text(result),
        attack_seconds=lambda target, attack: attack_seconds(result.timing, target, attack),
    )


def format_score(score: Score | None, digits: int = 3) -> str:
    """``0.951 [0.944, 0.957]``, or a dash where the score does not apply.

    Example:
        >>> format_score(Score(value=0.9512, low=0.9441, high=0.9573, n=100))
        '0.951 [0.944, 0.957]'
    """
    if score is None:
        return "–"  # noqa: RUF001 - the typographic dash of an empty cell
    return f"{score.value:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def format_gain(gain: Score | Estimate | None) -> str:
    """``+0.004 [-0.002, +0.010]``, or a dash where it was not written down."""
    if gain is None:
        return "–"  # noqa: RUF001 - the typographic dash of an empty cell
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def format_epsilon(epsilon: float | None) -> str:
    """An epsilon with two decimals, rounded up so that it never claims more than was proven.

    Example:
        >>> format_epsilon(7.991), format_epsilon(None)
        ('8.00', 'none')
    """
    if epsilon is None:
        return "none"
    return "∞" if math.isinf(epsilon) else claim(epsilon, decimals=2)


def format_allows(value: float | None) -> str:
    """A best balanced accuracy with four decimals, rounded up, or a dash where it was not written down.

    Example:
        >>> format_allows(0.79758)
        '0.7976'
    """
    return "–" if value is None else claim(value, decimals=4)  # noqa: RUF001


def format_ceiling(value: float | None) -> str:
    """A ceiling with three decimals, rounded up: it is a claim as well."""
    return "–" if value is None or not math.isfinite(value) else claim(value, decimals=3)  # noqa: RUF001


def ceiling_text(leakage: AttributeLeakage) -> str:
    """What no attacker on these releases can pass, in a sentence; a ceiling that is 1 is none."""
    ceiling = leakage.ceiling
    if ceiling is None:
        return "No ceiling is proven here."
    named = {"balanced accuracy": ceiling.balanced_accuracy, "AUC": ceiling.auc}
    known = [f"{name} {format_ceiling(value)}" for name, value in named.items() if telling(value) is not None]
    if not known:
        return "No ceiling below 1 is proven here."
    releases = f"{ceiling.releases} release{'s' if ceiling.releases != 1 else ''}"
    none = "; no AUC ceiling is proven for more than two classes" if ceiling.auc is None else ""
    return (
        f"No attacker who uses {releases} of a record, and nothing else that depends on it, can pass "
        f"{' or '.join(known)}{none}."
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"  # noqa: RUF001


def _delta(delta: float | None) -> str:
    return "–" if delta is None else claim(delta, 3).replace("e-0", "e-")  # noqa: RUF001


def _size(count: float) -> str:
    """Bytes for people, decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _write(path: Path, data: bytes) -> None:
    with whole_file(path) as stream:
        stream.write(data)


def _headline(rows: Sequence[GuaranteeRow]) -> GuaranteeRow | None:
    """The record's own releases, if that row holds an epsilon: no other row says as much of raw features."""
    return next((row for row in rows if row.name == OWN_RELEASES and row.epsilon is not None), None)


def _leakage_blocks(result: Result) -> list[dict[str, Any]]:
    blocks = []
    for index, (attribute, leakage) in enumerate(result.leakage.items()):
        metric = leading_metric(leakage.worst)
        scored: list[Any] = [leakage.worst, *leakage.attacks]
        beneath = {"floor: true task labels alone": leakage.floor, "the cloud's own answers": leakage.answers}
        columns = [name for name in METRIC_NAMES if any(getattr(a, name) is not None for a in scored)]
        training = [name for name in METRIC_NAMES if any(name in a.training_records for a in scored)]
        blocks.append(
            {
                "attribute": attribute,
                "leakage": leakage,
                "metric": metric,
                "metric_name": METRIC_NAMES[metric] if metric else "",
                "top": headline(leakage),
                "raw": worst_of(leakage.raw_image_attack, metric),
                "answers": worst_of(leakage.answers, metric),
                "beneath": {title: found for title, found in beneath.items() if found is not None},
                "chance": chance(leakage, metric) if metric else None,
                "ceiling": telling(ceiling_value(leakage, metric)) if metric else None,
                "certified": None if leakage.certified is None else certified_text(leakage.certified),
                "references": {
                    name: top.score
                    for name, reference in result.references.items()
                    if attribute in reference.leakage
                    and (top := headline(reference.leakage[attribute], metric)) is not None
                },
                "columns": columns,
                "training": training,
                "attacks": worst_first(leakage, metric),
                "figure": f"leakage_{index}",
            }
        )
    return blocks


def _image_scores(result: Result) -> dict[str, str]:
    """Titles of the reconstruction scores that any attack of this run or its references has."""
    attacks = [*result.reconstruction.values()]
    for reference in result.references.values():
        attacks += reference.reconstruction.values()
    return {
        name: title
        for name, title in _IMAGE_SCORES.items()
        if any(getattr(attack, name) is not None for attack in attacks)
    }


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested plain data as flat ``(name, text)`` pairs for a table."""
    facts: list[tuple[str, str]] = []
    for key, value in data.items():
        name = str(key).replace("_", " ")
        if isinstance(value, Mapping):
            if value and all(isinstance(v, int | float | str) for v in value.values()):
                facts.append((name, ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())))
            else:
                facts += [(f"{name}: {inner}", text) for inner, text in _facts(value)]
        elif isinstance(value, list | tuple):
            shown = ", ".join(_plain(v) for v in value[:12]) or "none"
            facts.append((name, shown + (f", and {len(value) - 12} more" if len(value) > 12 else "")))
        else:
            facts.append((name, _plain(value)))
    return facts


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _versions() -> list[tuple[str, str]]:
    """Installed versions, read off the metadata so that nothing heavy is imported."""
    versions = [("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            versions.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            versions.append((name, "not installed"))
    return versions
