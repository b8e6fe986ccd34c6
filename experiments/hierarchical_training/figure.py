"""Run time over bit rate, a panel a network: lines are the model, dots are measured."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from regimes import run_seconds
from results import Study

from privhier.storage.files import write_atomic

# Colors of Okabe and Ito: told apart with every kind of color vision.
STYLES = {
    "images_raw_anew": ("images up anew, raw", "#D55E00", "-"),
    "images_jpeg_anew": ("images up anew, JPEG", "#E69F00", "-"),
    "images_jpeg50_anew": ("images up anew, JPEG 50", "#F0E442", "-"),
    "images_webp50_anew": ("images up anew, WebP 50", "#56B4E9", "-"),
    "images_raw_once": ("images up once, raw", "#D55E00", ":"),
    "images_jpeg_once": ("images up once, JPEG", "#E69F00", ":"),
    "images_jpeg50_once": ("images up once, JPEG 50", "#F0E442", ":"),
    "images_webp50_once": ("images up once, WebP 50", "#56B4E9", ":"),
    "split": ("split learning", "#CC79A7", "-"),
    "split_wide": ("split learning, no bottleneck", "#CC79A7", ":"),
    "edge_only": ("all on the edge", "#000000", "--"),
    "joint": ("joint", "#0072B2", "-"),
    "joint_wide": ("joint, no bottleneck", "#0072B2", ":"),
    "release_once": ("release once", "#009E73", "-"),
    "release_once_wide": ("release once, no bottleneck", "#009E73", ":"),
}


def draw(studies: list[Study], path: Path, *, low: float = 0.25, high: float = 100.0) -> None:
    """Write an SVG: Mbit/s across, minutes of a whole training up, both logarithmic."""
    columns = min(2, len(studies))
    rows = -(-len(studies) // columns)
    rates = np.geomspace(low, high, 53)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 1.1), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for panel, study in zip(panels.flat, studies, strict=False):
        for regime in study.regimes:
            label, color, line = STYLES[regime]
            curve = study.curve(regime)
            minutes = [curve(float(rate)) / 60 for rate in rates]
            panel.plot(rates, minutes, line, color=color, lw=1.4, label=label)
            dots = [record for record in study.records if record["regime"] == regime]
            panel.plot(
                [record["rate_mbit"] for record in dots],
                [run_seconds(regime, record["phases"], study.plan) / 60 for record in dots],
                "o",
                color=color,
                ms=4,
                mfc="white" if line == ":" else color,
            )
        panel.set(xscale="log", yscale="log", title=study.network)
        panel.grid(alpha=0.25, lw=0.5)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
    for panel in list(panels.flat)[len(studies) :]:
        panel.set_visible(False)
    images = studies[0].plan.images
    for panel in panels[-1]:
        panel.set_xlabel("bit rate of the line, Mbit/s")
    figure.supylabel(f"training on {images:,} images, minutes")
    handles = [panel.get_legend_handles_labels()[0] for panel in panels.flat]
    lines = {line.get_label(): line for panel in handles for line in panel}
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    stream = io.BytesIO()
    # Text as text and no date: a small file that changes only with its numbers.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hierarchical_training"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    write_atomic(path, stream.getvalue())
