"""small_cnn's edge written out in JAX, and JAX Privacy's step on it; the weights are ours, read over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import jax
import optax
import torch
from dp_sgd import CLIP, LR, NOISE, SIGMA, STEPS, _batch, _fresh, batches
from harness import Contender, Outcome, Report, digest
from jax import numpy as jnp
from jax_privacy import noise_addition
from jax_privacy.clipping import clipped_grad
from scene import digest_of
from torch import nn

from privhier.config import RunConfig
from privhier.models.edge import EdgeSegment
from privhier.training.batches import TrainingData

Parameters = dict[str, Any]


def parameters_of(edge: EdgeSegment) -> Parameters:
    """The edge's, by name, as JAX arrays."""
    return {name: jnp.asarray(value.detach().numpy()) for name, value in edge.named_parameters()}


def features_of(edge: EdgeSegment) -> Callable[[Parameters, Any], Any]:
    """``f(parameters, x)``: normalized images ``(B, 3, S, S)`` to features, module by module.

    Raises:
        NotImplementedError: A module that small_cnn's edge does not have.
    """
    modules = [
        (name, module)
        for part in ("trunk", "bottleneck")
        for name, module in getattr(edge, part).named_modules(prefix=part)
        if not list(module.children())
    ]

    def features(parameters: Parameters, x: Any) -> Any:
        for name, module in modules:
            x = _layer(parameters, name, module, x)
        return x

    return features


def _layer(parameters: Parameters, name: str, module: nn.Module, x: Any) -> Any:
    if isinstance(module, nn.Conv2d):
        pad = [(p, p) for p in (int(module.padding[0]), int(module.padding[1]))]
        x = jax.lax.conv_general_dilated(
            x,
            parameters[f"{name}.weight"],
            tuple(module.stride),
            pad,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )
        bias = parameters.get(f"{name}.bias")
        return x if bias is None else x + bias[:, None, None]
    if isinstance(module, nn.GroupNorm):
        batch, channels, *rest = x.shape
        grouped = x.reshape(batch, module.num_groups, -1)
        mean, spread = grouped.mean(axis=2, keepdims=True), grouped.var(axis=2, keepdims=True)
        x = ((grouped - mean) * jax.lax.rsqrt(spread + module.eps)).reshape(batch, channels, *rest)
        return x * parameters[f"{name}.weight"][:, None, None] + parameters[f"{name}.bias"][:, None, None]
    if isinstance(module, nn.ReLU):
        return jax.nn.relu(x)
    if isinstance(module, nn.AvgPool2d):
        side = int(module.kernel_size)  # type: ignore[arg-type]
        batch, channels, height, width = x.shape
        return x.reshape(batch, channels, height // side, side, width // side, side).mean(axis=(3, 5))
    if isinstance(module, nn.Flatten):
        return x.reshape(len(x), -1)
    if isinstance(module, nn.Linear):
        return x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]
    raise NotImplementedError(type(module).__name__)


def _exit(parameters: Parameters, name: str, z: Any) -> Any:
    hidden = jax.nn.relu(z @ parameters[f"{name}.0.weight"].T + parameters[f"{name}.0.bias"])
    return hidden @ parameters[f"{name}.2.weight"].T + parameters[f"{name}.2.bias"]


def losses_of(edge: EdgeSegment, sigma: float) -> Callable[..., Any]:
    """``f(parameters, images, labels, noise)``: the mean loss of a batch."""
    features = features_of(edge)

    def loss(parameters: Parameters, images: Any, labels: Any, noise: Any) -> Any:
        z = features(parameters, images.astype(jnp.float32) / 127.5 - 1)
        z = z * (CLIP / jnp.maximum(jnp.linalg.norm(z, axis=1, keepdims=True), CLIP)) + sigma * noise
        task = _exit(parameters, "task_exits.0.layers", z)
        secret = _exit(parameters, "adversarial_exits.0.layers", jax.lax.stop_gradient(z))
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        return (cross_entropy(task, labels[:, 0]) + cross_entropy(secret, labels[:, 1])).mean()

    return loss


def step_of(edge: EdgeSegment, batch: int, width: int) -> tuple[Callable[..., Any], Any, Any]:
    """The compiled step, and the states it begins with."""
    gradient = clipped_grad(
        losses_of(edge, SIGMA), l2_clip_norm=1.0, batch_argnums=(1, 2, 3), normalize_by=batch
    )
    privatizer = noise_addition.gaussian_privatizer(stddev=NOISE / batch, prng_key=jax.random.key(0))
    optimizer = optax.sgd(LR, momentum=0.9)
    parameters = parameters_of(edge)

    def step(parameters: Any, noise_state: Any, state: Any, key: Any, images: Any, labels: Any) -> Any:
        noise = jax.random.normal(key, (batch, width))
        noised, noise_state = privatizer.update(gradient(parameters, images, labels, noise), noise_state)
        updates, state = optimizer.update(noised, state)
        return optax.apply_updates(parameters, updates), noise_state, state

    return jax.jit(step), privatizer.init(parameters), optimizer.init(parameters)


def jax_loop(config: RunConfig, data: TrainingData) -> Contender:
    """JAX Privacy's clipped gradients and Gaussian privatizer, compiled whole; the compiling is not timed."""
    edge = _fresh(config, data)
    network = digest_of(edge)
    width = int(np.prod(edge.feature_shape))
    turns = [tuple(jnp.asarray(part.numpy()) for part in _batch(data, rows)) for rows in batches()]
    step, noise_start, optimizer_start = step_of(edge, len(turns[0][0]), width)
    everyone = jnp.asarray(data.images), jnp.asarray(torch.cat([data.task, data.sensitive], dim=1).numpy())
    clean = jax.jit(losses_of(edge, 0.0))

    def start() -> Callable[[], Report]:
        key = jax.random.key(1)
        first, *rest = turns
        state = step(parameters_of(edge), noise_start, optimizer_start, key, *first)
        jax.block_until_ready(state[0])

        def work() -> Report:
            now = state
            for number, (images, labels) in enumerate(rest):
                now = step(*now, jax.random.fold_in(key, number), images, labels)
            jax.block_until_ready(now[0])

            def report() -> Outcome:
                loss = float(clean(now[0], *everyone, jnp.zeros((len(everyone[0]), width))))
                return Outcome(network, digest([data.images, *batches()]), loss, STEPS)

            return report

        return work

    return Contender("JAX Privacy, compiled", start)
