"""Bit rates, times and sizes in words."""

from __future__ import annotations

import pytest

from privhier.errors import ConfigError
from privhier.planner.units import (
    parse_bitrate,
    parse_bytes,
    parse_seconds,
    show_bitrate,
    show_bytes,
    show_seconds,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5Mbit", 5e6),
        ("500kbit", 5e5),
        ("1.5Mbit/s", 1.5e6),
        ("100 Mbit", 1e8),
        ("1Gbit", 1e9),
        ("9600bit/s", 9600),
        ("2Mbitps", 2e6),
        (" 1e2 kbit ", 1e5),
    ],
)
def test_bit_rates(text, value):
    assert parse_bitrate(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "5", "5MB", "5MiB", "Mbit", "-5Mbit", "0Mbit", "1e999Mbit", "5 Mbit s", "5,5Mbit"]
)
def test_what_is_no_bit_rate_is_refused_by_name(text):
    with pytest.raises(ConfigError) as caught:
        parse_bitrate(text)
    assert caught.value.key == "--bitrate"
    assert caught.value.value == text


def test_times_and_sizes():
    assert parse_seconds("20ms") == pytest.approx(0.02)
    assert parse_seconds("0s") == 0
    assert parse_bytes("512MiB") == 512 * 2**20
    assert parse_bytes("1.5 GB") == 1_500_000_000
    for parse, text in (
        (parse_seconds, "20"),
        (parse_seconds, "-1s"),
        (parse_bytes, "0B"),
        (parse_bytes, "1 Mbit"),
    ):
        with pytest.raises(ConfigError):
            parse(text)


def test_in_words_and_back():
    assert show_bitrate(5e6) == "5 Mbit/s"
    assert parse_bitrate(show_bitrate(1.5e9)) == 1.5e9
    assert show_bytes(1536) == "1.5 KiB"
    assert show_bytes(1023 * 2**20) == "1023 MiB"
    assert show_seconds(0.0801) == "80.1 ms"
    assert show_seconds(12.34) == "12.3 s"
    assert show_seconds(245) == "4 min 05 s"
    assert show_seconds(12_000) == "3 h 20 min"
