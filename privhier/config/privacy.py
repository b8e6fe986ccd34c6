"""The sections that guarantees come from: release, privacy, DP-SGD on the edge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from privhier.config.base import Section


class ClipQuantile(Section):
    """A clip bound drawn from the training records, as a differentially private quantile of their norms.

    The norms are those of the features before training. The exponential mechanism (McSherry and Talwar,
    2007; for quantiles: Smith, 2011) picks one of 1,024 values between two public ends, evenly spaced on
    a logarithmic scale; it is charged.
    """

    quantile: float = Field(0.5, gt=0, lt=1)
    """Share of the training records that the bound leaves as they are, before training."""
    epsilon: float = Field(gt=0, le=10, allow_inf_nan=False)
    """Pure, replace-one; taken out of ``release.target_epsilon``."""
    lowest: float = Field(1e-3, ge=1e-12, le=1e12)
    """Lower public end, in feature units."""
    highest: float = Field(1e3, ge=1e-12, le=1e12)
    """Upper public end, in feature units."""

    @model_validator(mode="after")
    def _ordered(self) -> ClipQuantile:
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self


def _kind_of_clip(value: object) -> str:
    return "(quantile)" if isinstance(value, dict | ClipQuantile) else "(constant)"


LETTER_MECHANISMS = ("randomized_response", "subset_selection", "truncated_geometric")
"""Channels on letters; see ``privhier.privacy.channels``."""
ORDERED_MOST = 256
"""Letters of a truncated geometric channel, at most: its matrix is searched and kept whole."""
MOST_LETTER_EPSILON = 30.0
"""Of letters: above it float64's rounding shows in the probabilities of answers."""


class ReleaseConfig(Section):
    """How features become a release (clip to norm ``clip``, add noise, quantize), or letters (answer)."""

    mechanism: Literal[
        "none", "gaussian", "laplace", "randomized_response", "subset_selection", "truncated_geometric"
    ] = "none"
    """``none``: raw features, or the true letters; no guarantee. ``gaussian``, ``laplace``: for features.
    For letters (``model.bottleneck.kind: letters``): ``randomized_response`` (the true letter, or any other
    one), ``subset_selection`` (better for many letters at a small epsilon), ``truncated_geometric`` (letters
    with an order; at most 256)."""
    clip: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False), Tag("(constant)")]
        | Annotated[ClipQuantile, Tag("(quantile)")],
        Discriminator(_kind_of_clip),
    ] = 1.0
    """Norm bound C of one record's whole tensor: L2 for gaussian, L1 for laplace. A public constant, or
    a section ``quantile, epsilon, lowest, highest``: drawn from the training records and charged."""
    sigma: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Noise scale in feature units: standard deviation (gaussian) or scale b (laplace); 0: clip only."""
    target_epsilon: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Solve ``sigma`` for this replace-one epsilon of all the schedule's releases of one record; of letters
    (pure, delta 0, at most 30): the answers share it equally."""
    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"
    """How values go over the wire, rounded after noising (post-processing: no privacy cost). int8 and int4:
    integers in [-127, 127] or [-7, 7] times a power of two of every record's own."""

    @model_validator(mode="after")
    def _one_of(self) -> ReleaseConfig:
        if self.of_letters:
            self._check_letters()
            return self
        given = (self.sigma is not None) + (self.target_epsilon is not None)
        if self.mechanism == "none" and given:
            raise ValueError("mechanism 'none' takes neither sigma nor target_epsilon")
        if self.mechanism != "none" and given != 1:
            raise ValueError(f"mechanism {self.mechanism!r} takes exactly one of sigma and target_epsilon")
        if isinstance(self.clip, ClipQuantile) and not self.clip.epsilon < (self.target_epsilon or 0):
            raise ValueError(
                "a clip bound drawn as a quantile needs target_epsilon above the quantile's epsilon, "
                "so that the noise follows the bound"
            )
        return self

    @property
    def of_letters(self) -> bool:
        """Whether the mechanism answers letters at random."""
        return self.mechanism in LETTER_MECHANISMS

    def _check_letters(self) -> None:
        if self.target_epsilon is None or self.sigma is not None:
            raise ValueError(f"mechanism {self.mechanism!r} takes target_epsilon, and no sigma")
        if self.target_epsilon > MOST_LETTER_EPSILON:
            raise ValueError(f"target_epsilon of letters must be at most {MOST_LETTER_EPSILON:g}")
        if (self.clip, self.quantize) != (1.0, "float32"):
            raise ValueError("letters are neither clipped nor quantized: leave clip and quantize out")

    @property
    def quantile(self) -> ClipQuantile | None:
        """How the clip bound is drawn; None: it is a constant."""
        return self.clip if isinstance(self.clip, ClipQuantile) else None


class PrivacyConfig(Section):
    """Accounting constants, label privacy, and where the noise comes from."""

    delta: float | Literal["auto"] = "auto"
    """Of every (epsilon, delta) statement; ``auto``: the largest power of ten at most 0.1/n and at most 1e-5,
    for n training records."""
    noise_source: Literal["seeded", "system"] = "seeded"
    """``seeded``: reproducible studies, every guarantee is a simulation. ``system``: OS entropy."""
    noise_seed: int | None = Field(None, ge=0)
    """Seed of everything private that is drawn under ``seeded``: release noise, DP-SGD noise and sampling,
    randomized labels, the clip bound. None: the run's seed, which the cloud's configuration holds. Never
    sent, and left out of the report and of MLflow; it does lie in the edge's run folder, in ``config.yaml``
    of every run and sweep. ``config_hash`` is a hash of it, so choose a long random number: a short one is
    found by trying."""
    label_epsilon: float | None = Field(None, gt=0, le=30, allow_inf_nan=False)
    """Randomize the task labels that go up (K-ary randomized response), this much for all tasks of one
    record together, in equal shares; none: labels go up in the clear."""

    @field_validator("delta")
    @classmethod
    def _delta(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("delta must be 'auto' or lie strictly between 0 and 1")
        return value

    @model_validator(mode="after")
    def _seed_has_a_use(self) -> PrivacyConfig:
        if self.noise_seed is not None and self.noise_source == "system":
            raise ValueError(
                "noise_seed has no use under noise_source 'system', which draws from the operating system"
            )
        return self

    def delta_for(self, n_train: int) -> float:
        """The delta of a run on ``n_train`` training records."""
        if self.delta != "auto":
            return float(self.delta)
        power = 5
        while 10 * n_train > 10**power:
            power += 1
        return float(f"1e-{power}")


class DpSgdConfig(Section):
    """DP-SGD (Abadi and others, 2016) on the whole edge: trunk, bottleneck and all exits, one mechanism."""

    target_epsilon: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Solve ``noise_multiplier`` for this epsilon of all the schedule's edge epochs."""
    adjacency: Literal["replace_one", "add_remove"] = "replace_one"
    """Of ``target_epsilon``; both are printed."""
    noise_multiplier: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Standard deviation of the noise over ``max_grad_norm``."""
    max_grad_norm: float = Field(1.0, gt=0, allow_inf_nan=False)
    """L2 bound of one record's gradient over all the edge's parameters. A public constant."""
    mode: Literal["auto", "hooks", "ghost"] = "auto"
    """How per-record norms are found; ``auto``: the faster one as measured for the backbone."""
    physical_batch_size: int = Field(256, ge=1)
    """Records in memory at a time; a larger batch is split and its gradients are added up."""

    @model_validator(mode="after")
    def _one_of(self) -> DpSgdConfig:
        if (self.target_epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("dp_sgd takes exactly one of target_epsilon and noise_multiplier")
        return self


class EdgeConfig(Section):
    """How the edge segment is trained."""

    dp_sgd: DpSgdConfig | None = None
    """None: plain training, no guarantee for training records against the curious cloud."""
    warmup_epochs: int | Literal["auto"] = "auto"
    """Pre-training epochs over which the noise that stays on the edge and the defense's weight rise from
    nothing to all of them, in equal steps; 0: at once. ``auto``: half of ``schedule.pretrain_epochs``
    (rounded down) where there is noise or a defense. Releases and joint epochs are never warmed up."""

    @field_validator("warmup_epochs", mode="before")
    @classmethod
    def _whole_epochs(cls, value: object) -> object:
        if value != "auto" and (type(value) is not int or value < 0):
            raise ValueError("must be 'auto' or a whole number of epochs, at least 0")
        return value
