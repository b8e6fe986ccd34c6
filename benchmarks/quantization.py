"""What narrow releases save and cost: one run for each wire type and seed, in bytes and in the cloud's AUC.

    python benchmarks/quantization.py [CONFIG] [key=value ...] [--seeds N]

Every run trains anew, edge and cloud meeting the same rounding as the test releases; runs of one seed differ
in nothing but ``release.quantize``. The last column leaves training alone: float32's tail on float32's own
test releases, rounded. Without CONFIG: drawn faces, releases of 8x12x12 values.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.config import RunConfig, load_config
from privhier.datasets.load import load_dataset
from privhier.metrics.classification import macro_auc
from privhier.models.tail import CloudTail
from privhier.session import open_session, train
from privhier.uplink.grid import Wire, rounded

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
WIDE = [
    "dataset.sensitive=[male]",
    "model.bottleneck.kind=channels",
    "model.bottleneck.size=8",
    "release.clip=16",
]
ALWAYS = ["tracking.enabled=false", "evaluation.references=[]"]
WIRES: tuple[Wire, ...] = ("float32", "float16", "int8", "int4")
BITS = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}
WANTED_RATIO, WANTED_LOSS = 0.26, 0.005


@dataclass(frozen=True)
class Outcome:
    """What one run gave; AUCs are means over its tasks."""

    shape: tuple[int, ...]
    records: int
    bytes_per_record: float
    auc: float
    rounded_auc: dict[Wire, float]

    def payload(self, wire: Wire) -> float:
        """Bytes of one record's values and exponent alone."""
        return math.ceil(math.prod(self.shape) * BITS[wire] / 8) + (wire in ("int8", "int4"))


def tail_auc(tail: CloudTail, releases: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Macro AUC of the tail on releases ``(n, *shape)``, mean over tasks; labels ``(n, tasks)``."""
    with torch.no_grad():
        parts = [tail(part) for part in torch.split(torch.from_numpy(releases), 256)]
    logits = [torch.cat(task).softmax(dim=1).numpy() for task in zip(*parts, strict=True)]
    return statistics.fmean(macro_auc(task, labels[:, k]) for k, task in enumerate(logits))


def outcome(config: RunConfig, wire: Wire, seed: int, folder: Path) -> Outcome:
    release = config.release.model_copy(update={"quantize": wire})
    config = config.model_copy(update={"seed": seed, "release": release})
    session = open_session(config, folder, dataset=load_dataset(config.dataset, seed=seed))
    trained = train(session)
    data = session.prepared.data
    labels = data.task[data.splits.test].numpy()
    last = np.array(trained.test_releases[:, -1])
    tail = trained.tail.eval().cpu()
    return Outcome(
        shape=tuple(last.shape[1:]),
        records=len(last),
        bytes_per_record=trained.uplink["bytes"] / trained.uplink["records"],
        auc=tail_auc(tail, last, labels),
        rounded_auc={other: tail_auc(tail, rounded(last, other), labels) for other in WIRES},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("arguments", nargs="*", metavar="CONFIG key=value", help="a run and its overrides")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every wire type")
    options = parser.parse_args()
    overrides = [text for text in options.arguments if "=" in text]
    paths = [text for text in options.arguments if "=" not in text]
    if len(paths) > 1 or options.seeds < 1:
        parser.error("takes one CONFIG at most, and at least one seed")
    config = load_config(paths[0] if paths else CONFIG, [*([] if paths else WIDE), *overrides, *ALWAYS])

    found: dict[Wire, list[Outcome]] = {wire: [] for wire in WIRES}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(config.seed, config.seed + options.seeds):
            for wire in WIRES:
                one = outcome(config, wire, seed, Path(scratch) / f"{wire}-{seed}")
                found[wire].append(one)
                print(f"  seed {seed}, {wire}: AUC {one.auc:.4f}", flush=True)

    exact = found["float32"]
    whole = exact[0].bytes_per_record
    print(
        f"{config.name}: releases of {'x'.join(map(str, exact[0].shape))} values, "
        f"{exact[0].records} test records, {options.seeds} seed(s)"
    )
    print(
        "  wire     bytes/record  payload  of float32  task AUC  less float32's (each seed)  float32's tail"
    )
    for wire, outcomes in found.items():
        differences = [ours.auc - theirs.auc for ours, theirs in zip(outcomes, exact, strict=True)]
        drift = statistics.fmean(one.rounded_auc[wire] - one.auc for one in exact)
        size = outcomes[0].bytes_per_record
        print(
            f"  {wire:<8} {size:12.1f} {outcomes[0].payload(wire):8.0f} {size / whole:11.4f} "
            f"{statistics.fmean(one.auc for one in outcomes):9.4f} {statistics.fmean(differences):+8.4f} "
            f"({', '.join(f'{difference:+.4f}' for difference in differences)}) {drift:+.4f}"
        )
    print(f"  wanted: int8 at most {WANTED_RATIO} of the bytes, AUC within {WANTED_LOSS} of float32's")


if __name__ == "__main__":
    main()
