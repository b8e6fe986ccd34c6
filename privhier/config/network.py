"""The split network: backbone, cut, bottleneck, exits."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from privhier.config.base import Choice, Section

MOST_LETTERS = 4096
"""K, at most: twelve bits."""


class BottleneckConfig(Section):
    """The optional layer before the release."""

    kind: Literal["none", "dimension", "channels", "letters"] = "none"
    """What is released: the whole feature map (``none``), values (``dimension``), channels of the map
    (``channels``), or letters from a finite alphabet (``letters``)."""
    size: int | None = Field(None, ge=1)
    """Values (``dimension``) or channels (``channels``) per record; values per letter (``letters``)."""
    letters: int | Literal["auto"] | None = None
    """K, for ``letters``: the values become one of so many letters. ``auto``: by the epsilon of an answer: 2
    letters, 3 from an epsilon of 2.25 on, 4 from 3.25, 6 from 4.75, 8 from 5.75, 12 from 8.5, 16 from 10; 16
    where nothing is answered at random. Measured for one task of two classes; several want more."""
    groups: int = Field(1, ge=1, le=64)
    """M, for ``letters``: letters per record, each of ``size`` values of its own; they share its epsilon."""
    fit: Literal["auto", "posteriors", "quantiles", "kmeans", "learned"] = "auto"
    """How letters are found. After pre-training, on features of training records: ``posteriors`` (k-means on
    what the task exits make of them; one letter a record), ``quantiles`` (of one value) or ``kmeans``.
    ``learned``: trained with the edge, the only way under ``edge.dp_sgd``. ``auto``: ``learned`` there, else
    ``posteriors`` for one letter a record, ``kmeans`` for more; the sweeps in
    ``experiments/letters`` compare them."""

    @field_validator("letters", mode="before")
    @classmethod
    def _letters(cls, value: object) -> object:
        if value in (None, "auto") or (type(value) is int and 2 <= value <= MOST_LETTERS):
            return value
        raise ValueError(f"must be auto, or an integer from 2 to {MOST_LETTERS}")

    @property
    def alphabet(self) -> int | None:
        """K; None where there are no letters, or how many is not settled yet."""
        return None if self.letters == "auto" else self.letters

    @model_validator(mode="after")
    def _size(self) -> BottleneckConfig:
        if (self.kind == "none") != (self.size is None):
            raise ValueError("size is given exactly when kind is not 'none'")
        if (self.kind == "letters") != (self.letters is not None):
            raise ValueError("letters is given exactly when kind is 'letters'")
        if self.kind != "letters" and (self.groups, self.fit) != (1, "auto"):
            raise ValueError("groups and fit are for kind 'letters' only")
        if self.fit == "posteriors" and self.groups != 1:
            raise ValueError("fit 'posteriors' is for one letter a record: choose groups 1, or fit kmeans")
        if self.fit == "quantiles" and self.size != 1:
            raise ValueError("fit 'quantiles' is for letters of one value: choose size 1, or fit kmeans")
        return self

    @model_serializer(mode="wrap")
    def _of_its_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the keys of letters where there are none: hashes of other runs stay as they were."""
        data: dict[str, Any] = handler(self)
        return data if self.kind == "letters" else {k: v for k, v in data.items() if k in ("kind", "size")}


class ModelConfig(Section):
    """The split network."""

    backbone: str = "small_cnn"
    """The network that is cut in two (``privhier list backbones``)."""
    cut: str = "stage2"
    """Name of the last stage on the edge."""
    norm: Literal["group", "batch"] = "group"
    """Normalization layers: GroupNorm, or BatchNorm (refused under DP-SGD, which it breaks)."""
    stem: Literal["small", "torchvision"] = "small"
    """First layers: ``small`` keeps the resolution of small images, ``torchvision`` is the original."""
    weights: str = "none"
    """``none``, or the path of a state dict of torchvision's own model (.pth or .safetensors)."""
    bottleneck: BottleneckConfig = BottleneckConfig()
    """The optional layer before the release."""
    exit_hidden: int = Field(64, ge=0)
    """Hidden width of the task exit and the adversarial exits; 0: linear."""
    matched_filter: bool | Literal["auto"] = "auto"
    """Whether the tail of a released map begins with a linear layer that makes up for how the edge shaped the
    noise, where what matters was scaled up or down. ``auto``: where the defense shapes it (``gain``, alone or
    in a ``sum``); a cloud is told. The tail of values or letters begins with a full layer in any
    case, and gets no other."""

    def filters(self, *, shaped: bool) -> bool:
        """``matched_filter`` with ``auto`` resolved for an edge that shapes its noise or not."""
        if self.bottleneck.kind not in ("none", "channels"):
            return False
        return shaped if self.matched_filter == "auto" else self.matched_filter

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the filter where nobody asked for or against one: hashes stay as before the key existed."""
        data: dict[str, Any] = handler(self)
        if self.matched_filter == "auto":
            data.pop("matched_filter", None)
        return data


NOISE_SHAPING = ("gain",)
"""Defenses that scale values before the clip, so that what arrives has to be scaled back."""


def shapes_noise(defense: Choice) -> bool:
    """Whether a defense, or one of those it is the sum of, shapes the release's noise."""
    names: list[object] = [defense.name]
    parts = defense.options.get("parts")
    if defense.name == "sum" and isinstance(parts, list):
        names += [part.get("name") if isinstance(part, dict) else part for part in parts]
    return any(name in NOISE_SHAPING for name in names)
