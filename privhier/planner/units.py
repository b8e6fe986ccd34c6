"""Bit rates, times and sizes as people write them, and back."""

from __future__ import annotations

import math
import re

from privhier.errors import ConfigError

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ/]*)\s*")
_RATES = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_SIZES = {
    "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
}  # fmt: skip


def parse_bitrate(text: str, *, key: str = "--bitrate") -> float:
    """Bits per second, above 0. Decimal prefixes; ``/s`` and ``ps`` may follow.

    Raises:
        ConfigError: No bit rate, under ``key``.

    Example:
        >>> parse_bitrate("1.5Mbit/s"), parse_bitrate("500 kbit")
        (1500000.0, 500000.0)
    """
    number, unit = _parts(text)
    factor = _RATES.get(unit.lower().removesuffix("/s").removesuffix("ps"))
    if number is None or factor is None or not 0 < number * factor < math.inf:
        raise ConfigError(
            key=key,
            value=text,
            rule="must be a bit rate above 0 in bit, kbit, Mbit or Gbit per second",
            remedy="For instance: 5Mbit, 500kbit or 1Gbit/s",
        )
    return number * factor


def parse_seconds(text: str, *, key: str = "--latency") -> float:
    """Seconds, at least 0, from ``20ms``, ``1.5s`` or ``2min``; ``ConfigError`` otherwise."""
    number, unit = _parts(text)
    factor = _TIMES.get(unit)
    if number is None or factor is None or not number * factor < math.inf:
        raise ConfigError(
            key=key,
            value=text,
            rule="must be a time in us, ms, s, min or h",
            remedy="For instance: 20ms",
        )
    return number * factor


def parse_bytes(text: str, *, key: str = "--memory") -> int:
    """Bytes, at least 1: ``512MiB`` (binary) or ``500MB`` (decimal); ``ConfigError`` otherwise."""
    number, unit = _parts(text)
    factor = _SIZES.get(unit.lower())
    if number is None or factor is None or not 1 <= number * factor < math.inf:
        raise ConfigError(
            key=key,
            value=text,
            rule="must be a size in B, kB, MB, GB, KiB, MiB or GiB",
            remedy="For instance: 512MiB",
        )
    return int(number * factor)


def show_bitrate(rate: float) -> str:
    """A bit rate in words, e.g. ``5 Mbit/s``."""
    for factor, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if rate >= factor:
            return f"{_digits(rate / factor)} {unit}"
    return f"{_digits(rate)} bit/s"


def show_bytes(size: float) -> str:
    """A size in words, powers of two, e.g. ``1.5 MiB``."""
    for factor, unit in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if size >= factor:
            return f"{_digits(size / factor)} {unit}"
    return f"{size:.0f} B"


def show_seconds(seconds: float) -> str:
    """A time in words, e.g. ``80.1 ms``, ``12.3 s``, ``4 min 05 s`` or ``3 h 20 min``."""
    if seconds < 1:
        return f"{_digits(1000 * seconds)} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    if minutes < 100:
        return f"{minutes} min {round(seconds) % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def _parts(text: str) -> tuple[float | None, str]:
    found = _NUMBER.fullmatch(text)
    return (float(found[1]), found[2]) if found else (None, "")
