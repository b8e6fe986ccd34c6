"""Where things lie in the folder of a cloud's half of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privhier.config.shared import SharedConfig, load_shared
from privhier.errors import CheckpointError, UplinkError
from privhier.storage.sealed import Sealed
from privhier.training.occupancy import differences


@dataclass(frozen=True)
class CloudFolder:
    """The paths of the cloud's half."""

    root: Path

    @property
    def sealed(self) -> Sealed:
        """Its files, bound by digests: everything that is read again goes through here."""
        return Sealed(self.root)

    @property
    def config(self) -> Path:
        """What the cloud was told of the configuration."""
        return self.root / "shared.yaml"

    @property
    def edges(self) -> Path:
        """How the edges introduced themselves."""
        return self.root / "edges.json"

    @property
    def journal(self) -> Path:
        """Everything that arrived, in order."""
        return self.root / "journal"

    @property
    def cache(self) -> Path:
        """Release-once."""
        return self.root / "cloud_cache"

    @property
    def checkpoint(self) -> Path:
        """State after the last finished epoch."""
        return self.root / "checkpoint.pt"

    @property
    def tail(self) -> Path:
        """Weights of the trained tail."""
        return self.root / "tail.safetensors"

    @property
    def history(self) -> Path:
        """Loss of every epoch."""
        return self.root / "history.json"

    @property
    def link(self) -> Path:
        """Seconds, messages and bytes of every epoch."""
        return self.root / "link.json"

    @property
    def done(self) -> Path:
        """Totals; its presence says that the tail is trained."""
        return self.root / "cloud.json"

    def finished(self) -> dict[str, Any]:
        """The totals of a finished cloud; raises ``CheckpointError`` if it is not finished."""
        if not self.done.exists():
            raise CheckpointError(
                key="CLOUD_RUN",
                value=str(self.root),
                rule="holds no finished tail",
                remedy="Start `privhier cloud` with this --out and --resume, and the edges, until they end",
            )
        facts: dict[str, Any] = self.sealed.read_json(self.done)
        return facts


def check_folder(folder: CloudFolder, config: SharedConfig) -> None:
    """Refuse a folder that belongs to another configuration.

    Raises:
        CheckpointError: What the cloud was told of the configuration was altered since.
        UplinkError: The keys that differ are named, with both values.
    """
    if not folder.sealed.knows(folder.config):
        return
    if (saved := load_shared(folder.sealed.checked(folder.config))).hash() != config.hash():
        raise UplinkError(
            key="--out",
            value=str(folder.root),
            rule=f"belongs to another configuration: {differences(saved, config)}",
            remedy="Use the configuration it was begun with, or another --out",
        )
