"""DP-SGD on the whole edge through Opacus: one mechanism, one per-record loss, one backward, one optimizer.

Opacus finds per-record gradients, clips, adds noise and steps (Abadi and others, 2016; ghost clipping:
Li and others, 2022). What is ours: its cryptic failures in words, and checks that nothing reaches the
edge's parameters by another way.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from privhier.errors import ConfigError, GuaranteeError
from privhier.privacy.noise import NoiseSource

_TOLERANCE = 1e-4
"""Of a record's gradient norm: how far Opacus' per-record gradients may be from autograd's."""
Mode = Literal["hooks", "ghost"]
M = TypeVar("M", bound=nn.Module)

FASTEST: dict[str, Mode] = {}
"""Backbones whose edge ghost clipping trains faster than hooks (``benchmarks/dp_sgd.py``); else hooks."""


def mend(edge: M) -> tuple[M, list[str]]:
    """Replace what has no per-record gradient (BatchNorm by GroupNorm, in-place activations).

    Dropout and stochastic depth are switched off: their masks go by position in the batch, so one record
    less would give every later one another mask, and move the step by more than the one record's share.

    Returns:
        The edge (a copy where something changed) and what was changed, a line each.

    Raises:
        ConfigError: Something on the edge cannot live under DP-SGD and cannot be mended.
    """
    changes = []
    for name, module in edge.named_modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
            changes.append(f"{name}: {type(module).__name__} no longer works in place")
        if isinstance(module, nn.modules.dropout._DropoutNd | StochasticDepth) and module.p > 0:
            changes.append(f"{name}: {type(module).__name__} of {module.p:g} switched off")
            module.p = 0.0
    if ModuleValidator.validate(edge, strict=False):
        before = {name: type(module).__name__ for name, module in edge.named_modules()}
        mended = ModuleValidator.fix(copy.deepcopy(edge))
        for name, module in mended.named_modules():
            if type(module).__name__ != before[name]:
                changes.append(f"{name}: {before[name]} became {type(module).__name__}")
        errors = ModuleValidator.validate(mended, strict=False)
        if errors:
            raise ConfigError(
                key="model.backbone",
                value=type(edge).__name__,
                rule=f"has layers without per-record gradients: {errors[0]}",
                remedy="Choose another backbone or model.norm=group",
            )
        edge = mended
    return edge, changes


class DpSgd:
    """The mechanism around an edge segment.

    Args:
        edge: The edge segment on its device, mended.
        optimizer: Plain optimizer over exactly the edge's parameters.
        noise_multiplier: Standard deviation of the noise over ``max_grad_norm``.
        max_grad_norm: L2 bound of one record's gradient over all parameters together.
        expected_batch_size: What the noisy sum is divided by: a public constant, never the batch's size.
        mode: ``hooks`` or ``ghost``.
        source: Where noise is drawn; None: from the generator handed to each step, by Opacus.

    Raises:
        GuaranteeError: The optimizer does not hold exactly the edge's parameters, or the edge has a layer
            that mixes records.
    """

    def __init__(
        self,
        edge: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: int,
        mode: Mode,
        source: NoiseSource | None = None,
    ) -> None:
        self.parameters = [parameter for parameter in edge.parameters() if parameter.requires_grad]
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if {id(p) for p in held} != {id(p) for p in self.parameters} or len(held) != len(self.parameters):
            raise broken("optimizer", len(held), "must hold every parameter of the edge once, nothing else")
        errors = ModuleValidator.validate(edge, strict=False)
        if errors:
            raise broken("edge", type(edge).__name__, f"must not mix records: {errors[0]}")
        self.mode = mode
        common: dict[str, Any] = {
            "noise_multiplier": noise_multiplier,
            "max_grad_norm": max_grad_norm,
            "expected_batch_size": expected_batch_size,
            "loss_reduction": "mean",
        }
        # The loss is a sum over records, so backprops are per record as they are; the optimizer divides.
        if mode == "ghost":
            self.module: GradSampleModule = GradSampleModuleFastGradientClipping(
                edge,
                loss_reduction="sum",
                max_grad_norm=max_grad_norm * (1 - 2 * _TOLERANCE),  # its norms come from another backward
                use_ghost_clipping=True,
            )
            self.optimizer: DPOptimizer = DPOptimizerFastGradientClipping(optimizer, **common)
        else:
            self.module = GradSampleModule(edge, loss_reduction="sum")
            self.optimizer = DPOptimizer(optimizer, **common)
        self.optimizer.attach_step_hook(self._count)
        if source is not None:
            self.optimizer.add_noise = partial(_add_noise, self.optimizer, source)
        self.steps = 0
        self._edge = edge
        self._after: dict[str, Tensor] | None = None

    def begin(self) -> None:
        """Start an epoch: its steps are counted from 0."""
        self.steps = 0

    def descend(self, losses: Tensor, generator: torch.Generator) -> None:
        """Clip, add up and, where a logical batch ends, add noise and step.

        Args:
            losses: One loss per record, ``(B,)``, from one forward through the edge; B may be 0.
            generator: Source of this step's noise, on the edge's device.

        Raises:
            GuaranteeError: More than one backward, a parameter without a gradient, or a parameter that
                somebody else changed.
        """
        self._check_untouched()
        self.optimizer.generator = generator
        with _in_our_words():
            if self.mode == "ghost":
                DPTensorFastGradientClipping(self.module, self.optimizer, losses, "sum").backward()
            else:
                losses.sum().backward()  # type: ignore[no-untyped-call]
                self._check_gradients(len(losses))
                self._widen()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self._after = {name: value.detach().clone() for name, value in self._edge.state_dict().items()}

    def check(self, losses: Tensor) -> None:
        """Compare Opacus' per-record gradients with autograd's, record by record; nothing is changed.

        Catches what mis-scales or bypasses the clipping in silence: a reduction that does not match, a
        layer that mixes records, a parameter used outside the hooks.

        Args:
            losses: As for ``descend``, of a few records that may be made up.

        Raises:
            GuaranteeError: They differ by more than 1 in 10,000 of the norm (on CUDA and by hooks, where what
                is clipped is the very gradient that is summed, 1 in 100: TF32 convolutions are that rough).
        """
        self.module.disable_hooks()
        with _in_our_words():
            wanted = [
                torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
                for loss in losses
            ]
        self.module.enable_hooks()
        norms = [_norm([g for g in gradients if g is not None]) for gradients in wanted]
        with _in_our_words():
            losses.sum().backward()  # type: ignore[no-untyped-call]
            if self.mode == "ghost":
                found = self.module.get_norm_sample().detach()
                worst = max(abs(float(a) - b) / max(b, 1e-6) for a, b in zip(found, norms, strict=True))
            else:
                self._check_gradients(len(losses))
                worst = 0.0
                for row, gradients in enumerate(wanted):
                    pairs = zip(self.parameters, gradients, strict=True)
                    off = _norm([_sample(p)[row] - (0 if g is None else g) for p, g in pairs])
                    worst = max(worst, off / max(norms[row], 1e-6))
            self.optimizer.zero_grad(set_to_none=True)
        self._forget()
        rough = self.mode == "hooks" and losses.device.type == "cuda"
        if not worst <= (100 * _TOLERANCE if rough else _TOLERANCE):
            raise broken(
                "per_record_gradients",
                f"off by {worst:.3g} of the norm",
                "Opacus' per-record gradients must be those of the per-record losses",
            )

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
            for name in ("grad_sample", "_norm_sample"):
                if hasattr(parameter, name):
                    setattr(parameter, name, None)

    def _count(self, optimizer: DPOptimizer) -> None:
        self.steps += 1

    def _widen(self) -> None:
        """Make per-record gradients float32 before their norms are taken, or the bound would be off."""
        for parameter in self.parameters:
            parameter.grad_sample = _sample(parameter).float()  # type: ignore[attr-defined]

    def _check_untouched(self) -> None:
        now = self._edge.state_dict()
        if self._after is not None and not all(torch.equal(now[k], v) for k, v in self._after.items()):
            raise broken(
                "edge", "changed between two steps", "only the DP-SGD mechanism may change its parameters"
            )

    def _check_gradients(self, records: int) -> None:
        for parameter in self.parameters:
            sample = getattr(parameter, "grad_sample", None)
            if sample is None:
                raise broken(
                    "per_record_gradients",
                    "a parameter without one",
                    "every parameter of the edge and its exits must take part in the one loss",
                )
            if isinstance(sample, list) or len(sample) != records:
                raise broken(
                    "backward",
                    "more than one before a step",
                    "one forward, one per-record loss and one backward per step",
                )


def broken(key: str, value: object, rule: str) -> GuaranteeError:
    """A DP-SGD mechanism that no epsilon can be claimed for."""
    return GuaranteeError(
        key=f"dp_sgd.{key}",
        value=value,
        rule=rule,
        remedy="No epsilon can be defended; put everything that trains the edge into the defense's one loss",
    )


@contextmanager
def no_draws(device: torch.device) -> Iterator[None]:
    """Refuse code that draws from torch's global generators: such draws go by position in the batch.

    Raises:
        GuaranteeError: Something was drawn.
    """

    def states() -> list[Tensor]:
        cuda = device.type == "cuda"
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if cuda else [])]

    before = states()
    yield
    if not all(torch.equal(now, then) for now, then in zip(states(), before, strict=True)):
        raise broken(
            "edge",
            "draws random numbers of its own",
            "a layer or a defense that draws by position in the batch makes other records' gradients depend "
            "on whether a record is there",
        )


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Opacus' three cryptic failures as messages that say what to do."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            yield
    except IndexError as error:
        if "pop from empty list" not in str(error):
            raise
        raise broken(
            "backward", "two after one forward", "one forward, one per-record loss and one backward per step"
        ) from error
    except (ValueError, AttributeError) as error:
        if "grad accumulation" in str(error):
            raise broken(
                "backward", "two rounds before a step", "one forward and one backward per step"
            ) from error
        if "Per sample gradient" in str(error) or "grad_sample" in str(error) or "_norm_sample" in str(error):
            raise broken(
                "per_record_gradients",
                "a parameter without one",
                "every parameter of the edge and its exits must take part in the one loss",
            ) from error
        raise


def _add_noise(optimizer: DPOptimizer, source: NoiseSource) -> None:
    """Opacus' own step, but for where the noise comes from: 64 bits of entropy a value, float64 inside."""
    std = optimizer.noise_multiplier * optimizer.max_grad_norm
    for parameter in optimizer.params:
        total: Tensor = parameter.summed_grad  # put there by Opacus
        noise = std * source.gaussian(tuple(total.shape)).to(total)
        parameter.grad = (total + noise).view_as(parameter)


def _sample(parameter: nn.Parameter) -> Tensor:
    sample: Tensor = parameter.grad_sample  # type: ignore[attr-defined]  # put there by Opacus
    return sample


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([t.detach().double().square().sum() for t in tensors]).sum().sqrt())
