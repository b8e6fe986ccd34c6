"""Identity of unknown people by way of their pictures: reconstruct first, then ask a face embedder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import yaml

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.embedders.base import FaceEmbedder, embedders
from privhier.attacks.embedders.build import build_embedder
from privhier.attacks.parts.decoding import DecoderPlan, decode_victims
from privhier.attacks.parts.people import split_people, unit_rows, verification_auc
from privhier.attacks.parts.selection import SCORED_DRAWS
from privhier.attacks.refusals import auxiliary_refusal, label_refusal, people_refusal
from privhier.attacks.view import AuxiliarySet, FloatArray, IntArray, View
from privhier.config import Choice
from privhier.config.choices import option
from privhier.seeding import numpy_stream

_KEY = "attacks.verification.embed_reconstructions.options.embedder"
_PENALTIES = (0.1, 1.0, 10.0, np.inf)
"""Ridge penalties over the mean energy of a column; an infinite one leaves the centered embedding."""
_FOLDS = 5
_MAX_HELD_OUT = 1500
"""Held-out reconstructions that are embedded; more draws of few records, one draw of many."""


@dataclass(frozen=True)
class LinearMap:
    """``(x - mean) @ matrix``: from embeddings of reconstructions towards those of the photos behind them."""

    mean: FloatArray
    matrix: FloatArray

    @classmethod
    def fit(cls, reconstructed: FloatArray, originals: FloatArray, penalty: float) -> LinearMap:
        """Ridge regression shrunk towards the identity, on centered rows ``(m, E)``.

        Minimizes ``|X W - Y|^2 + penalty * s * |W - 1|^2`` with s the mean energy of a column of X, so
        that few pictures leave the embedder as it is.
        """
        mean = reconstructed.mean(axis=0, dtype=np.float64)
        x = reconstructed - mean
        y = originals - originals.mean(axis=0, dtype=np.float64)
        matrix = np.eye(x.shape[1])
        if np.isfinite(penalty):
            gram = x.T @ x
            scale = max(float(np.trace(gram)) / len(gram), 1e-12)
            matrix = matrix + np.linalg.solve(gram + penalty * scale * matrix, x.T @ (y - x))
        return cls(mean.astype(np.float32), matrix.astype(np.float32))

    def __call__(self, rows: FloatArray) -> FloatArray:
        """Mapped rows ``(n, E)``, of length one."""
        return unit_rows(np.asarray((rows - self.mean) @ self.matrix, dtype=np.float32))


@attacks.register("embed_reconstructions")
@dataclass(frozen=True)
class EmbedReconstructionsAttack(Attack):
    """A decoder's pictures of the victims, seen by a face embedder that was trained on other people.

    The decoder (that of ``decoder``) learns from the training people only. Its pictures of the held-out
    people are therefore as good as its pictures of the victims; on those people the attacker, who
    owns their photos, fits a linear map from embeddings of pictures to embeddings of photos, and
    judges by cross-validation over people (verification AUC) whether it beats the embedding alone.

    Attributes:
        target: ``identity``, or empty.
        embedder: Registered face embedder.
        path: Its file of weights; see ``FaceEmbedder.path``.
        settings: Its further options, each ``name=value``.
        width: The decoder's, like all that follow.
        blocks: Residual blocks.
        learning_rate: Peak rate.
        epochs: Most epochs.
        batch: Records a step.
        max_gmacs: Bound on the forward cost of training, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "verification"
    embedder: str = "onnx"
    path: str = ""
    settings: tuple[str, ...] = ()
    width: int = option(64, low=4)
    blocks: int = option(3, low=1)
    learning_rate: float = option(2e-3, low=1e-7)
    epochs: int = option(30, low=1)
    batch: int = option(32, low=2)
    max_gmacs: int = option(1200, low=1)

    def __post_init__(self) -> None:
        """A wrong embedder is found out before anything is trained; without any options it may be refused."""
        super().__post_init__()
        if self.path or self.settings:
            self._build()
        else:
            embedders.get(self.embedder)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        reason = label_refusal(view) or people_refusal(view)
        if reason is not None:
            return reason
        if not (self.path or self.settings) and embedders.get(self.embedder)().needs_file:
            return f"the embedder {self.embedder!r} has no file of weights: set the option path"
        split = split_people(view, self._stream(view, "split"))
        return auxiliary_refusal(_training_view(view, split.train, view.releases[:0]))

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        aux, embedder = view.aux, self._build()
        split = split_people(view, self._stream(view, "split"))
        held_out, people = split.validation, aux.labels["identity"][split.validation]
        draws = int(np.clip(_MAX_HELD_OUT // len(held_out), 1, min(aux.draws, SCORED_DRAWS)))
        own = [aux.releases(k)[held_out] for k in range(draws)]
        everybody = _training_view(view, split.train, np.concatenate([*own, view.releases]))
        made = decode_victims(everybody, self._decoder())
        embedded = embedder.embed(made.images)
        seen, victims = embedded[: draws * len(held_out)], embedded[draws * len(held_out) :]
        photos = embedder.embed(aux.images[held_out].astype(np.float32) / np.float32(255))
        photos, folds = np.tile(photos, (draws, 1)), np.tile(self._folds(view, people), draws)
        candidates: list[tuple[float, str, float | None]] = [
            (_mean_auc(seen, people), "embedding alone", None)
        ]
        for penalty in _PENALTIES:
            mapped = np.empty_like(seen)
            for fold in range(_FOLDS):
                inside, others = folds == fold, folds != fold
                mapped[inside] = LinearMap.fit(seen[others], photos[others], penalty)(seen[inside])
            name = f"linear map, penalty {penalty:g}" if np.isfinite(penalty) else "centered embedding"
            candidates.append((_mean_auc(mapped, people), name, penalty))
        value, name, chosen = max(candidates, key=lambda candidate: candidate[0])
        return AttackResult(
            embeddings=victims if chosen is None else LinearMap.fit(seen, photos, chosen)(victims),
            validation=value,
            selected={
                "embedding": name,
                "decoder_epoch": made.epoch,
                "decoder_epochs": made.epochs,
                **({"notes": list(embedder.notes)} if embedder.notes else {}),
            },
            queries=made.queries + draws * len(held_out) * view.releases.shape[1],
        )

    def _build(self) -> FaceEmbedder:
        options: dict[str, Any] = {"path": self.path} if self.path else {}
        for setting in self.settings:
            name, equals, value = setting.partition("=")
            if not equals or not name:
                raise ValueError(f"settings must each read name=value, got {setting!r}")
            options[name] = yaml.safe_load(value)
        return build_embedder(Choice(name=self.embedder, options=options), key=_KEY)

    def _decoder(self) -> DecoderPlan:
        return DecoderPlan(
            width=self.width,
            blocks=self.blocks,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch=self.batch,
            max_gmacs=self.max_gmacs,
        )

    @staticmethod
    def _stream(view: View, name: str) -> np.random.Generator:
        return numpy_stream(view.seed, "attack", "embed_reconstructions", name)

    def _folds(self, view: View, people: IntArray) -> IntArray:
        """A fold for each record, int64 ``(m,)``; nobody is in two."""
        unique, codes = np.unique(people, return_inverse=True)
        order = self._stream(view, "folds").permutation(len(unique))
        return np.asarray((order % _FOLDS)[codes], dtype=np.int64)


def _mean_auc(rows: FloatArray, people: IntArray) -> float:
    """Verification AUC within each draw ``(draws * m, E)``: two draws of one photo are no pair of photos."""
    draws = np.split(rows, len(rows) // len(people))
    return float(np.mean([verification_auc(draw, people) for draw in draws]))


def _training_view(view: View, train: IntArray, releases: FloatArray) -> View:
    """The view of who owns only the auxiliary records ``train`` and attacks ``releases``."""
    aux = view.aux

    def drawn(k: int) -> FloatArray:
        return aux.releases(k)[train]

    own = AuxiliarySet(
        images=aux.images[train],
        labels={},
        n_classes={},
        groups=aux.groups[train],
        draws=aux.draws,
        releases=drawn,
    )
    return replace(view, releases=releases, aux=own, populations=())
