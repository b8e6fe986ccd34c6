"""Both halves of a run put into one folder, so that it can be attacked, accounted and reported.

Only a researcher who owns both machines does this: in earnest use the tail stays in the cloud and the
edge's folder on the edge.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from privhier.config import RunConfig
from privhier.config.shared import load_shared, shared_part
from privhier.datasets.base import FloatArray, IntArray
from privhier.errors import CheckpointError, GuaranteeError
from privhier.privacy.agreement import check_agreement
from privhier.session import Session, open_session
from privhier.storage.locks import exclusive
from privhier.training.charges import checked_ledger
from privhier.training.cloud_folder import CloudFolder
from privhier.training.commons import take_over
from privhier.training.edge_side import Progress
from privhier.training.folder import RunFolder
from privhier.training.occupancy import check_output, saved_config, worked_in
from privhier.uplink.codec import decode
from privhier.uplink.journal import Journal
from privhier.uplink.spool_index import INDEX, SpoolIndex


def join(edge: Path, cloud: Path, out: Path, *, progress: Progress | None = None) -> Session:
    """Make an ordinary run folder of an edge's and a cloud's.

    Args:
        edge: Folder of a finished ``privhier edge``, the only one of its run.
        cloud: Folder of the finished ``privhier cloud``.
        out: The run folder to make.
        progress: Called with a description, steps done and steps in all.

    Raises:
        CheckpointError: A half is missing, unfinished, altered, or of another run. ``out`` is as before then.
        GuaranteeError: Ledger and journal disagree, or the ledger is not that of this run.
        OutputError: ``out`` is taken.
    """
    mine, theirs = RunFolder(edge), CloudFolder(cloud)
    facts, totals = _edge_facts(mine), theirs.finished()
    config, shared = saved_config(mine), load_shared(theirs.sealed.checked(theirs.config))
    if shared_part(config).hash() != shared.hash():
        raise _refused(str(cloud), f"is of run {shared.run_id}, the edge of {shared_part(config).run_id}")
    if facts["uplink"] != totals["uplink"]:
        raise GuaranteeError(
            key="uplink",
            value=totals["uplink"],
            rule=f"the cloud holds this, but the edge sent {facts['uplink']}",
            remedy="Look for what went up past the ledger; quote no guarantee of this run",
        )
    journal = Journal(theirs.journal)
    _check_content(mine, facts, journal, totals)
    carried: dict[tuple[str, str, int], int] = {}
    for place in journal.places:
        carried[place.key[:3]] = carried.get(place.key[:3], 0) + place.records
    check_agreement(checked_ledger(mine, config, facts), carried)
    check_output(RunFolder(out), config, resume=False)
    lock, work = out.with_name(f".{out.name}.lock"), out.with_name(f".{out.name}.joining")
    with exclusive(lock, wait=False) as free:
        if not free:
            raise worked_in(out)
        try:
            return _joined(mine, theirs, journal, out, work, config, facts, progress)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _joined(
    mine: RunFolder,
    theirs: CloudFolder,
    journal: Journal,
    out: Path,
    work: Path,
    config: RunConfig,
    facts: dict[str, Any],
    progress: Progress | None,
) -> Session:
    """Fill ``work``, and give it the name ``out`` when it is whole."""
    shutil.rmtree(work, ignore_errors=True)  # left by a kill
    session = open_session(config, work, progress=progress)
    folder, splits = session.folder, session.prepared.data.splits
    mine.sealed.match("data", session.prepared.dataset.fingerprint)
    drawn_once = [path for path in (mine.clip, mine.labels) if mine.sealed.lists(path)]
    snapshots = [mine.snapshot(epoch) for epoch in range(config.schedule.joint_epochs)]
    parts = [mine.ledger, mine.edge, *drawn_once, *snapshots]
    take_over(mine.sealed, folder.sealed, (path.relative_to(mine.root).as_posix() for path in parts))
    take_over(theirs.sealed, folder.sealed, [theirs.tail.name])
    drawn = _releases(journal, {"train": session.victims.training, "test": splits.test})
    folder.sealed.write_array(folder.releases("training_victims"), drawn["train"])
    folder.sealed.write_array(folder.releases("test"), drawn["test"])
    history = _history(mine.sealed.read_json(mine.history), theirs.sealed.read_json(theirs.history))
    folder.sealed.write_json(folder.history, history)
    kept = {
        name: value for name, value in facts.items() if name not in ("finished", "edge", "edges", "chain")
    }
    folder.sealed.write_json(folder.training, kept)
    if out.exists():
        shutil.rmtree(out)  # found empty before
    work.rename(out)
    session.folder = RunFolder(out)
    return session


def _check_content(
    folder: RunFolder, facts: dict[str, Any], journal: Journal, totals: dict[str, Any]
) -> None:
    """What the cloud trained on must be, message by message, what the edge spooled."""
    number = int(facts["edge"])
    sent = [(entry.key, entry.digest) for entry in SpoolIndex(folder.spool / INDEX).entries]
    arrived = [(place.key, place.digest) for place in journal.places if place.edge == number]
    if sent != arrived or len(arrived) != len(journal.places):
        pairs = zip(sent, arrived, strict=False)
        first = next((at for at, (mine, theirs) in enumerate(pairs) if mine != theirs), None)
        rule = f"the edge spooled {len(sent)} messages, the cloud holds {len(journal.places)}"
        if first is not None:
            rule = f"message {first} is not the one that the edge spooled"
        raise GuaranteeError(
            key="uplink",
            value=str(number),
            rule=rule,
            remedy="Somebody else sent as this edge, or a folder was changed; quote no guarantee of this run",
        )
    chain = journal.chain(number).hex()
    if not facts.get("chain") == chain == totals.get("chains", {}).get(str(number)):
        raise GuaranteeError(
            key="uplink.chain",
            value=chain,
            rule="is the running digest of the journal, and edge.json or cloud.json names another",
            remedy="A folder was changed, or is of an older version; quote no guarantee of this run",
        )


def _edge_facts(folder: RunFolder) -> dict[str, Any]:
    if not folder.sealed.knows(folder.edge_facts):
        raise _refused(str(folder.root), "holds no edge's half of a run")
    facts: dict[str, Any] = folder.sealed.read_json(folder.edge_facts)
    if not facts["finished"]:
        raise _refused(str(folder.root), "holds an edge that is not finished")
    if facts["edges"] > 1:
        raise _refused(str(folder.root), f"is one of {facts['edges']} edges; a run folder holds one network")
    return facts


def _releases(journal: Journal, wanted: dict[str, IntArray]) -> dict[str, FloatArray]:
    """Per split, all releases of the wanted records as the cloud holds them, ``(n, T, *shape)``."""
    epochs: dict[str, list[tuple[str, int]]] = {split: [] for split in wanted}
    found: dict[tuple[str, str, int], FloatArray] = {}
    for number, place in enumerate(journal.places):
        split, phase, epoch, _ = place.key
        if split not in wanted:
            continue
        message = decode(journal.read(number))
        if (phase, epoch) not in epochs[split]:
            epochs[split].append((phase, epoch))
            shape = (len(wanted[split]), *message.payload.shape[1:])
            found[(split, phase, epoch)] = np.full(shape, np.nan, dtype=np.float32)
        order = np.argsort(wanted[split])
        at = np.searchsorted(wanted[split][order], message.records)
        here = at < len(order)
        here[here] &= wanted[split][order][at[here]] == message.records[here]
        found[(split, phase, epoch)][order[at[here]]] = message.payload[here]
    return {split: np.stack([found[(split, *key)] for key in keys], axis=1) for split, keys in epochs.items()}


def _history(edge: list[dict[str, Any]], cloud: list[dict[str, Any]]) -> list[dict[str, Any]]:
    losses = {(row["phase"], row["epoch"]): row["cloud_loss"] for row in cloud}
    rows = []
    for row in edge:
        key = (row["phase"], row["epoch"])
        rows.append({**row, "cloud_loss": losses[key]} if key in losses else row)
    return rows + [row for row in cloud if row["phase"] == "cloud"]


def _refused(value: str, rule: str) -> CheckpointError:
    return CheckpointError(
        key="privhier join",
        value=value,
        rule=rule,
        remedy="Give the finished halves of one run",
    )
