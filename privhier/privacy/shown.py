"""Numbers of guarantees as text: a claim is rounded up, a lower bound down, so that no print says too much.

What is printed, read back as a float, is never below the claim and never above the lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def claim(value: float, digits: int = 4, *, decimals: int | None = None) -> str:
    """An epsilon, a delta or a ceiling as text, rounded up.

    Args:
        value: What is claimed; infinite gives ``inf``.
        digits: Significant digits, at most 15.
        decimals: Digits after the point, instead.

    Example:
        >>> claim(37.62246), claim(821.4529), claim(0.3, decimals=2), claim(7.991, decimals=2)
        ('37.63', '821.5', '0.30', '8.00')
    """
    return _shown(value, digits, decimals, up=True)


def lower_bound(value: float, digits: int = 4, *, decimals: int | None = None) -> str:
    """The least that an epsilon or a score is, as text, rounded down; arguments as for ``claim``.

    Example:
        >>> lower_bound(37.62846), lower_bound(0.0), lower_bound(1.9999, 3)
        ('37.62', '0', '1.99')
    """
    return _shown(value, digits, decimals, up=False)


def allowance(value: float) -> str:
    """What an epsilon allows, in words, rounded up: the best balanced accuracy at telling two inputs apart.

    Example:
        >>> allowance(0.79758)
        'allows telling two apart with balanced accuracy 0.7976'
    """
    return f"allows telling two apart with balanced accuracy {claim(value, decimals=4)}"


TWO_PROMISES = (
    "A pure epsilon and an epsilon at a delta above 0 are different promises under one number: what each "
    "allows stands beside it, and only that can be compared."
)
"""Said wherever both stand in one table."""


def mixed_promises(deltas: Iterable[float | None]) -> bool:
    """Whether epsilons with these deltas are promises of both kinds, pure and not.

    Example:
        >>> mixed_promises([0.0, 1e-5]), mixed_promises([0.0, 0.0]), mixed_promises([1e-5, None])
        (True, False, False)
    """
    kinds = {delta > 0 for delta in deltas if delta is not None}
    return len(kinds) == 2


def _shown(value: float, digits: int, decimals: int | None, *, up: bool) -> str:
    if not math.isfinite(value):
        return str(value)
    # Nearest first: 0.3 is 0.29999999999999998 and reads back as itself, so it needs no step.
    shown = f"{value:.{digits}g}" if decimals is None else f"{value:.{decimals}f}"
    if float(shown) == value or (float(shown) > value) == up:
        return shown
    way = ROUND_CEILING if up else ROUND_FLOOR
    if decimals is None:
        return f"{float(Context(prec=digits, rounding=way).create_decimal_from_float(value)):.{digits}g}"
    return f"{Decimal(value).quantize(Decimal(1).scaleb(-decimals), way):f}"
