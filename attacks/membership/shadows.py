"""Shadow models: the target's training procedure on random halves of the pool, and what they say of it.

Trained once for all attacks on a view, and kept on disk one by one where the view names a folder.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp

from privhier.attacks.membership.view import MembershipView, Model, Together
from privhier.attacks.once import charge, once
from privhier.attacks.view import FloatArray, ImageArray, IntArray
from privhier.errors import CheckpointError
from privhier.process.stopping import hear_sigterm
from privhier.seeding import numpy_stream, stream_seed
from privhier.storage.locks import exclusive
from privhier.storage.sealed import Sealed

QUERIES = ("original", "mirrored")
"""What is asked of every record, in order: the image itself, and the image mirrored left to right."""

BoolArray = npt.NDArray[np.bool_]
Said = dict[str, FloatArray]
"""By part: log-odds of the true class, float32 ``(queries, m, tasks)``."""
_Job = tuple[int, IntArray, int]
"""A shadow model's number, training rows and seed."""


@dataclass(frozen=True)
class Shadow:
    """One shadow model.

    Attributes:
        inside: bool ``(pool,)``, whether it was trained on each record of the pool.
        said: By part, log-odds of each record's true class, float32 ``(queries, pool, tasks)``.
        seconds: Wall time of its training and answers.
    """

    inside: BoolArray
    said: Mapping[str, FloatArray]
    seconds: float = 0.0


def true_log_odds(logits: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """``log p_y - log(1 - p_y)``, float64 ``(m,)``, from logits ``(m, K)`` and labels ``(m,)``.

    Computed as ``z_y - logsumexp(z_k, k != y)``, which no confidence saturates: ``1 - p_y``
    would round to zero (Carlini et al., 2022, use the same form).
    """
    z = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(z))
    others = z.copy()
    others[rows, labels] = -np.inf
    return np.asarray(z[rows, labels] - logsumexp(others, axis=1), dtype=np.float64)


def ask(parts: Mapping[str, Model], images: ImageArray, labels: IntArray) -> Said:
    """Put every query on every record to every part of a network.

    Args:
        parts: The network by part.
        images: uint8 ``(m, 3, H, W)``.
        labels: int64 ``(m, tasks)``.
    """
    shape = (len(QUERIES), len(images), labels.shape[1])
    said: Said = {name: np.empty(shape, dtype=np.float32) for name in parts}
    for query in range(len(QUERIES)):
        shown = np.ascontiguousarray(images[..., ::-1]) if query else images
        for name, answers in _answers(parts, shown, query).items():
            for task, logits in enumerate(answers):
                said[name][query, :, task] = true_log_odds(logits, labels[:, task])
    return said


def _answers(
    parts: Mapping[str, Model], images: ImageArray, query: int
) -> Mapping[str, tuple[FloatArray, ...]]:
    if isinstance(parts, Together):
        return parts.together(images, query)
    return {name: model(images, query) for name, model in parts.items()}


def ask_target(view: MembershipView) -> Said:
    """What the target says of the whole pool; asked once a view."""
    return once(view, "membership/target", lambda: ask(view.target, view.pool_images(), view.pool_labels()))


def training_rows(view: MembershipView, number: int) -> IntArray:
    """Rows of the pool that shadow model ``number`` is trained on, sorted.

    Models 2k and 2k + 1 share out the candidates, groups kept whole (the target, too, was trained on all
    of a person's photos or on none), so every candidate is in exactly half of an even number of models. Of
    the population they take disjoint parts, as large as it takes to train on as many records as the
    target, at most half of it each.
    """
    pair, second = divmod(number, 2)
    n, m = len(view.images), len(view.population.images)
    rng = numpy_stream(view.seed, "membership", "halves", pair)
    groups, population = rng.permutation(np.unique(view.groups)), n + rng.permutation(m)
    first = np.isin(view.groups, groups[: len(groups) // 2])
    own = np.flatnonzero(~first if second else first)
    fill = min(m // 2, max(0, view.records - len(own)))
    more = population[m - fill :] if second else population[:fill]
    return np.sort(np.concatenate([own, more])).astype(np.int64)


def shadow_models(view: MembershipView, count: int) -> list[Shadow]:
    """The first ``count`` shadow models of the view; those in the store or the scratch are not trained again.

    Several processes may share the store: while one trains, the others wait.
    """
    known: dict[int, Shadow] = view.scratch.setdefault("membership/shadows", {})
    missing = [number for number in range(count) if number not in known]
    for number in known:
        if number < count:
            charge(view, f"membership/shadow/{number}", known[number].seconds)
    store = view.workshop.store
    if missing and store is not None:
        store.mkdir(parents=True, exist_ok=True)
        with exclusive(store / ".lock"):
            _complete(view, missing, count, known)
    elif missing:
        _complete(view, missing, count, known)
    return [known[number] for number in range(count)]


def _complete(view: MembershipView, missing: Sequence[int], count: int, known: dict[int, Shadow]) -> None:
    images, labels = view.pool_images(), view.pool_labels()
    rows = {number: training_rows(view, number) for number in missing}
    paths = {number: _path(view, images, labels, number, rows[number]) for number in missing}
    for number, path in paths.items():
        if path is not None and path.exists():
            with suppress(CheckpointError):  # edited or damaged: trained once more
                known[number] = _load(Sealed(path.parent).checked(path))
                charge(view, f"membership/shadow/{number}", known[number].seconds)
    jobs = [
        (number, rows[number], stream_seed(view.seed, "membership", "shadow", number))
        for number in missing
        if number not in known
    ]
    progress = view.workshop.progress
    since = time.perf_counter()
    for done, (number, said) in enumerate(_trained(view, jobs, images, labels)):
        inside = np.zeros(len(images), dtype=np.bool_)
        inside[rows[number]] = True
        # From one that ends to the next: together they are the time that all of them took.
        seconds, since = time.perf_counter() - since, time.perf_counter()
        known[number] = Shadow(inside, said, seconds)
        charge(view, f"membership/shadow/{number}", 0.0)  # it is on this attack's own clock
        path = paths[number]
        if path is not None:
            arrays: dict[str, Any] = {f"said/{part}": value for part, value in said.items()}
            with Sealed(path.parent).writing(path) as stream:
                np.savez(stream, inside=inside, seconds=np.array(seconds), **arrays)
        if progress is not None:
            progress("membership: shadow models", count - len(jobs) + done + 1, count)


def _trained(
    view: MembershipView, jobs: Sequence[_Job], images: ImageArray, labels: IntArray
) -> Iterator[tuple[int, Said]]:
    workers = min(view.workshop.workers, len(jobs))
    if workers < 2:
        for number, rows, seed in jobs:
            yield number, ask(view.train(rows, seed), images, labels)
        return
    # Spawned, not forked: torch's threads and CUDA do not survive a fork. As many threads as here: their
    # number changes the last digits.
    with ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(view.train, images, labels, torch.get_num_threads()),
    ) as pool:
        running = {pool.submit(_in_worker, rows, seed): number for number, rows, seed in jobs}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():  # or we would wait for what they train
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass
class _Bench:
    """What a worker process holds."""

    train: Callable[[IntArray, int], Mapping[str, Model]]
    images: ImageArray
    labels: IntArray


_bench: list[_Bench] = []


def _begin(
    train: Callable[[IntArray, int], Mapping[str, Model]], images: ImageArray, labels: IntArray, threads: int
) -> None:
    hear_sigterm()
    torch.set_num_threads(threads)
    _bench.append(_Bench(train, images, labels))


def _in_worker(rows: IntArray, seed: int) -> Said:
    (bench,) = _bench
    return ask(bench.train(rows, seed), bench.images, bench.labels)


def _path(
    view: MembershipView, images: ImageArray, labels: IntArray, number: int, rows: IntArray
) -> Path | None:
    """Named by everything that goes into a shadow model: another pool or procedure is never mixed in."""
    if view.workshop.store is None:
        return None
    digest = hashlib.sha256(f"{view.pipeline}/{view.seed}/{number}/{sorted(view.target)}".encode())
    for array in (images, labels, rows):
        digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return view.workshop.store / f"shadow-{number:03d}-{digest.hexdigest()[:12]}.npz"


def _load(path: Path) -> Shadow:
    with np.load(path, allow_pickle=False) as stored:
        said = {name.removeprefix("said/"): stored[name] for name in stored.files if "/" in name}
        # Shadow models stored by an earlier version do not say how long they took.
        seconds = float(stored["seconds"]) if "seconds" in stored.files else 0.0
        return Shadow(stored["inside"], said, seconds)
