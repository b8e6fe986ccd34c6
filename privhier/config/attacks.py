"""The sections that measure a run: the attackers and the evaluation of what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from privhier.config.base import Choice, Section

ThreatModel = Literal["curious_cloud", "curious_cloud_labels", "eavesdropper", "white_box", "malicious_cloud"]

ADAPTIVE = ("fine_tune", "decensor")
"""Attribute attackers who hold the edge's weights and adapt to a defense: fresh noise in every batch, the
edge's own exits fine-tuned, releases translated back to features that nobody censored."""
ADAPTIVE_VERIFICATION = ("fine_tune_metric",)
"""The same where the secret is who somebody is, and people are unknown."""


class AttacksConfig(Section):
    """Who attacks, with how much. Every attacker is trained from nothing after the victims."""

    draws: int = Field(16, ge=1)
    """K: fresh releases of each auxiliary record the attacker trains on."""
    auxiliary: int | None = Field(4000, ge=20)
    """Auxiliary records the attackers train on, drawn with the seed; none: all."""
    victims: int | None = Field(3000, ge=1)
    """Test records that are attacked, drawn with the seed; none: all."""
    training_victims: int | None = Field(1000, ge=1)
    """Training records scored as victims too, with the very releases the cloud received."""
    attribute: list[Choice] = Field(
        default_factory=lambda: [
            Choice(name="logistic_regression"),
            Choice(name="gradient_boosting"),
            Choice(name="rbf_kernel"),
            Choice(name="mlp"),
            Choice(name="cnn"),
        ]
    )
    """Attackers of sensitive attributes (``privhier list attacks``)."""
    adaptive: bool | Literal["auto"] = "auto"
    """Whether the attackers who adapt to a defense (``fine_tune`` and ``decensor``; on unknown people
    ``fine_tune_metric``), with the threat model ``white_box`` that they need, run beside those named.
    ``auto``: where there is a defense, and neither ``attribute`` nor ``threat_models`` names others than the
    default; a defense that only obfuscates fools all others."""
    verification: list[Choice] = Field(default_factory=lambda: [Choice(name="metric")])
    """Attackers who tell whether two releases are of one person; they run where ``identity`` is sensitive."""
    reconstruction: list[Choice] = Field(default_factory=lambda: [Choice(name="decoder")])
    """Attackers who rebuild the image."""
    reconstruction_victims: int = Field(256, ge=1)
    """Victims of attackers who rebuild images in one pass."""
    optimization_victims: int = Field(64, ge=1)
    """Victims of attacks that optimize for each one anew (inversion and its kin)."""
    embedders: list[Choice] = Field(default_factory=list)
    """Face embedders that try to re-identify reconstructions; the first one's scores fill the result."""
    property: list[Choice] = Field(default_factory=list)
    """Estimators of the share of every sensitive class among training records, from their releases."""
    threat_models: list[ThreatModel] = Field(["curious_cloud"], min_length=1)
    """Who attacks. ``curious_cloud`` holds all releases of a record and the cloud's tail,
    ``curious_cloud_labels`` the victims' task labels too, ``eavesdropper`` one release and no tail,
    ``white_box`` also the edge's weights; ``malicious_cloud`` answers what it likes, but no answer comes
    down."""
    auxiliary_sizes: list[int] = Field(default_factory=list)
    """Smaller auxiliary sets the attribute attackers are run with as well, for the report's curve."""
    raw_image: bool = True
    """Run the attribute and verification attackers on raw images too, for reference."""
    membership: list[Choice] = Field(default_factory=list)
    """Membership attacks; each trains shadow models with the run's own pipeline, so none is the default."""
    membership_candidates: int = Field(4000, ge=20)
    """Records whose membership is asked for, half of them training records."""

    def adapts(self, *, defended: bool) -> bool:
        """``adaptive`` with ``auto`` resolved for a run that is defended or not."""
        if self.adaptive != "auto":
            return self.adaptive
        default = type(self)()
        models = [model for model in self.threat_models if model != "white_box"]
        return defended and self.attribute == default.attribute and models == default.threat_models

    def completed(self, *, defended: bool, unknown_people: bool = False) -> AttacksConfig:
        """The same with the adaptive attackers and their threat model in it, where they run.

        Args:
            defended: Whether there is a defense.
            unknown_people: Whether a secret is who people are, of whom the attacker owns no photo.
        """
        if not self.adapts(defended=defended):
            return self
        update: dict[str, object] = {"attribute": _with(self.attribute, ADAPTIVE)}
        if unknown_people:
            update["verification"] = _with(self.verification, ADAPTIVE_VERIFICATION)
        if "white_box" not in self.threat_models:
            update["threat_models"] = [*self.threat_models, "white_box"]
        return self.model_copy(update=update)

    def joined(self, more: Mapping[str, Sequence[Choice]], *, white_box: bool) -> AttacksConfig:
        """The same with further attackers behind those named, and nobody else added to them later.

        Args:
            more: By key: ``attribute``, ``verification``, ``reconstruction``, ``property``, ``membership``.
            white_box: Whether the threat model ``white_box`` is needed as well.
        """
        update: dict[str, object] = {key: [*getattr(self, key), *choices] for key, choices in more.items()}
        if white_box and "white_box" not in self.threat_models:
            update["threat_models"] = [*self.threat_models, "white_box"]
        return self.model_copy(update=update | {"adaptive": False})


def _with(chosen: list[Choice], names: tuple[str, ...]) -> list[Choice]:
    """These attackers, and those of ``names`` that are not among them."""
    there = {choice.name for choice in chosen}
    return [*chosen, *(Choice(name=name) for name in names if name not in there)]


class EvaluationConfig(Section):
    """Intervals and reference networks."""

    bootstrap: int = Field(1000, ge=100)
    """Draws of every interval, resampling people where they are known."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of every interval."""
    references: list[Literal["open", "open_wide"]] = Field(default_factory=list)
    """Unprotected networks trained and attacked beside: at the protected width, or without bottleneck."""
    lpips_weights: str | None = None
    """torchvision's AlexNet state dict, to score reconstructions by LPIPS (extra ``lpips``) as well."""
