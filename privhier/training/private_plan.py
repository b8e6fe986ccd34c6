"""What DP-SGD on the edge asks of a run: which defense, how it samples, how much noise."""

from __future__ import annotations

from privhier.config import RunConfig
from privhier.defenses.base import Defense
from privhier.errors import ConfigError
from privhier.privacy.composition import solve_noise_multiplier


def check_private(config: RunConfig, n_train: int, defense: Defense) -> None:
    """Refuse, before anything is written, a defense or a DP-SGD run that cannot be trained."""
    check_defense(config, defense)
    if config.edge.dp_sgd is None:
        return
    sampling_plan(config, n_train)
    if "identity" in config.dataset.sensitive:
        raise ConfigError(
            key="dataset.sensitive",
            value="identity",
            rule="cannot be an exit under edge.dp_sgd: its width is the number of training people, "
            "which the weights' shape would publish",
            remedy="Leave identity out of dataset.sensitive, or drop edge.dp_sgd",
        )


def check_defense(config: RunConfig, defense: Defense) -> None:
    """Refuse a defense that cannot live in this run, under DP-SGD with one loss, one backward, one optimizer.

    Raises:
        ConfigError: It compares records, and there is DP-SGD or nobody to compare with; or under DP-SGD it
            has steps, parameters or a state of its own.
    """
    for name, key, part in defense.members(config.defense.name):
        _check_member(config, part, name, key)


def _check_member(config: RunConfig, defense: Defense, name: str, where: str) -> None:
    """``check_defense`` of one defense, which stands under the key ``where``."""
    private, who = config.edge.dp_sgd is not None, f"the defense {name!r}"
    if where != "defense":
        who += f" ({where})"
    if defense.mixes_records and private:
        raise ConfigError(
            key=f"{where}.name",
            value=name,
            rule="compares the records of a batch, so a record's loss depends on others; under edge.dp_sgd "
            "nothing could be claimed",
            remedy="Choose a defense that takes every record by itself, or drop edge.dp_sgd",
        )
    if defense.mixes_records and config.training.batch_size < 2:
        raise ConfigError(
            key="training.batch_size",
            value=config.training.batch_size,
            rule=f"must be at least 2 with {who}, which compares the records of a batch",
            remedy="Set training.batch_size=2 or more, e.g. 64",
        )
    _check_needs(config, defense, who, where)
    reason = None
    if defense.adversary_steps:
        reason = "takes extra adversary steps on private labels outside the one loss"
    elif defense.reads_data:
        reason = "learns from private records outside the one loss"
    elif defense.has_parameters:
        reason = "trains parameters of its own on private records, outside the edge's mechanism"
    elif next(defense.buffers(), None) is not None:
        reason = "keeps a state of its own that may hold private records"
    if private and reason:
        raise ConfigError(
            key=where,
            value=name,
            rule=f"{reason}; under edge.dp_sgd nothing could be claimed",
            remedy=f"Set {where}.options.adversary_steps=0, choose another defense, or drop edge.dp_sgd",
        )


def _check_needs(config: RunConfig, defense: Defense, who: str, where: str) -> None:
    """Refuse a run whose releases or schedule are not what the defense is made for.

    Args:
        config: The run.
        defense: One defense.
        who: Names it in a message.
        where: The key it stands under.
    """
    kind, schedule = config.model.bottleneck.kind, config.schedule
    letters, flat = kind == "letters", kind in ("letters", "dimension")
    wrong: tuple[str, str, str, str] | None = None
    if "letters" in defense.needs and not letters:
        wrong = ("model.bottleneck.kind", kind, "must be letters", "Set model.bottleneck.kind=letters")
    elif "values" in defense.needs and letters:
        wrong = ("model.bottleneck.kind", kind, "must not be letters", "Set model.bottleneck.kind=dimension")
    elif "map" in defense.needs and flat:
        wrong = (
            "model.bottleneck.kind",
            kind,
            "must keep the map",
            "Set model.bottleneck.kind=none or channels",
        )
    elif defense.needs_noise and (config.release.mechanism != "gaussian" or config.release.sigma == 0):
        wrong = (
            "release.mechanism",
            config.release.mechanism,
            "must be gaussian, with noise,",
            f"Set release.mechanism=gaussian and release.sigma above 0, or {where}.options.sigma",
        )
    elif defense.finishes and (schedule.joint_epochs or not schedule.pretrain_epochs):
        wrong = (
            "schedule",
            f"{schedule.pretrain_epochs} + {schedule.joint_epochs} epochs of the edge",
            "must be pre-training alone, at the end of which it is fitted in closed form",
            "Set schedule.joint_epochs=0 and schedule.pretrain_epochs=1 or more",
        )
    elif defense.finishes and letters and config.model.bottleneck.fit == "learned":
        wrong = (
            "model.bottleneck.fit",
            "learned",
            "must be found after pre-training, on what the closed form then leaves,",
            "Set model.bottleneck.fit=auto",
        )
    if wrong is not None:
        key, value, rule, remedy = wrong
        raise ConfigError(
            key=key,
            value=value,
            rule=f"{rule} with {who}",
            remedy=f"{remedy}, or choose another defense",
        )


def sampling_plan(config: RunConfig, n_train: int) -> tuple[float, int]:
    """Poisson sampling rate and steps of one pre-training epoch."""
    size = config.training.batch_size
    if size >= n_train:
        raise ConfigError(
            key="training.batch_size",
            value=size,
            rule=f"must be below the {n_train} training records under edge.dp_sgd",
            remedy="Choose a smaller batch or more records",
        )
    return size / n_train, max(1, round(n_train / size))


def noise_multiplier(config: RunConfig, n_train: int) -> float:
    """As configured, or solved for ``edge.dp_sgd.target_epsilon`` over the whole schedule."""
    chosen = config.edge.dp_sgd
    assert chosen is not None
    if chosen.target_epsilon is None:
        assert chosen.noise_multiplier is not None
        return chosen.noise_multiplier
    rate, steps = sampling_plan(config, n_train)
    schedule = config.schedule
    plan = ((rate, steps * schedule.pretrain_epochs), (1.0, schedule.joint_epochs))
    return solve_noise_multiplier(
        chosen.target_epsilon,
        config.privacy.delta_for(n_train),
        tuple(part for part in plan if part[1]),
        chosen.adjacency,
    )
