"""One-run white-box audit of the edge's DP-SGD with gradient canaries (Steinke, Nasr and Jagielski, 2023).

The run's edge is trained once more, by the run's own code. Each of m canaries is in or out by a coin. One
that is in is drawn by the sampler that draws training records, and its gradient is a thousand times the
norm bound along one parameter of its own (a Dirac canary: Nasr and others, 2023). The auditor sees every
noisy gradient, says "in" for the highest scores and "out" for the lowest, and abstains between.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from privhier.audit.audit import AuditContext
from privhier.audit.bounds import one_run_lower_bound
from privhier.audit.release import ALARM
from privhier.audit.row import AuditRow
from privhier.config import RunConfig
from privhier.datasets.base import IntArray
from privhier.datasets.load import load_dataset
from privhier.defenses.base import build_defense
from privhier.privacy.composition import StepAccount, Steps
from privhier.privacy.dpsgd import DpSgd
from privhier.privacy.shown import claim, lower_bound
from privhier.seeding import isolated_rng, numpy_stream
from privhier.training.clip import mechanism_of
from privhier.training.draws import EdgeDraws
from privhier.training.folder import RunFolder
from privhier.training.prepare import prepare
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.trained import build_model

MOST_CANARIES = 5000
Scores = npt.NDArray[np.float64]

_GUESSED = 0.1
"""Share of the canaries that the auditor guesses, half of them "in"; fixed before anything is seen."""
_ALARM_SHARES = (0.1, 0.5, 1.0)
_ALARM_DELTA = 1e-10
"""The bound's correction is about 2 m delta: at the run's own delta no alarm could ever be so sure."""
_FAR = 1000.0


class CanaryDpSgd(DpSgd):
    """The mechanism, with canaries among the records of its batches and an observer of its noisy sums.

    Attributes:
        rows: Canaries that enter the next step.
        seen: float64 ``(m,)``, the observer's score of each canary.
    """

    rows: IntArray = np.zeros(0, dtype=np.int64)
    _first = True

    def plant(self, canaries: int, seed: int) -> IntArray:
        """Give each canary a parameter and a sign of its own; returns who is in (1) and who is out (0)."""
        rng = numpy_stream(seed, "audit", "canaries")
        sizes = [parameter.numel() for parameter in self.parameters]
        places = rng.choice(sum(sizes), size=canaries, replace=False)
        self._starts = np.cumsum([0, *sizes])
        self._places, self._signs = places, rng.choice([-1.0, 1.0], size=canaries)
        self.seen: Scores = np.zeros(canaries)
        return rng.integers(0, 2, size=canaries)

    def begin(self) -> None:
        """As ever; the next batch may take canaries."""
        super().begin()
        self._first = True

    def check(self, losses: Tensor) -> None:
        """As ever, without canaries: they enter the step that follows."""
        first, self._first = self._first, False
        super().check(losses)
        self._first = first

    def _check_gradients(self, records: int) -> None:
        """The records' gradients as ever; then the canaries' beside them, once a logical batch."""
        super()._check_gradients(records)
        if self._first and len(self.rows):
            for number, parameter in enumerate(self.parameters):
                sample: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
                extra = torch.zeros((len(self.rows), parameter.numel()), dtype=sample.dtype)
                own, places = self._here(number, self._places[self.rows])
                signs = torch.from_numpy(self._signs[self.rows][own])
                extra[np.flatnonzero(own), places] = _FAR * self.optimizer.max_grad_norm * signs.to(extra)
                whole = torch.cat([sample, extra.reshape(-1, *parameter.shape).to(sample.device)])
                parameter.grad_sample = whole  # type: ignore[attr-defined]
        self._first = False

    def _count(self, optimizer: DPOptimizer) -> None:
        super()._count(optimizer)
        self._first = True
        for number, parameter in enumerate(self.parameters):
            assert parameter.grad is not None
            noisy = parameter.grad.detach().double().cpu().reshape(-1).numpy() * optimizer.expected_batch_size
            own, places = self._here(number, self._places)
            self.seen[own] += noisy[places] * self._signs[own]

    def _here(self, number: int, places: IntArray) -> tuple[npt.NDArray[np.bool_], IntArray]:
        start, stop = self._starts[number], self._starts[number + 1]
        own = (places >= start) & (places < stop)
        return own, places[own] - start


def canary_rows(
    context: AuditContext, *, canaries: int = MOST_CANARIES, mechanism: type[CanaryDpSgd] = CanaryDpSgd
) -> list[AuditRow]:
    """The row of the edge's DP-SGD; none where the edge was trained without it.

    Args:
        context: Of the audit.
        canaries: m, at most the number of the edge's parameters.
        mechanism: For tests that break it.
    """
    config = context.config
    if config.edge.dp_sgd is None:
        return []
    n_train, steps, included, scores = _train_with_canaries(context, canaries, mechanism)
    m = len(scores)
    guesses, right = _guess(scores, included, _GUESSED)
    delta = config.privacy.delta_for(n_train)
    claimed = steps.epsilon(delta, "add_remove")
    lower = one_run_lower_bound(m, guesses, right, delta, 0.95)
    tried = [_guess(scores, included, share) for share in _ALARM_SHARES]
    error = ALARM / len(tried)
    alarm = max(one_run_lower_bound(m, r, v, _ALARM_DELTA, 1 - error) for r, v in tried)
    ceiling = steps.pld_epsilon(_ALARM_DELTA)
    by_hooks = ["per-record gradients by hooks"] if config.edge.dp_sgd.mode == "ghost" else []
    return [
        AuditRow(
            name="edge: DP-SGD",
            what=f"{m} gradient canaries in one training run, {right} of {guesses} guesses right",
            adjacency="add or remove one training record",
            claimed_epsilon=claimed if math.isfinite(claimed) else None,
            delta=delta,
            lower_95=lower,
            lower_alarm=alarm,
            draws=m,
            view="the sum of all noisy gradients along each canary's own parameter",
            refuted=math.isfinite(ceiling) and alarm > ceiling,
            note="; ".join(
                [
                    f"alarm at delta {_ALARM_DELTA:g}: {lower_bound(alarm, 3)} against {claim(ceiling, 3)}",
                    *by_hooks,
                ]
            ),
        )
    ]


def _guess(scores: Scores, included: IntArray, share: float) -> tuple[int, int]:
    """Guesses made on this share of the canaries, half of them "in", and how many are right."""
    half = int(share * len(scores) / 2)
    order = np.argsort(scores)
    return 2 * half, int(included[order[-half:]].sum() + (1 - included[order[:half]]).sum())


def _train_with_canaries(
    context: AuditContext, canaries: int, mechanism: type[CanaryDpSgd]
) -> tuple[int, StepAccount, IntArray, Scores]:
    """Training records, what was charged, who was in, and the observer's scores."""
    config = _by_hooks(context.config)
    dataset = load_dataset(config.dataset, seed=config.seed)
    sealed = RunFolder(context.run).sealed
    if sealed.path.exists():  # an audit of made-up parts has no folder
        sealed.match("data", dataset.fingerprint)
    data = prepare(config, dataset).data
    train, seed = data.splits.train, config.seed
    edge, _ = build_model(config, data)
    with isolated_rng(seed, "init", "defense"):
        defense = build_defense(config.defense)
    release = mechanism_of(config, len(train), RunFolder(context.run))
    trainer = PrivateEdgeTrainer(
        config, edge, defense, release, n_train=len(train), device=torch.device("cpu"), dp_sgd=mechanism
    )
    dp = trainer.dp
    assert isinstance(dp, CanaryDpSgd)
    included = dp.plant(min(canaries, sum(p.numel() for p in dp.parameters)), context.seed)
    rng, inside = numpy_stream(context.seed, "audit", "draws"), np.flatnonzero(included)
    epochs = [("pretrain", epoch) for epoch in range(config.schedule.pretrain_epochs)]
    epochs += [("joint", epoch) for epoch in range(config.schedule.joint_epochs)]
    charged, draws = [], EdgeDraws(config)
    edge.train()
    for done, (phase, epoch) in enumerate(epochs):
        trainer.warm_up(phase, epoch)
        event = trainer.event(phase, epoch)
        charged.append(Steps(event.noise_multiplier, event.sample_rate, event.compositions))
        turn = rng.integers(0, event.steps, size=len(inside))
        # Canaries are drawn by the run's own sampler, at the rate that is executed, whatever is charged.
        entering = trainer.poisson(np.arange(len(inside)), f"canaries {phase}", epoch)
        taken = -1
        for records in trainer.batches(train, phase, epoch):
            if dp.steps != taken:  # a new logical batch: who enters it?
                taken = dp.steps
                dp.rows = inside[turn == taken if phase == "joint" else next(entering)]
            name = (phase, epoch, trainer.turn(phase), records)
            trainer.step(data, records, draws.noise(*name), augmentation=draws.augmentation(*name))
        if context.progress is not None:
            context.progress("audit: epochs with canaries", done + 1, len(epochs))
    return len(train), StepAccount(tuple(charged)), included, dp.seen


def _by_hooks(config: RunConfig) -> RunConfig:
    """Canaries are planted among per-record gradients, which ghost clipping never writes out."""
    assert config.edge.dp_sgd is not None
    chosen = config.edge.dp_sgd.model_copy(update={"mode": "hooks"})
    return config.model_copy(update={"edge": config.edge.model_copy(update={"dp_sgd": chosen})})
