"""Tables of a measured folder: run times, reductions, cross-over points; ``table.csv`` and the figure.

    python experiments/hierarchical_training/table.py runs/hierarchical --write

prints; ``--write`` also puts ``table.csv`` and ``run_time.svg`` beside this file. A star marks what was
measured, everything else is the model with the parts' measured times and sizes. Run times are those of a
training on ``--images`` images: measured milliseconds per image, scaled.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from figure import draw
from measure import RATES
from regimes import CODECS, IMAGES, Stages, crossings, link_ms, rate_for_reduction, reduction
from results import Study, load_studies
from runner import joint_bounds

from privhier.storage.files import write_atomic

HERE = Path(__file__).parent
SPEEDS = (1.0, 4.0, 10.0, 50.0)
LOW, HIGH = 0.05, 2000.0
"""Mbit/s between which cross-over points are looked for."""
PAIRS = (
    ("joint", "images_raw_anew"),
    ("joint", "images_jpeg_anew"),
    ("joint", "images_raw_once"),
    ("joint", "images_jpeg_once"),
    ("joint", "images_webp50_anew"),
    ("joint", "images_webp50_once"),
    ("joint", "edge_only"),
    ("release_once", "images_raw_anew"),
    ("release_once", "images_jpeg_anew"),
    ("release_once", "images_raw_once"),
    ("release_once", "images_jpeg_once"),
    ("release_once", "edge_only"),
    ("split", "edge_only"),
)


def parts(study: Study) -> None:
    """What the edge pays, against the whole network."""
    for wide, profile in sorted(study.profiles.items()):
        rows = profile.parts
        print(f"\n{study.network}{', no bottleneck' if wide else ''}: parts by themselves on one core")
        for name in ("full", "edge", "cloud"):
            row = rows[name]
            share = [f"{row[key] / rows['full'][key]:6.1%}" for key in ("ms", "mib", "mflop")]
            print(
                f"  {name:6s} {row['ms']:8.2f} ms/image ({share[0]})  {row['mib']:7.0f} MiB ({share[1]})  "
                f"{row['mflop']:8.0f} MFLOP/image ({share[2]})"
            )
        sizes = ", ".join(f"{name} {size:.0f}" for name, size in profile.sizes.items())
        print(f"  payload in bytes/image: {sizes}")


def run_times(study: Study) -> None:
    """Seconds of a whole training, regimes by rates."""
    plan = study.plan
    print(
        f"\n{study.network}: seconds of a training on {plan.images} images, {plan.epochs} epochs "
        f"(release-once: {plan.pretrain} on the edge, {plan.cloud} in the cloud); * measured"
    )
    print(f"  {'Mbit/s':18s}" + "".join(f"{rate:>10g} " for rate in RATES))
    for regime in study.regimes:
        rows = [study.row(regime, rate) for rate in RATES]
        cells = (f"{row.seconds:10.0f}{'*' if row.measured else ' '}" for row in rows)
        print(f"  {regime:18s}" + "".join(cells))


def reductions(study: Study) -> None:
    """Run time saved against images up anew; where images up once wins."""
    print(f"\n{study.network}: run time saved against images up anew every epoch; * both measured")
    for regime in ("joint", "release_once", *(name for name in IMAGES if name.endswith("once"))):
        for codec in CODECS:
            cells = []
            for rate in RATES:
                new, old = study.row(regime, rate), study.row(f"images_{codec}_anew", rate)
                star = "*" if new.measured and old.measured else " "
                cells.append(f"{reduction(new.seconds, old.seconds):10.1%}{star}")
            print(f"  {f'{regime}, {codec}':28s}" + "".join(cells))
    for regime, wanted in (("joint", 0.5), ("release_once", 0.9)):
        for codec in CODECS:
            curves = study.curve(regime), study.curve(f"images_{codec}_anew")
            highest = rate_for_reduction(*curves, wanted, LOW, HIGH)
            where = f"up to {highest:.3g} Mbit/s" if highest else "nowhere"
            print(f"  {regime} saves {wanted:.0%} against {codec} {where} (model)")


def cross_overs(study: Study) -> None:
    """Bit rates at which one regime overtakes another."""
    print(f"\n{study.network}: cross-over points in Mbit/s (model, {LOW:g} to {HIGH:g})")
    for first, second in PAIRS:
        a, b = study.curve(first), study.curve(second)
        found = crossings(a, b, LOW, HIGH)
        points = ", ".join(f"{rate:.3g}" for rate in found) or "none"
        # Beyond the last point the order no longer changes.
        at_low, at_high = (first if a(rate) < b(rate) else second for rate in (LOW, HIGH))
        print(f"  {first} / {second}: {points} (slowest line: {at_low}, fastest: {at_high})")


def joint_epochs(study: Study) -> None:
    """Measured joint epochs against the longest of their three parts."""
    print(f"\n{study.network}: joint epoch in ms/image against max(edge, link, cloud)")
    for regime in ("joint", "joint_wide"):
        for record in (record for record in study.records if record["regime"] == regime):
            epoch, rate = record["phases"]["epoch"], record["rate_mbit"]
            beside = joint_bounds(record)
            stages: Stages = study.profiles[regime.endswith("_wide")].stages
            alone = {"edge": stages.edge, "link": link_ms(record["up"], rate), "cloud": stages.cloud}
            texts = [
                f"{name} {max(bounds.values()):.2f} ({max(bounds, key=bounds.__getitem__)}, "
                f"{epoch / max(bounds.values()) - 1:+.1%})"
                for name, bounds in (("in the run", beside), ("alone", alone))
            ]
            print(f"  {regime} at {rate:g} Mbit/s: {epoch:.2f}; {', '.join(texts)}")


def faster_clouds(study: Study, rate: float) -> None:
    """The model for clouds this machine does not have."""
    print(f"\n{study.network}: seconds at {rate:g} Mbit/s with a cloud so many times faster (model)")
    print(f"  {'cloud':18s}" + "".join(f"{f'{speed:g}x':>10s} " for speed in SPEEDS))
    for regime in study.regimes:
        cells = (f"{study.curve(regime, speed)(rate):10.0f} " for speed in SPEEDS)
        print(f"  {regime:18s}" + "".join(cells))


def to_csv(studies: list[Study]) -> str:
    """The small table this study keeps."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["network", "regime", "rate_mbit", "source", "run_seconds", "ms_per_image", "bytes_up", "bytes_down"]
    )
    for study in studies:
        for regime in study.regimes:
            for rate in RATES:
                row = study.row(regime, rate)
                phases = " ".join(f"{name}={value:.3f}" for name, value in row.phases.items())
                source = "measured" if row.measured else "model"
                times = [f"{row.seconds:.1f}", phases, f"{row.up:.0f}", f"{row.down:.0f}"]
                writer.writerow([study.network, regime, f"{rate:g}", source, *times])
    return text.getvalue()


def main() -> None:
    """Print everything; write table and figure if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="what measure.py wrote")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, help="default: the configuration's joint epochs")
    parser.add_argument("--pretrain", type=int, help="release-once, on the edge; default: half of them")
    parser.add_argument("--cloud", type=int, help="release-once, in the cloud; default: half of them")
    parser.add_argument("--speed-rate", type=float, default=1.0, help="Mbit/s of the table of faster clouds")
    parser.add_argument("--write", action="store_true", help="write table.csv and run_time.svg")
    parser.add_argument("--folder", type=Path, default=HERE, help="where; default: beside this file")
    options = parser.parse_args()
    studies = load_studies(
        options.out,
        images=options.images,
        epochs=options.epochs,
        pretrain=options.pretrain,
        cloud=options.cloud,
    )
    for study in studies:
        parts(study)
        run_times(study)
        reductions(study)
        cross_overs(study)
        joint_epochs(study)
        faster_clouds(study, options.speed_rate)
    if options.write:
        write_atomic(options.folder / "table.csv", to_csv(studies))
        draw(studies, options.folder / "run_time.svg")


if __name__ == "__main__":
    main()
