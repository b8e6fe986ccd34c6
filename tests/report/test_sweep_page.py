from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pyarrow.parquet
import pytest

from privhier.errors import OutputError, ResultError
from privhier.evaluation.frontier import frontier
from privhier.evaluation.points import load_points
from privhier.report.sweep_page import setting_name, short_keys, write_sweep_report
from privhier.report.sweep_plot import family_styles, place
from privhier.storage.sealed import Sealed

WRITTEN = ["report.html", "frontier.json", "points.csv", "points.parquet"]
FIGURES = [f"frontier_{a}.{kind}" for a in ("race_eq_0", "race", "identity") for kind in ("svg", "pdf")]


@pytest.fixture(scope="module")
def sweep(make_sweep, tmp_path_factory):
    folder = make_sweep(tmp_path_factory.mktemp("sweep"))
    assert write_sweep_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(sweep):
    return (sweep / "report.html").read_text()


@pytest.fixture(scope="module")
def small(make_sweep, tmp_path_factory):
    def make(**options):
        return make_sweep(tmp_path_factory.mktemp("small"), sigmas=[0.1, 0.3], widths=[8], **options)

    return make


def test_everything_is_written_and_again_the_same_bytes(sweep):
    first = {name: (sweep / name).read_bytes() for name in WRITTEN + FIGURES}
    write_sweep_report(sweep)
    assert {name: (sweep / name).read_bytes() for name in WRITTEN + FIGURES} == first
    assert not list(sweep.glob("*.tmp"))


def test_the_page_needs_nothing_from_outside(page):
    assert not re.search(
        r"(?:src|href)=\"(?!#|points/|points\.|frontier|ranking|breakers|sweep\.yaml|data:)", page
    )
    assert "http" not in page
    assert "<link" not in page.replace('<link rel="icon" href="data:,">', "")


def test_choosing_a_point_is_said_not_to_be_covered(page):
    assert "Choosing a point is not covered by any epsilon" in page


def test_every_point_links_to_its_report_and_gives_its_command(sweep, page):
    for point in load_points(sweep):
        assert (f'href="points/{point.id}/report.html"' in page) == (point.status == "done")
        command = f"privhier run points/{point.id}/config.yaml --out repeated/{point.id}"
        assert (command in page) == (point.status == "done")


def test_one_mark_a_setting_with_its_facts_in_the_title(page):
    titles = re.findall(r"<a class=\"mark [^>]*><title>([^<]*)</title>", page)
    assert len(titles) == 2 * 3 * 35  # for a desk and for a phone
    assert all(len(re.findall(r"^release.sigma = ", t, re.M)) == 1 for t in titles)
    assert all("utility 0." in t and "leakage 0." in t and "seeds 0" in t for t in titles)


def test_lines_ring_ceilings_and_references_are_drawn(page):
    assert page.count('<line class="chance"') == 3 * 3  # two plots and a legend, three attributes
    assert page.count('<line class="raw"') == 3 * 3
    assert page.count('<line class="floor"') == 3 * 3
    assert page.count('<circle class="ring"') == 2 * 3 * 3  # none x sigma 0 x three widths
    assert page.count('class="ceiling"') >= 3
    assert "guessing 0.50" in page
    assert "open network, same width" in page


def test_an_epsilon_is_never_shown_without_its_limits(put, make_sweep, tmp_path):
    sweep = make_sweep(tmp_path, sigmas=[0.1], widths=[8])
    for path in (sweep / "points").glob("*/result.json"):
        put(path, re.sub(r'"epsilon": [0-9.]+', '"epsilon": 83.8', path.read_text()))
    page = write_sweep_report(sweep).read_text()
    assert "epsilon 83.80 (numerically vacuous)" in page
    assert '83.80<span class="vacuous">' in page
    assert "void against anyone who knows the seed" in page


def test_failed_and_pending_points_are_listed_with_their_error(page):
    assert "DataError: &lt;made up&gt; no person has two images" in page
    assert "1 pending" in page
    assert "70 of 72 points done" in page


def test_who_pays_is_a_table_of_the_front_and_the_references(page):
    assert page.count("<h3>Who pays</h3>") == 2  # not for identity
    block = page.split("<h3>Who pays</h3>")[1].split("</table>")[0]
    assert "within each class of race==0" in block
    assert block.index("open network, same width (8)") < block.index("max_entropy")
    assert re.search(r'title="0\.\d+ \[0\.\d+, 0\.\d+\]">0\.\d+</td>', block)


def test_frontier_json_holds_what_the_page_shows(sweep):
    data = json.loads((sweep / "frontier.json").read_text())
    assert (data["schema"], data["sweep"], data["sweep_hash"]) == (
        "privhier.frontier/1",
        "made_up_front",
        "5" * 64,
    )
    assert [panel["attribute"] for panel in data["panels"]] == ["race==0", "race", "identity"]
    panel = data["panels"][0]
    assert panel["reference_point"] == {"utility": 0.5, "leakage": 1.0}
    assert len(panel["candidates"]) == 35
    assert set(panel["families"]) == {"none", "gradient_reversal", "max_entropy"}
    assert len(panel["comparisons"]) == 6
    assert "Student" in data["interval_method"]


def test_csv_and_parquet_hold_the_same_rows(sweep):
    rows = list(csv.DictReader(io.StringIO((sweep / "points.csv").read_text())))
    table = pyarrow.parquet.read_table(sweep / "points.parquet").to_pylist()
    assert len(rows) == len(table) == 72
    for row, other in zip(rows, table, strict=True):
        assert list(row) == list(other)
        assert {k: "" if v is None else str(v) for k, v in other.items()} == row
    done = [row for row in table if row["status"] == "done"]
    assert all(r["utility/auc_low"] <= r["utility/auc"] <= r["utility/auc_high"] for r in done)
    assert {r["leakage/race_eq_0/on_front"] for r in done} == {True, False}
    assert {type(row["release.sigma"]) for row in table} == {float}


def test_figures_are_real_and_describe_themselves(sweep):
    for name in FIGURES:
        data = (sweep / name).read_bytes()
        assert data.startswith(b"%PDF") if name.endswith("pdf") else ElementTree.fromstring(data) is not None


def test_families_have_colors_told_apart_by_the_color_blind_and_shapes_besides(sweep):
    styles = family_styles(load_points(sweep))
    okabe_ito = {"#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"}
    assert len({s.color for s in styles.values()} & okabe_ito) == 3
    assert len({s.shape for s in styles.values()}) == 3


def test_more_families_than_colors_still_differ(sweep):
    point = load_points(sweep)[0]
    points = [replace(point, family=f"f{n}") for n in range(30)]
    assert len(set(family_styles(points).values())) == 30


def test_names_from_outside_are_escaped(put, small):
    sweep = small()
    text = (sweep / "points.json").read_text().replace("max_entropy", "<script>alert(1)</script>")
    put(sweep / "points.json", text)
    put(sweep / "sweep.yaml", "name: <b>bold</b>\n")
    page = write_sweep_report(sweep).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>bold" not in page


def test_a_sweep_without_a_finished_point_still_has_a_page(small):
    page = write_sweep_report(small(pending=12, failed=0)).read_text()
    assert "No point has a scored attribute yet" in page
    assert "12 pending" in page


def test_one_point_and_one_seed_are_enough(small):
    sweep = small(seeds=[0], defenses=["none"], failed=0)
    page = write_sweep_report(sweep).read_text()
    assert "1 of 1 settings is on the front" in page
    assert "Families against each other on" not in page


def test_several_data_sets_get_panels_of_their_own(put, small):
    sweep = small(failed=0, pending=0)
    path = next((sweep / "points").glob("*/result.json"))
    put(path, path.read_text().replace('"name": "synthetic"', '"name": "celeba"'))
    page = write_sweep_report(sweep).read_text()
    assert page.count('<svg class="plot wide') == page.count('<svg class="plot narrow') == 6
    assert (sweep / "frontier_celeba_gender_bin_age_20_40_60_race.svg").exists()


def test_mixed_kinds_in_one_axis_become_text_in_parquet(put, small):
    sweep = small()
    index = json.loads((sweep / "points.json").read_text())
    for row, value in zip(index["points"], ["wide", 8, None] * 4, strict=True):
        row["settings"]["model.bottleneck.size"] = value
    put(sweep / "points.json", json.dumps(index))
    write_sweep_report(sweep)
    column = pyarrow.parquet.read_table(sweep / "points.parquet")["model.bottleneck.size"].to_pylist()
    assert column == ["wide", "8", None] * 4


def test_bad_folders_end_in_typed_errors(small, tmp_path):
    with pytest.raises(ResultError, match="privhier sweep"):
        write_sweep_report(tmp_path)
    sweep = small()
    (sweep / "report.html").mkdir()
    (sweep / "report.html" / "in_the_way").touch()
    with pytest.raises(OutputError, match=r"report\.html"):
        write_sweep_report(sweep)


def test_settings_in_words(sweep):
    keys = ["defense.name", "model.bottleneck.size", "release.sigma"]
    assert setting_name(load_points(sweep)[-1], keys) == "max_entropy, bottleneck.size 1024, sigma 0.6"
    assert short_keys(["a.sigma", "b.sigma"]) == {"a.sigma": "a.sigma", "b.sigma": "b.sigma"}


def test_floors_their_excess_and_the_best_label_releases_are_shown(sweep, page):
    assert page.count("floor: true task labels alone 0.530") == 2 * 3  # in the plot, and below it on a phone
    assert "The true task labels alone tell 0.530" in page
    assert "beyond the labels&#39; floor" in page
    assert page.count("its excess over the floor of the true task labels") == 3
    assert page.count('range">excess ') >= 3
    assert page.count('<path class="limit" d="M') == 2 * 2 + 2  # plots of two attributes, and their legends
    panel = json.loads((sweep / "frontier.json").read_text())["panels"][0]
    assert panel["floor"]["value"] == 0.53
    assert panel["label_limit"][-1]["utility"] == 1.0
    excess = panel["candidates"][0]["excess"]
    assert excess["value"] == pytest.approx(panel["candidates"][0]["leakage"]["value"] - 0.53, abs=1e-6)
    rows = list(csv.DictReader(io.StringIO((sweep / "points.csv").read_text())))
    assert float(rows[0]["leakage/race_eq_0/headline/floor"]) == 0.53
    assert rows[0]["leakage/race_eq_0/records"] == "test"
    assert "best function of the true labels" in (sweep / "frontier_race_eq_0.svg").read_text()


def test_families_are_ranked_and_held_against_every_attacker(sweep, page):
    assert page.count('aria-label="Ranking of families') == 3
    assert page.count('aria-label="Attackers against families') == 3
    assert re.search(r"in \d+\.\d&nbsp;% of the draws", page)
    ranked = list(csv.DictReader(io.StringIO((sweep / "ranking.csv").read_text())))
    assert len(ranked) == 3 * 2 * 3  # attributes, tolerated losses, families
    assert {row["place"] for row in ranked} == {"1", "2", "3"}
    for row in ranked:
        assert (row["points"] == "") == (row["leakage"] == "")
    told = list(csv.DictReader(io.StringIO((sweep / "breakers.csv").read_text())))
    assert {row["family"] for row in told} == {"none", "gradient_reversal", "max_entropy"}
    assert all(float(row["excess_low"]) <= float(row["excess"]) <= float(row["excess_high"]) for row in told)
    winners = [row for row in told if row["wins"] == "True"]
    assert len(winners) == 3 * 3


def test_certificates_are_drawn_and_told_where_there_are_some(small):
    folder = small(defenses=["none"])
    for path in (folder / "points").glob("*/result.json"):
        data = json.loads(path.read_text())
        for leakage in data["leakage"].values():
            if leakage["worst"].get("auc"):
                leakage["certified"] = {"auc": 0.6, "confidence": 0.95, "n": 900, "people": 900}
        Sealed(path.parent).write(path, json.dumps(data))
    write_sweep_report(folder)
    page = (folder / "report.html").read_text()
    assert 'path class="certified"' in page
    assert "certified of a point on the front" in page
    assert "certified 0.6" in page
    told = json.loads((folder / "frontier.json").read_text())["panels"][0]["candidates"]
    assert {candidate["certified"] for candidate in told} == {0.6}


def test_certificates_stand_in_the_window_and_those_of_one_nowhere(small, result):
    folder = small(defenses=["none"], seeds=[0], failed=0, pending=0)
    drawn = {}
    for bound in (0.93, 0.9998):
        for path in (folder / "points").glob("*/result.json"):
            data = json.loads(path.read_text())
            for leakage in data["leakage"].values():
                leakage["raw_image_attack"] = None
                if leakage["worst"].get("auc"):
                    leakage["certified"] = {"auc": bound, "confidence": 0.95, "n": 900, "people": 900}
            data["references"] = {}
            Sealed(path.parent).write(path, json.dumps(data))
        page = write_sweep_report(folder).read_text()
        drawn[bound] = 'path class="certified"' in page, "certified 0.93" in page
        assert "certified 1.0" not in page
        told = json.loads((folder / "frontier.json").read_text())["panels"][0]["candidates"]
        assert {candidate["certified"] for candidate in told} == {bound}
    assert drawn == {0.93: (True, True), 0.9998: (False, False)}


def test_a_leakage_below_guessing_stands_at_guessing_and_its_measure_is_told(small):
    folder = small(defenses=["none", "max_entropy"], seeds=[0], failed=0, pending=0)
    path = sorted((folder / "points").glob("*/result.json"))[0]
    data = json.loads(path.read_text())
    for leakage in data["leakage"].values():
        if leakage["worst"].get("auc"):
            leakage["worst"]["auc"] = {"value": 0.414, "low": 0.39, "high": 0.44, "n": 1000}
            leakage["headline"] = None
    data["utility_mean"]["auc"] = {"value": 0.51, "low": 0.5, "high": 0.52, "n": 1000}
    Sealed(path.parent).write(path, json.dumps(data))
    page = write_sweep_report(folder).read_text()
    assert "leakage 0.414 [0.390, 0.440], counts as guessing (0.500)" in page
    assert "measured below guessing" in page
    assert '<span class="range">counts as 0.500</span>' in page
    panel = json.loads((folder / "frontier.json").read_text())["panels"][0]
    unlucky = next(c for c in panel["candidates"] if c["leakage"]["value"] == 0.414)
    assert unlucky["leakage_counted"] == 0.5
    assert sum(c["on_front"] for c in panel["candidates"]) > 1  # it was the whole front
    rows = list(csv.DictReader(io.StringIO((folder / "points.csv").read_text())))
    low = next(r for r in rows if r["leakage/race_eq_0/headline/score"] == "0.414")
    assert low["leakage/race_eq_0/headline/counted"] == "0.5"
    ranked = list(csv.DictReader(io.StringIO((folder / "ranking.csv").read_text())))
    assert all(float(r["leakage_counted"]) >= 0.5 for r in ranked if r["leakage_counted"])
    found = frontier(load_points(folder), "race==0")
    marks = place(found, family_styles(load_points(folder)), {}).marks
    (mark,) = [m for m in marks if m.measured is not None]
    guessing = next(
        r.x for r in place(found, family_styles(load_points(folder)), {}).rules if r.kind == "chance"
    )
    assert mark.at.x == guessing
    assert mark.at.left < mark.measured < mark.at.x == mark.at.right


def test_names_of_the_front_are_written_apart(sweep):
    points = load_points(sweep)
    names = {point.setting: setting_name(point, ["release.sigma"]) for point in points if point.result}
    plot = place(frontier(points, "race==0"), family_styles(points), names)
    written = [mark.name for mark in plot.marks if mark.name]
    assert len(written) == sum(mark.candidate.on_front for mark in plot.marks) > 1
    assert len({(name.x, name.y) for name in written}) == len(written)
    assert all(0 < name.x < plot.canvas.width and 0 < name.y < plot.canvas.height for name in written)


def test_points_that_may_not_be_quoted_are_said_on_page_table_and_console(make_sweep, tmp_path):
    from privhier.sweeps.publish import publish

    folder = make_sweep(tmp_path, sigmas=[0.1, 0.3], widths=[8], failed=0, pending=0)
    assert publish(folder)[1] == []
    assert "may not be quoted" not in (folder / "report.html").read_text()
    index = json.loads((folder / "points.json").read_text())
    point = folder / "points" / index["points"][0]["id"]
    result = json.loads((point / "result.json").read_text())
    said = "NOT LEARNED: task gender at the cloud does no better than guessing"
    loud = f"{said}: AUC [0.4, 0.6] where guessing has 0.5. Try more"
    result["warnings"] = ["3 files were skipped", loud]
    Sealed(point).write(point / "result.json", json.dumps(result))
    assert publish(folder)[1] == [f"WARNING: {said}, at 1 of the finished points"]
    assert f"<li><code>{point.name}</code>: {said}</li>" in (folder / "report.html").read_text()
    assert (folder / "report.html").read_text().count(">not to be<br>quoted<") == 1
    rows = list(csv.DictReader(io.StringIO((folder / "points.csv").read_text())))
    assert [row["warning"] for row in rows if row["warning"]] == [said]
    ranked = list(csv.DictReader(io.StringIO((folder / "ranking.csv").read_text())))
    told = {row["unquotable"] for row in ranked if point.name in row["points"].split()}
    assert told == {"1"}
    assert {row["unquotable"] for row in ranked if point.name not in row["points"].split()} <= {"0", ""}
    assert json.loads((folder / "frontier.json").read_text())["unquotable"] == {point.name: [said]}
