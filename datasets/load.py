"""From the configuration to a ``FaceDataset``: find the root, list, limit, decode once, group."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from privhier.config import Choice, DatasetConfig
from privhier.config.choices import build
from privhier.datasets import near_doubles
from privhier.datasets.attributes import column_of
from privhier.datasets.base import FaceDataset, ImageArray, Problem, examples
from privhier.datasets.cache import Pictures, Progress, cache_folder, cached_pictures
from privhier.datasets.decode import VERSION
from privhier.datasets.labelled import keep_labelled
from privhier.datasets.layouts import folders_in, there
from privhier.datasets.listing import Listing, Renderer, Source, require_folder
from privhier.datasets.registry import datasets
from privhier.datasets.versions import equal_names, group_versions
from privhier.datasets.walk import walk
from privhier.errors import ConfigError, DataError
from privhier.seeding import numpy_stream

DRAW_CHUNK = 256


def load_dataset(config: DatasetConfig, *, seed: int, progress: Progress | None = None) -> FaceDataset:
    """The faces that ``config`` names, decoded once.

    A record without a label in a column that ``task`` or ``sensitive`` names is dropped and reported; then
    ``min_images_per_identity`` and ``limit`` choose from the listing, before anything is decoded, so the
    cache holds exactly what is used. ``seed`` draws which groups ``limit`` keeps, and the synthetic faces.

    Args:
        config: The ``dataset`` section; its splits are not used here.
        seed: The run's seed.
        progress: Called as ``progress("decode" or "draw", done, total)``.

    Raises:
        UnknownNameError: No data set of that name.
        ConfigError: An option the data set does not have, or of the wrong type.
        DataError: Missing root or label file, or nothing usable left.
        OutputError: The cache folder cannot be written.
    """
    source, root, listing = list_records(config, seed=seed)
    listing = keep_labelled(listing, _used(config, listing))
    listing = _keep_people(listing, config.min_images_per_identity)
    listing = _keep_some(listing, config.limit, seed)
    if not len(listing):
        raise _nothing_left(config, listing.problems)
    if listing.render is not None:
        pictures = _draw(listing.render, len(listing), config.image_size, progress)
    else:
        pictures = cached_pictures(
            config.name,
            root,
            listing,
            size=config.image_size,
            crop=config.crop,
            folder=cache_folder(config.cache),
            near_doubles=source.seeks_near_doubles,
            progress=progress,
        )
    problems = (*listing.problems, *pictures.problems)
    if len(pictures.rows) < len(listing):
        listing = listing.select(pictures.rows)
    if not len(listing):
        raise _nothing_left(config, problems)
    versions = group_versions(listing.paths, pictures.digests, listing.photo, pictures.near)
    named = () if source.names_repeat or not source.on_disk else equal_names(listing.paths)
    return FaceDataset(
        name=config.name,
        images=pictures.images,
        attributes=listing.attributes,
        identity=listing.identity,
        group=versions.group if listing.identity is None else listing.identity,
        duplicate_group=versions.group,
        problems=problems,
        fingerprint=_fingerprint(config, listing, pictures),
        value_names=listing.value_names,
        unavailable=listing.unavailable,
        layout=listing.layout,
        identical=versions.identical,
        notices=(*versions.notices, *named),
    )


def list_records(config: DatasetConfig, *, seed: int) -> tuple[Source, Path, Listing]:
    """The data set, its folder and all its records before anything is chosen or decoded.

    Raises:
        UnknownNameError, ConfigError, DataError: As ``load_dataset``.
    """
    source = build_source(config)
    root = _root(source, config)
    listing = source.read(root, seed=seed)
    if source.on_disk:
        listing = replace(listing, problems=(*listing.problems, *walk(root).problems))
    return source, root, listing


def check_handed(config: DatasetConfig, dataset: FaceDataset) -> None:
    """Refuse faces that were handed over where the configuration names others.

    Raises:
        ConfigError: Another data set's name, another image size, or keys that choose while loading.
    """
    size = int(dataset.images.shape[-1])
    for key, said, found in (("name", config.name, dataset.name), ("image_size", config.image_size, size)):
        if said != found:
            raise ConfigError(
                key=f"dataset.{key}",
                value=said,
                rule=f"does not describe the faces that were handed over: theirs is {found}",
                remedy=f"Set dataset.{key}={found}",
            )


def build_source(config: DatasetConfig) -> Source:
    """The data set of ``config.name`` with its options.

    Raises:
        UnknownNameError: No data set of that name.
        ConfigError: An unknown option, or a value that breaks its rule (key ``dataset.options.X``).
    """
    return build(datasets, Choice(name=config.name, options=config.options))


def _root(source: Source, config: DatasetConfig) -> Path:
    if not source.on_disk:
        return Path()
    data = os.environ.get("PRIVHIER_DATA")
    if config.root is not None:
        root = Path(config.root).expanduser()
    elif source.folder is not None and data:
        root = Path(data).expanduser() / source.folder
    else:
        where = (
            "" if source.folder is None else f", or PRIVHIER_DATA to the folder that holds {source.folder}/"
        )
        raise DataError(
            key="dataset.root",
            value=config.root,
            rule=f"nothing says where {config.name} lies",
            remedy=f"Set dataset.root to its folder{where}",
        )
    remedy = "Point dataset.root at the data set's folder"
    if config.root is None:
        remedy += ", or PRIVHIER_DATA at the one above it"
    return require_folder(root, f"the folder of {config.name}", hint=_beside(root), remedy=remedy)


def _beside(root: Path) -> str:
    if there(root):
        return "That is a file: unpack it, and name the folder. "
    names = folders_in(root.parent)
    return f"{root.parent} holds {', '.join(names[:8])}{' and more' * (len(names) > 8)}. " if names else ""


def _used(config: DatasetConfig, listing: Listing) -> set[str]:
    named = {column_of(text, listing.attributes) for text in (*config.task, *config.sensitive)}
    # A section that names no column (a first look at a folder) could mean any of them.
    return named.intersection(listing.attributes) or set(listing.attributes)


def _keep_people(listing: Listing, least: int) -> Listing:
    if least == 1:
        return listing
    if listing.identity is None:
        raise ConfigError(
            key="dataset.min_images_per_identity",
            value=least,
            rule=listing.unavailable.get("identity", "needs a data set that names people"),
            remedy="Remove it, or choose a data set with identities",
        )
    _, person, count = np.unique(listing.identity, return_inverse=True, return_counts=True)
    return listing.select(np.flatnonzero(count[person] >= least))


def _keep_some(listing: Listing, limit: int | None, seed: int) -> Listing:
    if limit is None or limit >= len(listing):
        return listing
    people = np.arange(len(listing)) if listing.identity is None else listing.identity
    _, person, count = np.unique(people, return_inverse=True, return_counts=True)
    order = numpy_stream(seed, "limit").permutation(len(count))
    totals = np.cumsum(count[order])
    # The prefix of the drawn order whose size comes nearest to the limit, and at least one person.
    kept = order[: int(np.argmin(np.abs(totals - limit))) + 1]
    return listing.select(np.flatnonzero(np.isin(person, kept)))


def _draw(render: Renderer, count: int, size: int, progress: Progress | None) -> Pictures:
    images: ImageArray = np.empty((count, 3, size, size), dtype=np.uint8)
    digests = np.zeros((count, 32), dtype=np.uint8)
    starts = range(0, count, DRAW_CHUNK)

    def work(start: int) -> None:
        rows = np.arange(start, min(start + DRAW_CHUNK, count), dtype=np.int64)
        images[start : start + len(rows)] = render(rows, size)
        for row in rows.tolist():
            digests[row] = np.frombuffer(hashlib.sha256(images[row]).digest(), dtype=np.uint8)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="draw") as pool:
        for finished, _ in enumerate(pool.map(work, starts), 1):
            if progress is not None:
                progress("draw", min(finished * DRAW_CHUNK, count), count)
    images.flags.writeable = False
    return Pictures(images, np.arange(count, dtype=np.int64), digests, ())


def _fingerprint(config: DatasetConfig, listing: Listing, pictures: Pictures) -> str:
    head = f"{config.name} {config.image_size} {config.crop} {VERSION} {near_doubles.VERSION}\n"
    digest = hashlib.sha256(head.encode())
    digest.update("\n".join(listing.paths).encode(errors="surrogateescape"))
    digest.update(pictures.digests.tobytes())
    columns = dict(listing.attributes)
    if listing.identity is not None:
        columns[""] = listing.identity
    for name in sorted(columns):
        digest.update(f"\n{name} {columns[name].dtype}\n".encode())
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()


def _nothing_left(config: DatasetConfig, problems: tuple[Problem, ...]) -> DataError:
    problems = (*sorted(problems, key=lambda one: one.kind != "missing folder"),)
    first = f", the first: {problems[0].where} ({problems[0].reason})" if problems else ""
    counts = Counter(problem.kind for problem in problems)
    kinds = [f"{counts[one.kind]} like {one.where} ({one.reason})" for one in examples(problems, len(counts))]
    counted = f": {'; '.join(kinds[:6])}" if len(counts) > 1 else ""
    return DataError(
        key="dataset",
        value=config.name,
        rule=f"no usable image is left ({len(problems)} problems{first}){counted}",
        remedy="Check dataset.root, and that the labels name the images and are not empty",
    )
