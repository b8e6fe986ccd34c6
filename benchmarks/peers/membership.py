"""Membership scores on the same target and shadow models: ours against ART's and AuditML's attackers.

The peers learn what members' predictions look like from the shadow models' predictions (all of them, on all
candidates), and score the target's. Ours are LiRA and RMIA at their defaults: the same shadow models, asked
for the mirrored image as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import Array, Strength, strength
from lira import LOW, low_end
from pages import versions_of
from shadow_tables import PART, Case, Scorer, trained_case
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from privhier.attacks.membership.lira import LiraAttack
from privhier.attacks.membership.rmia import RmiaAttack
from privhier.metrics.classification import auc

KINDS = ("nn", "rf", "gb", "lr")


class Table(nn.Module):
    """Stands for a network that says what is in a table ``(n, 2)`` of logits, asked by row ``(b, 1)``."""

    def __init__(self, logits: Array) -> None:
        super().__init__()
        self.register_buffer("logits", torch.from_numpy(logits).float())

    def forward(self, rows: Tensor) -> Tensor:
        """Logits ``(b, 2)``."""
        return self.logits[rows[:, 0].long()]  # type: ignore[index, no-any-return]


def art(kind: str) -> Scorer:
    """``MembershipInferenceBlackBox``, told the label as well."""
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBox
    from art.estimators.classification import PyTorchClassifier

    def score(case: Case) -> Array:
        said = np.concatenate([case.predictions(row) for row in case.shadows])
        labels, inside = np.tile(case.labels, len(case.shadows)), case.inside.reshape(-1)
        target = case.predictions(case.phi)
        network = PyTorchClassifier(
            Table(np.log(target)), loss=nn.CrossEntropyLoss(), input_shape=(1,), nb_classes=2
        )
        torch.manual_seed(0)
        attack = MembershipInferenceBlackBox(network, attack_model_type=kind)
        attack.fit(y=labels[inside], test_y=labels[~inside], pred=said[inside], test_pred=said[~inside])
        return np.asarray(
            attack.infer(None, case.labels, pred=target, probabilities=True), dtype=np.float64
        ).reshape(-1)

    return score


def auditml() -> Scorer:
    """``ShadowMIA``, given our shadow models."""
    from auditml.attacks.mia_shadow import ShadowMIA

    logging.getLogger("auditml").setLevel(logging.WARNING)

    def score(case: Case) -> Array:
        def loader(rows: Array) -> DataLoader[tuple[Tensor, ...]]:
            index, labels = torch.from_numpy(rows).float()[:, None], torch.from_numpy(case.labels[rows])
            return DataLoader(TensorDataset(index, labels), batch_size=256)

        def network(said: Array) -> nn.Module:
            return Table(np.log(case.predictions(said)))

        shadows = [
            (network(said), loader(np.flatnonzero(inside)), loader(np.flatnonzero(~inside)))
            for said, inside in zip(case.shadows, case.inside, strict=True)
        ]
        torch.manual_seed(0)
        attack = ShadowMIA(network(case.phi), shadow_models=shadows, num_classes=2)
        everyone = np.arange(len(case.phi))
        result = attack.run(loader(everyone[case.member]), loader(everyone[~case.member]))
        scores = np.empty(len(case.phi))
        order = np.concatenate([everyone[case.member], everyone[~case.member]])
        scores[order] = result.confidence_scores
        return scores

    return score


OURS: tuple[tuple[str, type[LiraAttack] | type[RmiaAttack]], ...] = (
    ("LiRA", LiraAttack),
    ("RMIA", RmiaAttack),
)
PEERS: tuple[tuple[str, str, Callable[[], Scorer]], ...] = (
    *(
        (
            f"ART MembershipInferenceBlackBox, {kind}",
            "adversarial-robustness-toolbox",
            lambda kind=kind: art(kind),
        )
        for kind in KINDS
    ),
    ("AuditML ShadowMIA", "auditml", auditml),
)


def rows(pairs: int, skip: Callable[[str], None]) -> Iterator[Strength]:
    """Each of ours against each peer."""
    case = trained_case()
    mine: dict[str, tuple[Array, float]] = {}
    for name, kind in OURS:
        attack = kind(shadows=len(case.shadows))
        attack.run(case.view)
        began = time.perf_counter()
        mine[name] = attack.run(case.view).scores[PART], time.perf_counter() - began
    for peer, package, make in PEERS:
        try:
            scorer, versions = make(), versions_of(package)
        except ModuleNotFoundError as error:
            skip(f"membership: {peer}: {error.name} is not installed (make peers)")
            continue
        began = time.perf_counter()
        theirs = scorer(case)
        seconds = time.perf_counter() - began
        for name, (ours, took) in mine.items():
            for score, of in (("AUC", auc), (f"TPR at FPR {LOW}", low_end)):
                yield strength(
                    f"membership, {name}, the same {len(case.shadows)} shadow models",
                    peer,
                    versions=versions,
                    score=score,
                    of=of,
                    ours=ours,
                    theirs=theirs,
                    truth=case.member,
                    seconds=(took, seconds),
                )
