"""Where things lie in a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from privhier.errors import CheckpointError
from privhier.storage.sealed import Sealed


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    root: Path

    @property
    def sealed(self) -> Sealed:
        """Its files, bound by digests: everything that is read again goes through here."""
        return Sealed(self.root)

    @property
    def lock(self) -> Path:
        """Held by the process that works in it."""
        return self.root / ".lock"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        """State after the last finished epoch."""
        return self.root / "checkpoint.pt"

    @property
    def edge(self) -> Path:
        """Weights of the trained edge segment."""
        return self.root / "edge.safetensors"

    @property
    def tail(self) -> Path:
        """Weights of the trained cloud tail."""
        return self.root / "tail.safetensors"

    @property
    def ledger(self) -> Path:
        """The charges, one JSON line each."""
        return self.root / "ledger.jsonl"

    @property
    def history(self) -> Path:
        """Metrics of every epoch."""
        return self.root / "history.json"

    @property
    def training(self) -> Path:
        """Facts of the finished training; its presence says that training is done."""
        return self.root / "training.json"

    @property
    def labels(self) -> Path:
        """Randomized task labels, drawn once (``privacy.label_epsilon``)."""
        return self.root / "sent_labels.npy"

    @property
    def clip(self) -> Path:
        """The clip bound, where it was drawn from the training records."""
        return self.root / "clip.json"

    @property
    def begun(self) -> Path:
        """Every DP-SGD epoch that was begun (``edge.dp_sgd``)."""
        return self.root / "begun.json"

    @property
    def cloud_cache(self) -> Path:
        """What the cloud keeps of release-once."""
        return self.root / "cloud_cache"

    @property
    def spool(self) -> Path:
        """What an edge in a process of its own has sent or is about to send."""
        return self.root / "spool"

    @property
    def shard(self) -> Path:
        """Which part of the people such an edge owns."""
        return self.root / "shard.json"

    @property
    def edge_facts(self) -> Path:
        """Shapes and classes of such an edge; there before its training is done."""
        return self.root / "edge.json"

    @property
    def link(self) -> Path:
        """Such an edge's seconds, messages and bytes of every epoch."""
        return self.root / "link.json"

    @property
    def resumed(self) -> Path:
        """With which other threads and devices the run went on."""
        return self.root / "resumed.json"

    @property
    def profile(self) -> Path:
        """Where the time of its epochs went, where that was asked for."""
        return self.root / "profile"

    @property
    def attacks(self) -> Path:
        """One file per finished attack."""
        return self.root / "attacks"

    @property
    def additions(self) -> Path:
        """Attacks that were added once it was finished."""
        return self.root / "additions.json"

    @property
    def result(self) -> Path:
        """The result."""
        return self.root / "result.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.html"

    def snapshot(self, epoch: int) -> Path:
        """Edge weights at the end of joint epoch ``epoch``."""
        return self.root / "snapshots" / f"edge_{epoch:04d}.safetensors"

    def releases(self, split: str) -> Path:
        """Releases of a split as the cloud holds them, float32 ``(n, T, *shape)``."""
        return self.root / "releases" / f"{split}.npy"

    def reference(self, name: str) -> RunFolder:
        """The folder of an unprotected network trained beside."""
        return RunFolder(self.root / "references" / name)


def lost_draw(path: Path, what: str) -> CheckpointError:
    """A file is gone that holds what was drawn from private records once, under noise nobody can repeat."""
    return CheckpointError(
        key="RUN",
        value=str(path),
        rule=f"is missing: {what}, and must be read back",
        remedy="Start the run anew in another folder; a second draw would have to be charged",
    )
