"""A made-up world for membership attacks: models whose logits do or do not remember their records.

Read by path (tests import no tests).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.attacks.membership.view import MembershipView, Population, Workshop


class Toy:
    """Records of differing difficulty, numbered in their own pixels; members score ``memory`` higher."""

    def __init__(
        self, *, memory: float, n: int = 400, population: int = 300, seed: int = 0, tasks: int = 1
    ) -> None:
        rng = np.random.default_rng(seed)
        self.memory, self.trained = memory, 0
        pool = n + population
        self.images = np.zeros((pool, 3, 2, 4), dtype=np.uint8)
        self.images[:, 0, 0] = (np.arange(pool) // 256)[:, None]  # rows survive mirroring
        self.images[:, 0, 1] = (np.arange(pool) % 256)[:, None]
        self.labels = rng.integers(0, 3, (pool, tasks))
        self.difficulty = rng.normal(0, 3, (pool, tasks))
        self.member = np.zeros(n, dtype=bool)
        self.member[rng.permutation(n)[: n // 2]] = True
        inside = np.concatenate([self.member, np.zeros(population, dtype=bool)])
        self.view = MembershipView(
            images=frozen(self.images[:n]),
            labels=frozen(self.labels[:n]),
            groups=frozen(np.arange(n)),
            population=Population(frozen(self.images[n:]), frozen(self.labels[n:])),
            target={"tail": self.model(inside, seed=10_000)},
            train=self.train,
            records=n // 2,
            seed=5,
        )

    def train(self, rows: npt.NDArray[np.int64], seed: int) -> dict[str, Any]:
        self.trained += 1
        inside = np.zeros(len(self.images), dtype=bool)
        inside[rows] = True
        return {"tail": self.model(inside, seed)}

    def model(self, inside: npt.NDArray[np.bool_], seed: int) -> Any:
        chance = np.random.default_rng(seed).normal(0, 1, self.difficulty.shape)
        right = self.difficulty + chance + self.memory * inside[:, None]

        def logits(images: npt.NDArray[np.uint8], query: int) -> tuple[npt.NDArray[np.float32], ...]:
            record = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 1, 0]
            answers = []
            for task in range(self.labels.shape[1]):
                answer = np.zeros((len(images), 3), dtype=np.float32)
                answer[np.arange(len(images)), self.labels[record, task]] = right[record, task] + 0.1 * query
                answers.append(answer)
            return tuple(answers)

        return logits


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = np.array(array)
    array.flags.writeable = False
    return array


KNOWN = {
    *("images", "labels", "groups", "population", "target", "train", "records", "seed", "pipeline"),
    *("workshop", "scratch", "pool_images", "pool_labels"),
}


class PoisonedView(MembershipView):
    """Raises when asked for anything a membership attacker is not handed."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__") and name not in KNOWN:
            raise AssertionError(f"the attack asked for {name}")
        return super().__getattribute__(name)


def poisoned(view: MembershipView) -> PoisonedView:
    names = KNOWN - {"scratch", "pool_images", "pool_labels"}
    return PoisonedView(**{name: getattr(view, name) for name in names})


def with_store(toy: Toy, folder: Any) -> MembershipView:
    names = KNOWN - {"scratch", "pool_images", "pool_labels", "workshop"}
    return MembershipView(
        **{name: getattr(toy.view, name) for name in names}, workshop=Workshop(store=folder)
    )
