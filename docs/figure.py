"""The figure of README and of the site, from the demo beside a network that sends its whole map.

``privhier run configs/quickstart.yaml 'evaluation.references=[open_wide]' 'attacks.attribute=[table,
logistic_regression, gradient_boosting]' attacks.raw_image=false --out runs/figure``, then ``python
docs/figure.py runs/figure``.

Left, the tradeoff; right, drawn faces, and what a decoder makes of the open network's whole map and of this
run's letter. All faces are drawn by the synthetic data set; no picture of anyone is in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import privhier as ph

# isort: split
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privhier.assessment.pictures import reconstruction_sheets
from privhier.errors import ConfigError
from privhier.evaluation.headline import headline, telling
from privhier.evaluation.result import AttributeLeakage, Result, Score
from privhier.figures.style import BLACK, BLUE, GREEN, ORANGE, RC, calm
from privhier.session import reopen_session

OUT = Path(__file__).parent / "pictures" / "demo.png"
COLUMNS = 6


def main(folder: Path) -> None:
    """Write the figure.

    Raises:
        ConfigError: A run on other than drawn faces: none of its pictures may be published so.
    """
    done = ph.open_run(folder)
    if done.config.dataset.name != "synthetic":
        raise ConfigError(
            key="RUN",
            value=str(folder),
            rule="must be a run on drawn faces (data set synthetic)",
            remedy="Run the command in this file's docstring",
        )
    with mpl.rc_context(RC):
        figure = Figure(figsize=(10.5, 3.7), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.35))
        _tradeoff(left.subplots(), done.result)
        _strip(right, done)
        OUT.parent.mkdir(exist_ok=True)
        figure.savefig(OUT, dpi=110, metadata={"Software": "privhier"})


def _tradeoff(axes: Axes, result: Result) -> None:
    secret, leakage = next(iter(result.leakage.items()))
    runs: list[tuple[str, AttributeLeakage, Score, str]] = [
        ("this run: one letter", leakage, result.utility_mean.auc, BLUE)
    ]
    for reference in result.references.values():
        runs.append(("the whole map, open", reference.leakage[secret], reference.utility_mean.auc, ORANGE))
    for label, one, task, color in runs:
        top = headline(one)
        assert top is not None
        x, y = top.score, task
        axes.errorbar(
            [x.value],
            [y.value],
            xerr=[[x.value - x.low], [x.high - x.value]],
            yerr=[[y.value - y.low], [y.high - y.value]],
            color=color,
            marker="o",
            capsize=3,
            linestyle="none",
            label=label,
        )
    axes.axvline(0.5, color=BLACK, linewidth=1, label="guessing")
    bound = None if leakage.certified is None else telling(leakage.certified.auc)
    if bound is not None:
        axes.axvline(bound, color=GREEN, linewidth=1.6, label="certified, any attacker")
    axes.set_xlabel(f"leakage of {secret}: worst attacker's AUC")
    axes.set_ylabel(f"utility: AUC of {', '.join(result.utility)}")
    axes.set_title("better: up and left ↖", loc="right", fontsize=8.5)
    calm(axes)
    axes.set_xlim(0.48, 1.0)
    axes.set_ylim(0.5, 1.02)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.08), framealpha=1, edgecolor="none")


def _strip(figure: object, done: ph.FinishedRun) -> None:
    session = reopen_session(done.folder, reading=True)
    (name, *_) = session.config.evaluation.references
    sheet = reconstruction_sheets(session, session.folder.reference(name))[0]
    rows = [row for row in sheet.rows if row[3] is not None][:: max(1, len(sheet.rows) // COLUMNS)][:COLUMNS]
    grid = figure.subplots(3, len(rows), squeeze=False)  # type: ignore[attr-defined]
    for column, (_, original, own, other) in enumerate(rows):
        for place, image in zip(grid[:, column], (original / 255, other, own), strict=True):
            place.imshow(np.clip(np.moveaxis(image, 0, -1), 0, 1), interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
    for place, text in zip(
        grid[:, 0], ("a drawn face", "from the\nwhole map", "from one\nletter"), strict=True
    ):
        place.set_ylabel(text, rotation=0, ha="right", va="center")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
