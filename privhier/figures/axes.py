"""Axes of figures: logarithmic ones in plain numbers at any range, and no tick label over another.

Matplotlib's own labels of a logarithmic axis are formulas, which the figures do not parse (a dollar sign in a
name is a dollar sign), and below a decade it labels every minor tick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator
from matplotlib.transforms import Bbox

MOST_TICKS = 7
LARGEST = 1e100  # what an axis holds without overflow in what is computed from it
_GAP = 2.0  # pixels of the measuring canvas, so that a canvas of another resolution has no overlap either


def plain(values: Sequence[float]) -> list[str]:
    """Numbers as short as tells them apart, at least to six digits.

    Example:
        >>> plain([0.001, 20, 1e9])
        ['0.001', '20', '1e+09']
        >>> plain([1000.0001, 1000.0002])
        ['1000.0001', '1000.0002']
    """
    for digits in range(6, 18):
        labels = [f"{value:.{digits}g}" for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return labels


def percent(values: Sequence[float]) -> list[str]:
    """Shares as percentages.

    Example:
        >>> percent([0.001, 1])
        ['0.1%', '100%']
    """
    return [f"{label}%" for label in plain([100 * value for value in values])]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, both above 0: decades, or 1, 2, 5, or evenly spaced ones.

    Example:
        >>> log_ticks(0.5, 2000)
        [1.0, 10.0, 100.0, 1000.0]
        >>> log_ticks(3, 60)
        [5.0, 10.0, 20.0, 50.0]
        >>> log_ticks(3.1, 4.6)
        [3.5, 4.0, 4.5]
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    decades = range(first, last + 1, max(1, -(-(last - first + 1) // MOST_TICKS)))
    if len(decades) >= 3:
        return [float(f"1e{k}") for k in decades]
    steps = [float(f"{m}e{k}") for k in range(first - 1, last + 1) for m in (1, 2, 5)]
    inside = [step for step in steps if low <= step <= high]
    if len(inside) >= 3:
        return inside
    even = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def log_axis(
    axis: Axis,
    low: float,
    high: float,
    *,
    at: Sequence[float] = (),
    label: Callable[[Sequence[float]], list[str]] = plain,
) -> None:
    """Make an axis logarithmic from ``low`` to ``high``, both finite and above 0.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        low: Its lower end.
        high: Its upper end; equal ends are moved apart.
        at: Where the ticks are; empty: at ``log_ticks``.
        label: What is written there.
    """
    if high / low < 1.0001:
        low, high = low / 1.5, high * 1.5
    name = "x" if axis is axis.axes.xaxis else "y"
    axis.axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    ticks = list(at) or log_ticks(low, high)
    axis.set_ticks(ticks, labels=label(ticks))
    axis.set_ticks([], minor=True)


def log_room(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """Ends of a logarithmic axis that shows all ``values``, finite and above 0, with room on both sides."""
    low, high = min(values), max(values)
    room = (high / low) ** share
    return max(low / room, 1 / LARGEST), min(high * room, LARGEST)


def thin_labels(figure: Figure) -> None:
    """Drop tick labels that would be drawn over others; the first of an axis is kept, its ticks are fixed."""
    if figure.get_figheight() > 6:  # inches; a tall figure's layout settles in the second round
        figure.draw_without_rendering()
    for _ in range(3):  # fewer labels may move the axes
        figure.draw_without_rendering()
        crowded = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if _thinned(axis)]
        if not crowded:
            return


def _thinned(axis: Axis) -> bool:
    low, high = sorted(axis.get_view_interval())
    room = (high - low) * 1e-9
    ticks = [t for t in axis.get_major_ticks() if low - room <= t.get_loc() <= high + room]
    shown = [(float(t.get_loc()), label) for t in ticks for label in (t.label1,) if _drawn(label)]
    kept: list[tuple[float, Text]] = []
    for place, label in sorted(shown, key=lambda pair: pair[0]):
        if not kept or not _touch(kept[-1][1].get_window_extent(), label.get_window_extent()):
            kept.append((place, label))
    if len(kept) == len(shown):
        return False
    places = [place for place, _ in kept]
    if isinstance(axis.get_major_formatter(), FixedFormatter):
        axis.set_ticks(places, labels=[label.get_text() for _, label in kept])
    else:
        axis.set_major_locator(FixedLocator(places))
    return True


def _drawn(label: Text) -> bool:
    return label.get_visible() and bool(label.get_text())


def _touch(a: Bbox, b: Bbox) -> bool:
    return bool(a.x0 < b.x1 + _GAP and b.x0 < a.x1 + _GAP and a.y0 < b.y1 + 0.5 and b.y0 < a.y1 + 0.5)


def span(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    """Ends of a linear axis that shows all ``values``, with room on both sides; (0, 1) for none."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = max((high - low) * pad, 0.008, abs(low) * 1e-6)
    return low - room, high + room
