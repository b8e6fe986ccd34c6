"""One more attack on a finished run: made in Python, scored as the configured ones are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from privhier.assessment.context import Context
from privhier.assessment.leakage import leakage
from privhier.assessment.pictures import reconstruction
from privhier.assessment.properties import property_inference
from privhier.assessment.views import cloud_view, labelled_view, raw_view, white_box_view
from privhier.attacks.base import Attack, attacks
from privhier.attacks.threat_models import eavesdropper, malicious_cloud
from privhier.attacks.view import View
from privhier.errors import ConfigError
from privhier.evaluation.result import AttackScores, PropertyInference, Reconstruction

Scores = AttackScores | Reconstruction | PropertyInference

_VIEWS: dict[str, Callable[[Context], View]] = {
    "curious_cloud": cloud_view,
    "curious_cloud_labels": lambda context: labelled_view(context, cloud_view(context)),
    "eavesdropper": lambda context: eavesdropper(cloud_view(context)),
    "white_box": lambda context: white_box_view(context, cloud_view(context)),
    "malicious_cloud": lambda context: malicious_cloud(cloud_view(context)),
    "raw_image": raw_view,
}
_PARTS = ("kind", "target", "white_box", "expensive", "refuses", "run")
"""What makes an attack, whatever its class inherits from."""
VIEWS = tuple(_VIEWS)
"""Threat models by name, and ``raw_image``: the same attackers' view of the images themselves."""


def view_of(context: Context, name: str) -> View:
    """What the threat model ``name`` hands an attacker of this run.

    Raises:
        ConfigError: No such threat model.
    """
    if name not in _VIEWS:
        raise ConfigError(
            key="view",
            value=name,
            rule=f"must be one of {', '.join(VIEWS)}",
            remedy="The default, curious_cloud, sees every release of every record",
        )
    return _VIEWS[name](context)


def score_attack(context: Context, attack: Attack, view: View) -> Scores:
    """Run ``attack`` on ``view`` and score it with intervals; its answers are kept in the run folder.

    Args:
        context: The run.
        attack: Any attack object; its ``target`` must be an attribute the run calls sensitive.
        view: One of ``view_of``.

    Raises:
        ConfigError: The target is not of this run, or the attack does not apply to the view.
        GuaranteeError: A score whose 99.99 % lower bound lies above its ceiling.
    """
    if isinstance(attack, type) or not all(hasattr(attack, name) for name in _PARTS):
        raise ConfigError(
            key="attack",
            value=attack,
            rule="must be an attack object on attributes, people, pictures or a training set's make-up",
            remedy='For instance: privhier.attacks.NearestNeighbors(target="male"); membership attacks are '
            "configured, under attacks.membership",
        )
    name = name_of(attack)
    sensitive = context.config.dataset.sensitive
    target = "identity" if attack.kind == "verification" else attack.target
    if attack.kind != "reconstruction" and target not in sensitive:
        raise ConfigError(
            key=f"{name}.target",
            value=target,
            rule=f"must be one of this run's sensitive attributes: {', '.join(sensitive)}",
            remedy="Name one of them, or start a run that lists it in dataset.sensitive",
        )
    if attack.kind != "property" and (reason := attack.refuses(view)):
        raise ConfigError(
            key=name,
            value=repr(attack),
            rule=f"does not apply to the view {view.threat_model}: {reason}",
            remedy="Choose another view, or another attack",
        )
    if attack.kind == "reconstruction":
        return _only(name, attack, list(reconstruction(context, [(name, attack)], {name: view}).values()))
    if attack.kind == "property":
        return _only(name, attack, property_inference(context, target, [(name, attack)], view))
    views = {view.threat_model: view}
    if view.task_labels is not None:  # its score stands beside that without labels
        views = {"curious_cloud": cloud_view(context), **views}
    found = leakage(context, target, [(name, attack)], views)
    return [*found.attacks_with_labels, *found.attacks][0]


def name_of(attack: Attack) -> str:
    """The name an attack is registered under, else its class's."""
    known = (name for name in attacks.names() if attacks.get(name) is type(attack))
    return next(known, type(attack).__name__)


def _only(name: str, attack: Attack, scored: Sequence[Scores]) -> Scores:
    if not scored:
        raise ConfigError(
            key=name,
            value=repr(attack),
            rule=f"does not apply to this view, as a {attack.kind} attack",
            remedy="Choose another view, or another attack",
        )
    return scored[0]
