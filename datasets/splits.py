"""Splits by group: ``train``, ``val`` (ours), ``aux`` (the attacker's) and ``test``."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from privhier.config import SplitsConfig
from privhier.datasets.base import FaceDataset, IntArray, Splits
from privhier.errors import DataError
from privhier.seeding import numpy_stream

NAMES = ("train", "val", "aux", "test")
AUX = NAMES.index("aux")

Shares = npt.NDArray[np.float64]


def split_dataset(dataset: FaceDataset, config: SplitsConfig, *, protocol: str, seed: int) -> Splits:
    """Cut ``dataset`` into four splits; the same seed gives the same splits.

    ``unknown_people``: no person and no set of byte-identical files is in two splits. Groups are placed
    from the largest down, each into a split drawn in proportion to what that split still lacks, so that
    shares come out as near as group sizes allow and every split gets its part of the large groups.

    ``known_people``: every person's photos are spread over the splits as evenly as the shares allow.
    Everyone has a photo in ``aux`` and at least one other elsewhere; whoever has as many distinct photos
    as there are splits is in all of them. Byte-identical files stay together.

    Raises:
        DataError: Fewer groups than splits, no identities or people with a single distinct photo under
            ``known_people``, or a split that comes out empty.
    """
    shares = np.array([getattr(config, name) for name in NAMES], dtype=np.float64)
    if protocol == "known_people":
        place = _spread_people(dataset, shares, seed)
    else:
        place = _spread_groups(dataset, shares, seed)
    splits = Splits(*(np.flatnonzero(place == number).astype(np.int64) for number in range(len(NAMES))))
    check_disjoint(dataset, splits, protocol=protocol)
    return splits


def check_disjoint(dataset: FaceDataset, splits: Splits, *, protocol: str) -> None:
    """Assert that every record is in exactly one split, and that no split is empty or cuts a group.

    Raises:
        DataError: One of these does not hold; the message names the splits.
    """
    parts = [getattr(splits, name) for name in NAMES]
    for name, part in zip(NAMES, parts, strict=True):
        if not len(part):
            raise DataError(
                key=f"dataset.splits.{name}",
                value=0,
                rule=f"the {name} split is empty",
                remedy="Keep more images (dataset.limit) or give that split a larger share",
            )
    if not np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(dataset))):
        raise DataError(
            key="dataset.splits",
            value=[len(part) for part in parts],
            rule="every record must be in exactly one split",
            remedy="Make splits with split_dataset",
        )
    kinds = {"duplicate group": dataset.duplicate_group}
    if protocol != "known_people":
        kinds["group"] = dataset.group
    for kind, numbers in kinds.items():
        for first in range(len(NAMES)):
            for second in range(first + 1, len(NAMES)):
                shared = np.intersect1d(numbers[parts[first]], numbers[parts[second]])
                if len(shared):
                    raise DataError(
                        key="dataset.splits",
                        value=f"{NAMES[first]}, {NAMES[second]}",
                        rule=f"share the {kind} {shared[0]} under the {protocol} protocol",
                        remedy="Make splits with split_dataset",
                    )


def _spread_groups(dataset: FaceDataset, shares: Shares, seed: int) -> IntArray:
    component = _components(dataset)
    sizes = np.bincount(component)
    if len(sizes) < len(NAMES):
        raise DataError(
            key="dataset.splits",
            value=len(sizes),
            rule=f"has fewer groups than the {len(NAMES)} splits (a group is a person, or identical files)",
            remedy="Keep more images (dataset.limit), or use dataset.identity_protocol: known_people",
        )
    random = numpy_stream(seed, "splits")
    order = random.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    draws = random.random(len(sizes)).tolist()
    lacking = (shares * len(dataset)).tolist()
    of_group = np.empty(len(sizes), dtype=np.int64)
    for group, draw in zip(order.tolist(), draws, strict=True):
        size = int(sizes[group])
        room = [lack if lack >= size else 0.0 for lack in lacking]
        total = sum(room)
        if total > 0:
            aim, chosen = draw * total, 0
            while aim >= room[chosen] and chosen < len(room) - 1:
                aim -= room[chosen]
                chosen += 1
        else:
            chosen = lacking.index(max(lacking))
        of_group[group] = chosen
        lacking[chosen] -= size
    _fill_empty(of_group, sizes)
    return of_group[component]


def _fill_empty(of_group: IntArray, sizes: IntArray) -> None:
    """Give each empty split the smallest group of the split that has most groups."""
    for number in range(len(NAMES)):
        counts = np.bincount(of_group, minlength=len(NAMES))
        if counts[number] == 0:
            candidates = np.flatnonzero(of_group == counts.argmax())
            of_group[candidates[sizes[candidates].argmin()]] = number


def _components(dataset: FaceDataset) -> IntArray:
    """Numbers of the sets of records tied by group or by duplicate group, directly or in a chain."""
    groups = np.unique(dataset.group, return_inverse=True)[1].astype(np.int64)
    duplicates = np.unique(dataset.duplicate_group, return_inverse=True)[1].astype(np.int64) + len(dataset)
    edges = coo_array(
        (np.ones(len(dataset)), (groups, duplicates)), shape=(2 * len(dataset), 2 * len(dataset))
    )
    labels = connected_components(edges, directed=False)[1]
    return np.unique(labels[groups], return_inverse=True)[1].astype(np.int64)


def _spread_people(dataset: FaceDataset, shares: Shares, seed: int) -> IntArray:
    if dataset.identity is None:
        raise DataError(
            key="dataset.identity_protocol",
            value="known_people",
            rule=f"needs identities, and {dataset.name} names no people",
            remedy="Use unknown_people, or a data set with identities",
        )
    photo = np.unique(dataset.duplicate_group, return_inverse=True)[1]
    pairs = np.unique(np.stack([dataset.identity, photo], axis=1), axis=0)
    photos: dict[int, list[int]] = defaultdict(list)
    for person, number in pairs.tolist():
        photos[person].append(number)
    alone = [person for person, own in photos.items() if len(own) < 2]
    if alone:
        raise DataError(
            key="dataset.min_images_per_identity",
            value=f"{len(alone)} people with a single distinct photo",
            rule="known_people needs at least 2 distinct photos of everyone: the attacker's and a victim's",
            remedy=f"Set dataset.min_images_per_identity to {len(NAMES)} or more",
        )
    random = numpy_stream(seed, "splits")
    place: dict[int, int] = {}
    carried = np.zeros(len(NAMES))
    for person in random.permutation(sorted(photos)).tolist():
        own = photos[person]
        targets = shares * len(own)
        counts = np.bincount([place[number] for number in own if number in place], minlength=len(NAMES))
        # Rounding errors are carried from person to person, so that totals keep to the shares too.
        wanted = targets + np.clip(carried, -1, 1)
        for number in random.permutation([number for number in own if number not in place]).tolist():
            place[number] = chosen = _next_split(wanted - counts, counts, len(own))
            counts[chosen] += 1
        carried += targets - counts
    return np.array([place[number] for number in photo.tolist()], dtype=np.int64)


def _next_split(lacking: Shares, counts: IntArray, photos: int) -> int:
    """The split that lacks most; splits a person must be in, and is not yet in, come first."""
    if counts[AUX] == 0:
        return AUX
    if photos >= len(NAMES) and not counts.all():
        return int(np.where(counts == 0, lacking, -np.inf).argmax())
    if counts.sum() == counts[AUX]:
        return int(np.where(np.arange(len(NAMES)) == AUX, -np.inf, lacking).argmax())
    return int(lacking.argmax())
