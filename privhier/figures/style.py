"""What all figures share: colors, settings, legends, and how a finished figure becomes bytes.

Colors are Okabe and Ito's, which stay apart for color-blind readers; every series also has its own
marker or line style, so the figures survive gray printing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from privhier.errors import OutputError
from privhier.figures.axes import thin_labels
from privhier.figures.text import FONT, NOTE, fitted, has_escapes, width
from privhier.storage.files import write_atomic

BLACK, GRAY, GRID = "#222222", "#767676", "#e4e4e4"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
WIDTH = 10.58  # inches; the report's column of 1016 CSS pixels
PANEL = 4.6  # inches; two side by side on a desk, one on a phone, where 9 points are still 10 CSS pixels
LEGEND_ROW = 0.2  # inches
RC: Any = {  # matplotlib's settings of every figure
    "svg.hashsalt": "privhier",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "text.parse_math": False,  # attribute names are data: a dollar sign in one is a dollar sign
    "font.family": [FONT],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelcolor": BLACK,
    "axes.edgecolor": "#9a9a9a",
    "xtick.color": "#4a4a4a",
    "ytick.color": "#4a4a4a",
}
_METADATA: Any = {  # no dates: the same figure is the same bytes
    "svg": {"Date": None, "Creator": "privhier"},
    "png": {"Software": "privhier"},
    "pdf": {"CreationDate": None, "Creator": "privhier", "Producer": "matplotlib"},
}


@dataclass(frozen=True)
class Drawing:
    """One figure in both of its formats, with the text a reader who cannot see it gets."""

    name: str
    alt: str
    svg: bytes
    png: bytes

    def save(self, path: str | Path) -> Path:
        """Write it as ``.svg`` or ``.png``, by the suffix; returns the path."""
        file = Path(path)
        if file.suffix not in (".svg", ".png"):
            raise OutputError(
                key="path", value=str(file), rule="must end in .svg or .png", remedy="Name it so"
            )
        write_atomic(file, self.svg if file.suffix == ".svg" else self.png)
        return file

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.svg.decode()


def finish(figure: Figure, name: str, alt: str) -> Drawing:
    """A finished figure in both formats: the same figure is the same bytes."""
    svg, png = rendered(figure, "svg", "png")
    return Drawing(name, alt, svg, png)


def rendered(figure: Figure, *formats: Literal["svg", "png", "pdf"]) -> list[bytes]:
    """The figure as files, after crowded tick labels were dropped and escapes explained; call it once."""
    texts = [text.get_text() for text in figure.findobj(Text)]
    if any(map(has_escapes, [*texts, *_tick_labels(figure)])):
        _explain_escapes(figure)
    thin_labels(figure)
    figure.set_layout_engine("none")  # it is laid out: each format would do it again, in as long as it draws
    return [_file(figure, kind) for kind in formats]


def _file(figure: Figure, kind: Literal["svg", "png", "pdf"]) -> bytes:
    """One format; ``savefig`` gives the same bytes, but draws once more before it, for the layout."""
    stream, own = io.BytesIO(), figure.dpi
    canvas: Any  # whose methods have no types
    if kind == "svg":
        canvas = FigureCanvasSVG(figure)
    elif kind == "pdf":
        from matplotlib.backends.backend_pdf import FigureCanvasPdf  # sweeps alone have these

        canvas = FigureCanvasPdf(figure)
    else:
        canvas, figure.dpi = FigureCanvasAgg(figure), 150
    getattr(canvas, f"print_{kind}")(stream, metadata=_METADATA[kind])
    figure.dpi = own
    return stream.getvalue()


def _explain_escapes(figure: Figure) -> None:
    """The note at the end of the figure that holds no legend: a layout sets both in one place."""
    figure.draw_without_rendering()
    low = any(box.get_window_extent().y0 < figure.bbox.height / 2 for box in figure.legends)
    explain = figure.suptitle if low else figure.supxlabel
    explain(NOTE, x=0.01, ha="left", fontsize=7, color=GRAY)


def calm(axes: Axes, grid: Literal["x", "y", "both"] = "both") -> None:
    """Quiet axes: two spines, a light grid along ``x``, ``y`` or ``both``."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.8)


def legend(figure: Figure, panels: Iterable[Axes], *, at: Literal["upper", "lower"], columns: int) -> None:
    """One legend outside all panels, every label once; the figure grows by what it needs.

    Args:
        figure: Laid out by ``constrained``.
        panels: Whose labels it shows.
        at: Which end of the figure.
        columns: At most, and as many as fit; a label is cut only where it is wider than the whole figure.
    """
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if not entries:
        return
    widest = figure.get_figwidth() - 0.75
    labels = [fitted(label, widest) for label in entries]
    columns = _fitting(labels, columns, figure.get_figwidth())
    grow(figure, len(labels), columns)
    figure.legend(
        entries.values(),
        labels,
        loc="outside upper center" if at == "upper" else "outside lower center",
        ncols=columns,
        frameon=False,
    )


def _fitting(labels: list[str], columns: int, inches: float) -> int:
    """The most columns, ``columns`` at most, that are not wider than the figure; filled top down."""
    widths = [width(label) + 0.65 for label in labels]
    for count in range(min(columns, len(labels)), 1, -1):
        filled = np.array_split(widths, count)  # as matplotlib does
        if sum(float(column.max()) for column in filled) <= inches:
            return count
    return 1


def grow(figure: Figure, entries: int, columns: int, *, free: int = 2) -> None:
    """Make room for a legend's rows beyond the first ``free`` ones."""
    rows = math.ceil(entries / columns)
    figure.set_figheight(figure.get_figheight() + max(0, rows - free) * LEGEND_ROW)


def _tick_labels(figure: Figure) -> list[str]:
    return [
        text.get_text()
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for text in axis.get_majorticklabels()
    ]
