"""The cloud's half of a run in a process of its own: it walks the journal and trains, message by message.

What it does is a function of the configuration and the journal, so a killed cloud that walks the journal
again from its last checkpoint ends in the weights of one that was never killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from privhier.config.shared import SharedConfig
from privhier.errors import CheckpointError, ConfigError, PrivhierError, UplinkError
from privhier.models.edge import EdgeSegment
from privhier.models.network import build_network
from privhier.models.tail import CloudTail
from privhier.models.weights import weights_bytes
from privhier.training.arriving import ArrivingBatches
from privhier.training.batches import batch_count
from privhier.training.cache import ReleaseCache
from privhier.training.checkpoint import load_state, save_state
from privhier.training.cloud import CloudTrainer
from privhier.training.cloud_folder import CloudFolder
from privhier.training.labels import flips
from privhier.uplink.codec import MAX_BYTES
from privhier.uplink.frames import Hello, frame_error
from privhier.uplink.inbox import ONE_EDGE, Capacity, Inbox
from privhier.uplink.journal import Journal
from privhier.uplink.sizes import ReleaseFormat

ROWS = 256
"""Most records of a message that is no batch of training (``training/release.py``)."""
_NONE = np.zeros(0, dtype=np.int64)


class CloudJob:
    """One run's cloud: an inbox for the server, and the training that follows it.

    Args:
        config: What this side knows of the run.
        folder: Where it keeps everything; what is there already is taken up.
        device: Where to compute.
        capacity: How many edges the run has, and what waits for training.
        sync: Whether every message is flushed to the disk before it is acknowledged.
        bfloat16: Whether to compute under autocast.
        report: Called with a line of text after every epoch.
    """

    def __init__(
        self,
        config: SharedConfig,
        folder: CloudFolder,
        *,
        device: torch.device,
        capacity: Capacity = ONE_EDGE,
        sync: bool = True,
        bfloat16: bool = False,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.config, self.folder, self.device, self._edges = config, folder, device, capacity.edges
        self._bfloat16, self._report = bfloat16, report or (lambda text: None)
        probe, _ = self._network(dict.fromkeys(config.task, 2))
        schedule = config.schedule
        self._journal = Journal(folder.journal, sync=sync)
        self._form = ReleaseFormat.of(
            config.model, config.release, tuple(probe.release_shape), len(config.task)
        )
        self.inbox = Inbox(
            config=config.hash(),
            run_id=config.run_id,
            form=self._form,
            capacity=capacity,
            epochs={"joint": schedule.joint_epochs, "cloud": min(1, schedule.cloud_epochs)},
            journal=self._journal,
            agree=self._agree,
            bind=self._bind,
        )
        self._hellos: dict[int, Hello] = {}
        if folder.edges.exists():
            for text in folder.sealed.read_json(folder.edges):
                hello = Hello.decode(text.encode())
                if hello.edges != capacity.edges:
                    raise ConfigError(
                        key="--edges",
                        value=capacity.edges,
                        rule=f"this run has {hello.edges} edges",
                        remedy=f"Give --edges {hello.edges}",
                    )
                self._hellos[hello.edge] = hello
                self.inbox.restore(hello)
        self._stop = False
        self._history: list[dict[str, Any]] = []
        self._link: list[dict[str, Any]] = []
        self._busy = 0.0

    @property
    def done(self) -> bool:
        """Whether the tail is trained and written."""
        return self.folder.sealed.knows(self.folder.done)

    @property
    def largest(self) -> int:
        """Bytes that no message of this run needs: a power of two, which gives little of the run away."""
        config = self.config
        rows = 1 + max(config.batch_size, ROWS)
        size = 2 * self._form.bytes_of(rows, phase="joint")
        return min(MAX_BYTES, max(2**20, 1 << (size - 1).bit_length()))

    @property
    def parted(self) -> bool:
        """Whether every edge has said farewell."""
        return len(self.inbox.farewells) == self._edges

    def stop(self) -> None:
        """Make ``run`` return soon; what arrived stays in the journal."""
        self._stop = True

    def fail(self, error: BaseException) -> None:
        """Say that this run ended with an error, and tell its edges that it has stopped."""
        if not isinstance(error, PrivhierError):
            error = UplinkError(
                key="training",
                value=self.config.run_id,
                rule=f"stopped: {type(error).__name__}: {error}",
                remedy="Mend what it names and go on with --resume",
            )
        self.inbox.fail(error)
        self._report(f"this run has stopped: {error}")

    def close(self) -> None:
        """Close the journal's file."""
        self._journal.close()

    def run(self) -> bool:
        """Train until everything has arrived and every epoch is done; False if stopped before that."""
        if self.done:
            self.folder.finished()
            self.folder.sealed.checked(self.folder.tail)
            return True
        if not self._introduced():
            return False
        self.inbox.bind_all()
        trainer = self._trainer()
        state = load_state(self.folder.checkpoint, key=self.config.hash())
        at = epoch = 0
        if state is not None:
            trainer.restore(state)
            at, epoch = state["at"], state["epoch"]
            self._history, self._link = state["history"], state["link"]
            self._check_place(at)
        self.inbox.progress(at)
        schedule = self.config.schedule
        for number in range(self._joint_done(), schedule.joint_epochs):
            if (at := self._joint(trainer, at, number)) < 0:
                return False
        if schedule.cloud_epochs:
            cache = ReleaseCache(self.folder.cache, self.folder.sealed)
            if epoch == 0:
                if not self._first_epoch(trainer, cache):
                    return False
                epoch = 1
            for number in range(epoch, schedule.cloud_epochs):
                if self._stopped():
                    return False
                started = time.perf_counter()
                loss = trainer.train_cached_epoch(cache, number)
                self._busy = time.perf_counter() - started
                self._close(trainer, "cloud", number, loss, at=at, started=started, places=range(0))
        return self._finish(trainer)

    def _agree(self, hello: Hello) -> None:
        """Refuse a greeting that does not fit; every edge must name the same tasks."""
        if list(hello.task_classes) != self.config.task:
            raise frame_error("task", list(hello.task_classes), f"the cloud has {self.config.task}")
        # What another edge said is not for this one to know.
        others = {**self.inbox.hellos, **self._hellos}
        others.pop(hello.edge, None)
        if any(dict(other.task_classes) != dict(hello.task_classes) for other in others.values()):
            raise frame_error(
                "task_classes",
                dict(hello.task_classes),
                "the run's other edges count their classes otherwise",
            )

    def _bind(self, hello: Hello) -> None:
        """Keep a greeting for good: its edge has sent something, or training begins."""
        known = {**self._hellos, hello.edge: hello}
        texts = [known[edge].encode().decode() for edge in sorted(known)]
        self.folder.sealed.write_json(self.folder.edges, texts)
        self._hellos = known

    def _introduced(self) -> bool:
        """Wait until every edge has introduced itself: the steps of a schedule depend on their records.

        And until the first message is here: a greeting alone may still be taken back.
        """
        silent = self.config.schedule.releases_per_record == 0

        def here() -> bool:
            return len(self.inbox.hellos) == self._edges and (silent or len(self._journal) > 0)

        with self._journal.changed:
            while not here() and not self._stopped():
                self._journal.changed.wait(0.2)
            return here()

    def _stopped(self) -> bool:
        """Whether to stop; raises what ended this run for its edges."""
        if self.inbox.failed is not None:
            raise self.inbox.failed
        return self._stop

    def _check_place(self, at: int) -> None:
        """A journal that is shorter than what was trained on has lost messages."""
        if at > len(self._journal):
            raise CheckpointError(
                key="checkpoint",
                value=str(self.folder.journal),
                rule=f"holds {len(self._journal)} messages, but {at} were trained on",
                remedy="Restore the folder from a copy, or start the run anew on both sides",
            )

    def _network(self, task_classes: dict[str, int]) -> tuple[EdgeSegment, CloudTail]:
        """Every part has a stream of its own, so the tail is the one that the edge's process would build."""
        return build_network(
            self.config.model,
            image_size=self.config.image_size,
            task_classes=task_classes,
            sensitive_classes={},
            seed=self.config.seed,
            matched_filter=self.config.matched_filter,
        )

    def _trainer(self) -> CloudTrainer:
        config, schedule = self.config, self.config.schedule
        classes = dict(self._hellos[0].task_classes)
        _, tail = self._network(classes)
        counts = [hello.records["train"] for hello in self._hellos.values()]
        joint = sum(batch_count(count, config.batch_size) for count in counts)
        cached = batch_count(sum(counts), config.batch_size)
        return CloudTrainer(
            config,
            tail.to(self.device),
            total_steps=joint * schedule.joint_epochs + cached * schedule.cloud_epochs,
            device=self.device,
            keep=_NONE,
            flips=flips(config.privacy.label_epsilon, classes),
            bfloat16=self._bfloat16,
        )

    def _joint(self, trainer: CloudTrainer, at: int, epoch: int) -> int:
        """Train on the messages of one joint epoch as they come; returns the place after it, -1 if stopped.

        With several edges an epoch ends when all of them are through with it; one that is ahead has its
        messages of the next epoch trained on in between, which is what a cloud of many edges does.
        """
        started, self._busy, begin = time.perf_counter(), 0.0, at
        wanted = (epoch + 1) * sum(hello.records["train"] for hello in self._hellos.values())
        have = sum(place.records for place in self._journal.places[:at] if _joint_train(place.key))
        while have < wanted:
            if not self._journal.wait(at, stopped=self._stopped):
                return -1
            place = self._journal.places[at]
            if _joint_train(place.key):
                begun = time.perf_counter()
                data = self._journal.read(at)
                trainer.receive_and_train(data)
                self._busy += time.perf_counter() - begun
                have += place.records
            at += 1
            self.inbox.progress(at)
        loss = float(trainer.last_loss)
        self._close(trainer, "joint", epoch, loss, at=at, started=started, places=range(begin, at))
        return at

    def _first_epoch(self, trainer: CloudTrainer, cache: ReleaseCache) -> bool:
        """Cache the releases as they come, and train on them in that order without waiting for the last."""
        # An edge that was ahead may have released while another was in its last joint epoch: from the start.
        started, self._busy, at = time.perf_counter(), 0.0, 0
        begin = len(self._journal)
        total = sum(hello.records["train"] for hello in self._hellos.values())
        trainer.expect(cache, total, self._form.shape)
        batches = ArrivingBatches(total, self.config.batch_size)
        losses: list[torch.Tensor] = []
        have = 0
        while have < total:
            if not self._journal.wait(at, stopped=self._stopped):
                return False
            place = self._journal.places[at]
            if place.key[:2] == ("train", "cloud"):
                begun = time.perf_counter()
                data = self._journal.read(at)
                self._stream(trainer, batches, data, losses)
                self._busy += time.perf_counter() - begun
                have += place.records
                begin = min(begin, at)
            at += 1
            self.inbox.progress(max(at, self.inbox.trained))
        trainer.store()
        loss = float(torch.stack(losses).mean())
        self._close(trainer, "cloud", 0, loss, at=at, started=started, places=range(begin, at))
        return True

    def _stream(
        self, trainer: CloudTrainer, batches: ArrivingBatches, data: bytes, losses: list[torch.Tensor]
    ) -> None:
        payload, labels = trainer.receive_and_cache(data)
        for rows in batches.add(torch.from_numpy(payload), torch.from_numpy(labels)):
            trainer.train_step(*rows)
            losses.append(trainer.last_loss)

    def _joint_done(self) -> int:
        return sum(row["phase"] == "joint" for row in self._history)

    def _close(
        self,
        trainer: CloudTrainer,
        phase: str,
        epoch: int,
        loss: float,
        *,
        at: int,
        started: float,
        places: range,
    ) -> None:
        """Enter a finished epoch and save where we are."""
        trainer.check()
        arrived = [self._journal.places[number] for number in places]
        self._history.append({"phase": phase, "epoch": epoch, "cloud_loss": loss})
        self._link.append(
            {
                "phase": phase,
                "epoch": epoch,
                "seconds": time.perf_counter() - started,
                "busy_seconds": self._busy,
                "messages": len(arrived),
                "records": sum(place.records for place in arrived),
                "bytes": sum(place.size for place in arrived),
            }
        )
        self.folder.sealed.write_json(self.folder.history, self._history)
        self.folder.sealed.write_json(self.folder.link, self._link)
        state = {"at": at, "epoch": epoch + 1 if phase == "cloud" else 0, **trainer.state()}
        state |= {"history": self._history, "link": self._link}
        save_state(self.folder.checkpoint, state, key=self.config.hash())
        self._report(f"{phase} epoch {epoch + 1}: loss {loss:.4f}")

    def _finish(self, trainer: CloudTrainer) -> bool:
        """Wait for what is not trained on (validation, test), then write the tail and last the marker."""
        schedule = self.config.schedule
        times = schedule.releases_per_record
        wanted = times * sum(sum(hello.records.values()) for hello in self._hellos.values())
        while True:
            seen = len(self._journal)  # before the count: what comes in between ends the wait below
            if self._journal.records >= wanted:
                break
            if not self._journal.wait(seen, stopped=self._stopped):
                return False
        places = self._journal.places
        self.folder.sealed.write(self.folder.tail, weights_bytes(trainer.tail))
        self.folder.sealed.write_json(
            self.folder.done,
            {
                "run_id": self.config.run_id,
                "edges": self._edges,
                "task_classes": dict(self._hellos[0].task_classes),
                "uplink": {
                    "messages": len(places),
                    "records": self._journal.records,
                    "bytes": sum(place.size for place in places),
                },
                "chains": {str(edge): self._journal.chain(edge).hex() for edge in sorted(self._hellos)},
            },
        )
        self._report(f"tail trained: {self.folder.tail}")
        return True


def _joint_train(key: tuple[str, str, int, int]) -> bool:
    return key[:2] == ("train", "joint")
