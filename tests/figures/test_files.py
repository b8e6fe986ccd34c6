"""A figure's files."""

from __future__ import annotations

import io

import matplotlib
import pytest
from matplotlib.figure import Figure

from privhier.figures.style import _METADATA, RC, legend, rendered


def made() -> Figure:
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1, 2], [0.5, 0.7, 0.6], label="a line")
    axes.set_xlabel("epochs")
    axes.set_title("scores", loc="left")
    legend(figure, [axes], at="upper", columns=2)
    return figure


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_a_file_is_what_savefig_gives_of_the_same_layout(kind):
    """``rendered`` spares the drawing that ``savefig`` lays out by, and nothing else."""
    with matplotlib.rc_context(RC):
        figure = made()
        files = dict(zip(_METADATA, rendered(figure, *_METADATA), strict=True))
        stream = io.BytesIO()
        dpi = 150 if kind == "png" else "figure"
        figure.savefig(stream, format=kind, dpi=dpi, metadata=_METADATA[kind])
    assert files[kind] == stream.getvalue()
    assert figure.dpi == made().dpi
