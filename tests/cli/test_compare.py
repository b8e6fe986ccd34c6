"""Runs side by side on a narrow terminal: keys can be told apart, and what may not be quoted says so."""

from __future__ import annotations

import io

from rich.console import Console

from privhier.cli.compare import drawn
from privhier.cli.console import say_table
from privhier.report.comparison import comparison


def test_no_key_is_cut_on_a_narrow_terminal(config, result):
    longer = config.model_copy(update={"attacks": config.attacks.model_copy(update={"draws": 5})})
    table = comparison([(config, result), (longer, result)], ["a-run-of-some-length", "another-of-a-length"])
    table["attacks.reconstruction_victims"] = table["attacks.reconstruction"] = "what each of them has here"
    text = io.StringIO()
    Console(file=text, width=80).print(drawn(table))
    firsts = "".join(line[:30].split("  ")[0].strip() for line in text.getvalue().splitlines())
    assert "…" not in text.getvalue()
    for key in ("attacks.draws", "attacks.reconstruction_victims"):
        assert key in firsts


def test_a_run_that_may_not_be_quoted_says_so(config, result):
    said = "NOT LEARNED: task gender at the cloud does no better than guessing"
    bad = result.model_copy(update={"warnings": [f"{said}: AUC [0.4, 0.6] where guessing has 0.5. Try more"]})
    assert "warning" not in comparison([(config, result)] * 2, ["a", "b"])
    table = comparison([(config, result), (config, bad)], ["a", "b"])
    assert table["warning"].tolist() == ["", said]
    text = io.StringIO()
    Console(file=text, width=200).print(drawn(table))
    assert said in text.getvalue()


def test_what_is_redirected_is_not_folded(config, result, capsys):
    longer = config.model_copy(update={"attacks": config.attacks.model_copy(update={"draws": 5})})
    table = comparison([(config, result), (longer, result)], ["a" * 60, "b" * 60])
    table["attacks.reconstruction_victims"] = "what each of them has here " * 4
    say_table(drawn(table))
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("attacks.reconstruction_victims")]
    assert row.count("what each of them has here") == 8
