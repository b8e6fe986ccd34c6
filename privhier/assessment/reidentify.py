"""Re-identification: whether a face embedder finds the victim of a reconstruction among other photos.

A picture may be poor by every pixel and still show who it is; and it may be sharp and show someone else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privhier.attacks.embedders.base import FaceEmbedder
from privhier.datasets.base import FaceDataset, FloatArray, ImageArray, IntArray
from privhier.evaluation.pictures import Reidentification
from privhier.evaluation.result import Score
from privhier.evaluation.scores import as_score, defined
from privhier.metrics.identification import (
    cosine_similarities,
    rank1_hits,
    rank1_resampled,
    true_accept_rate,
    true_accept_rate_resampled,
)
from privhier.metrics.intervals import group_bootstrap_weights, percentile_interval
from privhier.seeding import numpy_stream

GALLERY = 500
"""People in the gallery, where the split has so many."""
FAR = 0.01
"""False accept rate of the verification score."""
PER_PERSON = 10
"""Most probes of a person: one with hundreds of photos would decide the score alone."""
_IMPOSTORS = 20_000
"""Most impostor pairs: two hundred false accepts at a rate of 1 % settle a threshold."""


@dataclass(frozen=True)
class Lineup:
    """Who is looked for and among whom, with everything embedded that does not depend on the attack.

    Attributes:
        probes: int64 ``(m,)``, positions among the victims whose person has another photo.
        people: int64 ``(m,)``, each probe's person as a row of the gallery.
        gallery: float32 ``(g, E)``, one photo a person; never the attacked photo, nor a duplicate.
        originals: float32 ``(m, E)``, the attacked photos themselves.
        impostors: int64 ``(q, 2)``, pairs of a probe and a gallery row of another person.
        weights: int16 ``(R, g)``, how often each person is in each resample.
        embedder: What embedded them, and will the reconstructions.
        confidence: Of the intervals.
    """

    probes: IntArray
    people: IntArray
    gallery: FloatArray
    originals: FloatArray
    impostors: IntArray
    weights: npt.NDArray[np.int16]
    embedder: FaceEmbedder
    confidence: float

    def score(self, reconstructions: FloatArray) -> Reidentification:
        """Scores of ``reconstructions (n, 3, H, W)`` in [0, 1] of all the victims, in their order."""
        rank1, tar = self._scores(self.embedder.embed(np.clip(reconstructions[self.probes], 0, 1)))
        original_rank1, original_tar = self._scores(self.originals)
        return Reidentification(
            gallery=len(self.gallery),
            rank1=rank1,
            tar=tar,
            original_rank1=original_rank1,
            original_tar=original_tar,
        )

    def _scores(self, embedded: FloatArray) -> tuple[Score, Score | None]:
        similar = cosine_similarities(embedded, self.gallery)
        hits = rank1_hits(similar, self.people, np.arange(len(self.gallery)))
        rank1 = self._score(float(hits.mean()), rank1_resampled(hits, self.people, self.weights))
        first = np.concatenate([self.people, self.people[self.impostors[:, 0]]])
        second = np.concatenate([self.people, self.impostors[:, 1]])
        own = np.arange(len(self.probes))
        scores = np.concatenate([similar[own, self.people], similar[tuple(self.impostors.T)]])
        rate = true_accept_rate(scores, first == second, FAR)
        resampled = true_accept_rate_resampled(scores, first, second, self.weights, FAR)
        return defined(rank1), self._score(rate, resampled)

    def _score(self, value: float, resampled: npt.NDArray[np.float64]) -> Score | None:
        if np.isnan(value):
            return None
        return as_score(percentile_interval(value, resampled, self.confidence), len(self.probes))


def draw_lineup(
    dataset: FaceDataset,
    victims: IntArray,
    pool: IntArray,
    embedder: FaceEmbedder,
    *,
    gallery: int = GALLERY,
    resamples: int,
    confidence: float,
    seed: int,
) -> Lineup | None:
    """Choose probes and gallery for reconstructions of ``victims``, and embed the photos.

    The gallery holds one photo of each probe's person: an unattacked one where there is one, never a
    byte-identical copy of the probe's. It is filled up with photos of other people of the pool.

    Args:
        dataset: The faces.
        victims: int64 ``(n,)``, rows of the data set whose reconstructions will be scored.
        pool: int64 rows the gallery is taken from: the victims' split.
        embedder: A face embedder that was not trained on these people.
        gallery: People in the gallery, at least 2; fewer where the pool has fewer.
        resamples: Of the bootstrap over people, R.
        confidence: Of the intervals.
        seed: The run's seed.

    Returns:
        None where the data set names no people, or no victim has a second photo, or there is nobody
        else to be taken for.
    """
    if dataset.identity is None:
        return None
    rng = numpy_stream(seed, "reidentification")
    chosen = _choose(dataset.identity, dataset.duplicate_group, victims, pool, gallery, rng)
    if chosen is None:
        return None
    probes, photos = chosen
    rows = {int(person): row for row, person in enumerate(dataset.identity[photos])}
    people = np.array([rows[int(person)] for person in dataset.identity[victims[probes]]], dtype=np.int64)
    first, second = np.nonzero(people[:, None] != np.arange(len(photos))[None, :])
    kept = np.sort(rng.permutation(len(first))[:_IMPOSTORS])
    return Lineup(
        probes=probes,
        people=people,
        gallery=embedder.embed(_pixels(dataset.images, photos)),
        originals=embedder.embed(_pixels(dataset.images, victims[probes])),
        impostors=np.stack([first[kept], second[kept]], axis=1).astype(np.int64),
        weights=group_bootstrap_weights(
            np.arange(len(photos)), resamples, numpy_stream(seed, "bootstrap", "reidentification")
        ),
        embedder=embedder,
        confidence=confidence,
    )


def _choose(
    identity: IntArray,
    duplicates: IntArray,
    victims: IntArray,
    pool: IntArray,
    gallery: int,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray] | None:
    """Positions of the probes among the victims, and the gallery's rows of the data set."""
    attacked = duplicates[victims]
    pool = rng.permutation(pool)
    # Stable, so within each half the drawn order stays: photos nobody attacked come first.
    pool = pool[np.argsort(np.isin(duplicates[pool], attacked), kind="stable")]
    photo: dict[int, int] = {}
    for row in pool.tolist():
        photo.setdefault(int(identity[row]), row)
    probes: list[int] = []
    taken: dict[int, int] = {}
    for position in rng.permutation(len(victims)).tolist():
        person = int(identity[victims[position]])
        other = photo.get(person)
        if other is None or duplicates[other] == attacked[position]:
            continue
        if person not in taken and len(taken) == gallery:
            continue
        taken[person] = taken.get(person, 0) + 1
        if taken[person] <= PER_PERSON:
            probes.append(position)
    searched = set(attacked[probes].tolist())  # a copy of it under another name would be no fair distractor
    unknown = [
        row
        for row in (photo[person] for person in rng.permutation(np.array(sorted(photo))).tolist())
        if int(identity[row]) not in taken and duplicates[row] not in searched
    ]
    photos = [photo[person] for person in taken] + unknown[: gallery - len(taken)]
    if not probes or len(photos) < 2:
        return None
    return np.sort(np.array(probes, dtype=np.int64)), np.sort(np.array(photos, dtype=np.int64))


def _pixels(images: ImageArray, rows: IntArray) -> FloatArray:
    return np.asarray(images[rows], dtype=np.float32) / np.float32(255)
