"""The report: what a reader finds in it, that it stands alone, that it escapes and repeats."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from privhier.config import ReportConfig, RunConfig
from privhier.errors import OutputError
from privhier.evaluation.leakage_parts import Certified, Excess
from privhier.evaluation.result import Result, Score, WorstAttack
from privhier.evaluation.sheets import ReconstructionSheet
from privhier.figures.style import Drawing
from privhier.report.bench_figures import draw_bench
from privhier.report.figures import draw_all, draw_tradeoff
from privhier.report.page import format_epsilon, format_score, render, write_report

COMMAND = "privhier run configs/quickstart.yaml --out runs/try"


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def parse(page: str) -> _Text:
    parser = _Text()
    parser.feed(page)
    return parser


Page = Callable[..., str]


@pytest.fixture(scope="module")
def drawings(repository: Path) -> dict[str, Drawing]:
    """The made-up result's figures, drawn once: seconds. A page that is read for its words has these."""
    result = Result.read(repository / "tests" / "made_up" / "example_result.json")
    history = [{"phase": "joint", "epoch": e, "edge_loss": 1 / (e + 1), "val/auc": 0.7} for e in range(3)]
    return draw_all(result, history) | draw_bench(result)


@pytest.fixture
def rendered(drawings: dict[str, Drawing], result: Result, config: RunConfig) -> Page:
    """The page of a result, for those who read words; what is written is this page, as one test sees."""

    def render_it(
        told: Result = result, chosen: RunConfig = config, sheets: Any = (), command: str = COMMAND
    ) -> str:
        return render(told, chosen, drawings=drawings, reconstructions=sheets, command=command)

    return render_it


@pytest.fixture
def page(rendered: Page, sheet: ReconstructionSheet) -> str:
    return rendered(sheets=[sheet])


def test_says_every_number_with_its_interval(page: str, result: Result) -> None:
    text = parse(page).text
    for utility in result.utility.values():
        for place in (utility.cloud, utility.edge_exit):
            assert format_score(place.auc) in text
            assert format_score(place.balanced_accuracy) in text
    for leakage in result.leakage.values():
        for attack in [leakage.worst, *leakage.attacks]:
            for score in [attack.auc, attack.verification_auc, *attack.training_records.values()]:
                if score is not None:
                    assert format_score(score) in text
        for reason in leakage.refused.values():
            assert reason in text
        if leakage.raw_image_attack and leakage.raw_image_attack.auc:
            assert format_score(leakage.raw_image_attack.auc) in text
    for reference in result.references.values():
        assert format_score(reference.utility_mean.auc) in text
        assert reference.description in text


def test_guarantees_say_what_is_not_covered_and_which_are_vacuous(page: str, result: Result) -> None:
    text = parse(page).text
    for row in result.guarantees:
        for words in (row.name, row.adversary, row.unit, row.note, *row.covers, *row.does_not_cover):
            assert words in text
    assert "8.00" in text  # 7.9931, rounded up
    assert text.count("numerically vacuous") >= 1
    assert "None for: Training record against the curious cloud" in text
    assert "insures the record" in text
    assert "A defense hides the attribute" in text


def test_a_run_that_learned_nothing_says_so_before_its_numbers(result: Result, rendered: Page) -> None:
    loud = "NOT LEARNED: task gender at the cloud does no better than guessing"
    for warnings, shown in ((["routine", loud], True), ([loud], True), (["routine"], False), ([], False)):
        page = rendered(result.model_copy(update={"warnings": warnings}))
        text = parse(page).text
        assert ('id="urgent"' in page) is shown
        assert ('id="warnings"' in page) is ("routine" in warnings)
        assert text.count(loud) == 2 * int(shown)  # once more in what may be said: nothing
        assert not shown or text.index(loud) < text.index("Task utility (cloud)")


def test_without_noise_there_is_no_guarantee(result: Result, rendered: Page) -> None:
    plain = result.model_copy(update={"guarantees": [], "references": {}, "reconstruction": {}})
    text = parse(rendered(plain)).text
    assert "no guarantee" in text
    assert "No guarantee:" in text
    assert "No reconstruction attack was run." in text
    assert "ε = " not in text


def test_stands_alone_and_runs_nothing(page: str) -> None:
    tags = parse(page).tags
    assert not [tag for tag, _ in tags if tag in ("script", "iframe", "object", "embed")]
    for tag, attributes in tags:
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), f"{tag} {target}"
    assert not re.search(r"url\(|@import", re.search(r"<style>(.*?)</style>", page, re.S)[1])  # type: ignore[index]


def test_escapes_what_comes_from_outside(tmp_path: Path, result: Result, config: RunConfig) -> None:
    evil = '<script>alert(1)</script> $x_{1}$ & "quoted"'
    leakage = {evil: next(iter(result.leakage.values()))}
    odd = result.model_copy(update={"warnings": [evil], "leakage": leakage, "references": {}})
    path = write_report(tmp_path, odd, config, history=[], reconstructions=[], command=evil)
    page = parse(path.read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>alert(1)</script>") >= 3


def test_pictures_are_the_originals_and_the_clamped_reconstructions(rendered: Page) -> None:
    original = np.arange(3 * 16 * 16, dtype=np.uint8).reshape(3, 16, 16)
    guess = np.full((3, 16, 16), 0.5, np.float32)
    guess[0, 0, 0], guess[0, 0, 1], guess[0, 0, 2] = 1.7, -0.3, np.nan
    sheet = ReconstructionSheet("decoder", [("best <1>", original, guess, None)])
    tags = parse(rendered(sheets=[sheet])).tags
    shown = {attributes["alt"]: attributes["src"] for tag, attributes in tags if tag == "img"}
    assert np.array_equal(_pixels(shown["original, best <1>"]), original)
    drawn = _pixels(shown["reconstruction, best <1>"])
    assert list(drawn[0, 0, :4]) == [255, 0, 0, 128]


def _pixels(uri: str | None) -> np.ndarray[Any, Any]:
    import base64

    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))) as image:
        return np.asarray(image).transpose(2, 0, 1)


def test_repeats_to_the_byte_and_leaves_nothing_half_written(
    tmp_path: Path, result: Result, config: RunConfig, history: list[dict[str, Any]]
) -> None:
    write_report(tmp_path, result, config, history=history, reconstructions=[], command=COMMAND)
    files = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert not [p for p in files if p.suffix == ".tmp"]
    expected = {"tradeoff", "leakage_0", "leakage_1", "leakage_2", "cost_0", "cost_1"}
    expected |= {"tradeoff_0", "tradeoff_1", "tradeoff_2", "curves_0", "curves_1", "curves_2"}
    assert {p.stem for p in files if p.suffix == ".svg"} == expected
    assert {p.stem for p in files if p.suffix == ".png"} == expected
    drawn = draw_all(result, history) | draw_bench(result)
    again = render(result, config, drawings=drawn, reconstructions=[], command=COMMAND)
    repeated = {Path("figures", f"{name}.svg"): drawing.svg for name, drawing in drawn.items()}
    repeated |= {Path("figures", f"{name}.png"): drawing.png for name, drawing in drawn.items()}
    assert files == repeated | {Path("report.html"): again.encode()}


def test_figures_touch_no_global_state_of_matplotlib(result: Result) -> None:
    import sys

    import matplotlib

    before = dict(matplotlib.rcParams)
    loaded = "matplotlib.pyplot" in sys.modules
    drawings = draw_all(result, [])
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == loaded
    assert "curves_0" not in drawings
    assert drawings["tradeoff"].png.startswith(b"\x89PNG")


def curves(result: Result, history: list[dict[str, Any]]) -> dict[str, Drawing]:
    """The figures of a history alone: a result without attributes has no other."""
    return draw_all(result.model_copy(update={"leakage": {}}), history)


def test_history_with_odd_entries_still_draws(result: Result) -> None:
    history = [
        {"phase": "joint", "epoch": 1, "loss": float("nan"), "note": "text", "flag": True, "auc": 0.7},
        {"phase": "joint", "epoch": 0, "loss": 1.0, "auc": 0.6},
    ]
    assert b"<svg" in curves(result, history)["curves_0"].svg


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, result: Result, config: RunConfig) -> None:
    (tmp_path / "figures").write_text("in the way")
    bare = result.model_copy(update={"leakage": {}, "references": {}})  # nothing to draw, which takes seconds
    with pytest.raises(OutputError, match="must be writable for the report"):
        write_report(tmp_path, bare, config, history=[], reconstructions=[], command=COMMAND)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(None, "none"), (8.0, "8.00"), (7.9901, "8.00"), (0.001, "0.01"), (float("inf"), "∞")],
)
def test_epsilon_is_never_rounded_down(epsilon: float | None, text: str) -> None:
    assert format_epsilon(epsilon) == text


def test_score_format() -> None:
    assert format_score(Score(value=0.951, low=0.944, high=0.957, n=10)) == "0.951 [0.944, 0.957]"


# What a reader must not be told, and must not be shown


@pytest.mark.parametrize(
    "name", ["training records through the edge's weights, replace-one", "task labels of one training record"]
)
def test_raw_releases_beside_a_row_with_an_epsilon_are_not_called_unbounded(
    result: Result, rendered: Page, name: str
) -> None:
    """DP-SGD or randomized labels bound something, whatever the releases do."""
    rows = [row.model_copy(update={"epsilon": None, "delta": None}) for row in result.guarantees]
    bounded = rows[0].model_copy(update={"name": name, "epsilon": 3.217, "delta": 1e-5})
    text = parse(rendered(result.model_copy(update={"guarantees": [*rows, bounded]}))).text
    assert "nothing in this run bounds" not in text
    assert "no guarantee for releases" in text
    card = text[text.index("Differential privacy") : text.index("What it does not cover")]
    assert name in card
    assert "3.22" in card
    none = parse(rendered(result.model_copy(update={"guarantees": rows}))).text
    assert "nothing in this run bounds" in none


def test_without_pictures_no_picture_is_embedded(
    config: RunConfig, sheet: ReconstructionSheet, rendered: Page
) -> None:
    none = config.model_copy(update={"report": ReportConfig(pictures="none")})
    assert none.hash() == config.hash()
    shown, hidden = (rendered(chosen=c, sheets=[sheet]) for c in (config, none))
    assert "data:image/png" in shown
    assert "data:image/png" not in hidden
    assert "report.pictures: none" in hidden
    assert "best, record 3" not in hidden


@pytest.mark.parametrize("given", ["privacy.noise_seed=987654321", "'privacy={noise_seed: 987654321}'"])
def test_the_noise_seed_is_not_in_the_report(config: RunConfig, rendered: Page, given: str) -> None:
    privacy = config.privacy.model_copy(update={"noise_seed": 987654321})
    chosen = config.model_copy(update={"privacy": privacy})
    page = rendered(chosen=chosen, command=f"privhier run a.yaml {given} --out b")
    assert "987654321" not in page
    assert "(left out)" in page
    assert "--out b" in page


def test_a_simulation_says_how_soon_its_noise_repeats(page: str) -> None:
    assert "one of ten runs of 30,000 batches" in parse(page).text


def test_the_headline_stands_with_its_floor_and_its_excess(result: Result, config: RunConfig) -> None:
    """Training records are worse: the card, the text and the side-by-side table name that number."""

    def score(value: float) -> Score:
        return Score(value=value, low=value - 0.004, high=value + 0.004, n=1000)

    found = result.leakage["race==0"]
    training = {**found.worst.training_records, "auc": score(0.6054)}
    beneath = WorstAttack(attack="table", auc=score(0.5312), training_records={"auc": score(0.5222)})
    excess = Excess(auc=score(0.0123), training_records={"auc": score(0.0832)})
    changed = found.model_copy(
        update={
            "worst": found.worst.model_copy(update={"training_records": training}),
            "floor": beneath,
            "answers": beneath.model_copy(update={"auc": score(0.5414)}),
            "excess": excess,
        }
    )
    result = result.model_copy(update={"leakage": {**result.leakage, "race==0": changed}})
    drawn = draw_all(result, [])
    page = render(result, config, drawings=drawn, reconstructions=[], command="c")
    card = page.split("Worst leakage of race==0")[1].split("</div>")[0]
    assert '<p class="big num">0.605</p>' in card
    assert "on training records" in card
    assert "<dt>floor: task labels alone</dt><dd>0.522 [0.518, 0.526]</dd>" in card
    assert "<dt>excess over the floor</dt><dd>0.083 [0.079, 0.087]</dd>" in card
    assert "<dt>the cloud&#39;s own answers</dt>" in card.replace("cloud's", "cloud&#39;s")
    side = page.split('aria-label="Side by side"')[1].split("</table>")[0]
    assert "0.605 [0.601, 0.609]" in side
    assert "0.083 [0.079, 0.087]" in side
    attackers = page.split('aria-label="Attackers on race==0"')[1].split("</table>")[0]
    for number in ("0.531", "0.522", "0.541", "0.012", "0.083"):
        assert number in attackers
    assert b"floor: true task labels alone 0.522" in drawn["leakage_0"].svg


def test_a_verdict_stands_above_every_number(result: Result, rendered: Page) -> None:
    def weak(value: float) -> Result:
        score = Score(value=value, low=value - 0.02, high=value + 0.02, n=1000)
        leakage = result.leakage["race==0"]
        images = leakage.raw_image_attack.model_copy(update={"auc": score})  # type: ignore[union-attr]
        changed = leakage.model_copy(update={"raw_image_attack": images})
        return result.model_copy(update={"leakage": result.leakage | {"race==0": changed}})

    text = parse(rendered(weak(0.505))).text
    said = (
        "The leakage of race==0 says nothing: the same attackers do no better than guessing even on the raw"
    )
    assert text.index(said) < text.index("What you may say") < text.index("Task utility (cloud)")
    assert "To mend it: give the attackers more images (attacks.auxiliary)" in text
    assert "role=alert" not in rendered(weak(0.9)).replace('"', "")


def test_losses_have_axes_of_their_own(result: Result) -> None:
    history = [
        {
            "phase": "joint",
            "epoch": epoch,
            "edge_loss": 90.0,
            "cloud_loss": 0.6,
            "adversary_loss_male": 3.0,
            "adv_loss_race": 2.0,
            "val/glossy/cloud_auc": 0.7,
            "val/smiling/cloud_auc": 0.8,
            "norm": 17.0,
        }
        for epoch in range(3)
    ]
    drawn = list(curves(result, history).values())
    titles = [d.alt.removesuffix(" over the epochs of all phases") for d in drawn]
    assert titles == ["loss: edge", "loss: cloud", "loss: adversary", "norm", "scores"]
    assert b"glossy, cloud auc" in drawn[-1].svg


def test_every_figure_of_the_page_is_one_panel_wide(
    drawings: dict[str, Drawing], result: Result, history: list[dict[str, Any]]
) -> None:
    """A wide one would be shrunk on a phone until nobody can read it."""
    widths = {
        name: float(re.search(rb'<svg[^>]* width="([0-9.]+)pt"', d.svg)[1])  # type: ignore[index]
        for name, d in (drawings | curves(result, history)).items()
    }
    assert widths.pop("tradeoff") > 700  # the whole, for papers and notebooks
    assert {round(width) for width in widths.values()} == {331}


def test_pictures_have_their_score_and_the_mean_face_beside_them(
    sheet: ReconstructionSheet, rendered: Page
) -> None:
    scores = [(0.8123, 0.9, 0.4321)] * len(sheet.rows)
    mean = np.full_like(sheet.rows[0][2], 0.25)
    told = ReconstructionSheet(sheet.attack, sheet.rows, scores, mean, 64)
    page = rendered(sheets=[told])
    text = parse(page).text
    assert "Its best, median and worst pictures of 64, by their SSIM" in text
    assert text.count("SSIM 0.812") == len(sheet.rows)
    assert text.count("SSIM 0.432") == len(sheet.rows)
    assert page.count('alt="the mean face, ') == len(sheet.rows)
    bare = rendered(sheets=[sheet])
    assert "the mean face, " not in bare


@pytest.mark.parametrize(("bound", "drawn"), [(0.9995, False), (1.0, False), (0.873, True)])
def test_no_line_is_drawn_at_a_ceiling_or_certificate_of_one(
    result: Result, bound: float, drawn: bool
) -> None:
    name, leakage = next(iter(result.leakage.items()))
    ceiling = leakage.ceiling.model_copy(update={"auc": bound})  # type: ignore[union-attr]
    certified = Certified(auc=bound, confidence=0.95, n=900, people=900)
    told = leakage.model_copy(update={"ceiling": ceiling, "certified": certified})
    figure = draw_tradeoff(result.model_copy(update={"leakage": {name: told}, "references": {}}))
    assert figure is not None
    assert (b"ceiling of this run" in figure.svg) is drawn
    assert (b"certified, any attacker" in figure.svg) is drawn
