"""What ``privhier plan`` predicts for the joint cells that ``measure.py`` measured, beside what they took.

    python experiments/hierarchical_training/planned.py runs/hierarchical --write

Every network is profiled once, both sides at the same time on a core each, as the cells ran; then every
measured (network, cut, bit rate) is predicted from that profile. Nothing of the measurement enters the
prediction but its sizes. Run it on a quiet machine, soon after the cells.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any

from measure import config_path
from runner import sized
from whole_network import WIDE

from privhier.config import RunConfig, load_config
from privhier.datasets.load import load_dataset
from privhier.planner.plan import predict
from privhier.planner.profile import CutProfile, Side, profile
from privhier.planner.stages import Records
from privhier.planner.timing import TimingJob
from privhier.storage.files import write_atomic
from privhier.training.prepare import prepare

HERE = Path(__file__).parent
FIELDS = ("network", "regime", "cut", "rate_mbit", "measured_s", "predicted_s", "ratio", "bound", "load")


def profiled(config: RunConfig) -> tuple[CutProfile, Records]:
    """The configured cut, timed on cores 0 and 1, and the sizes of the run's splits."""
    data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
    splits = data.splits
    records = Records(len(splits.train), len(splits.val), len(splits.test), config.training.batch_size)
    found = profile(
        TimingJob(config, dict(data.task_classes), dict(data.sensitive_classes), steps=12),
        edge=Side(1, (0,)),
        cloud=Side(1, (1,)),
        cuts=[config.model.cut],
        whole=False,
    )
    return found.cuts[config.model.cut], records


def main() -> None:
    """Print the table, and with ``--write`` keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="what measure.py wrote")
    parser.add_argument("--write", action="store_true", help="write planned.csv beside this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    profiles: dict[tuple[str, str, int], tuple[CutProfile, Records]] = {}
    for path in sorted((options.out / "cells").glob("*__joint*.json")):
        cell = json.loads(path.read_text())
        last = {
            side: [row for row in cell["sides"][side] if row["phase"] == "joint"][-1]
            for side in cell["sides"]
        }
        images = last["edge"]["records"]
        source = config_path(cell["network"])
        wide = WIDE if cell["regime"].endswith("_wide") else ()
        overrides = [*sized(load_config(source), images), *wide]
        config = load_config(source, [*overrides, f"schedule.joint_epochs={cell['epochs']}"])
        key = (cell["network"], cell["regime"], images)
        if key not in profiles:
            profiles[key] = profiled(config)
        cut, records = profiles[key]
        forecast = predict(
            cut,
            records,
            bitrate=1e6 * cell["rate_mbit"],
            schedule=config.schedule,
            queue=config.link.queue,
            tls=True,
        )
        measured = max(side["seconds"] for side in last.values())
        predicted = max(forecast.edge_epoch_seconds, forecast.cloud_epoch_seconds)
        rows.append(
            {
                "network": cell["network"],
                "regime": cell["regime"],
                "cut": config.model.cut,
                "rate_mbit": cell["rate_mbit"],
                "measured_s": round(measured, 3),
                "predicted_s": round(predicted, 3),
                "ratio": round(predicted / measured, 3),
                "bound": forecast.bound,
                "load": cell["load"],
            }
        )
        print(rows[-1], flush=True)
    within = sum(abs(row["ratio"] - 1) <= 0.15 for row in rows)
    print(f"{within} of {len(rows)} cells within 15 %")
    if options.write:
        text = io.StringIO()
        writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(HERE / "planned.csv", text.getvalue())


if __name__ == "__main__":
    main()
