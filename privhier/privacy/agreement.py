"""Whether what went over a link is what the ledger was charged for, release by release."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from privhier.privacy.events import ReleaseEvent, ledger_error
from privhier.privacy.ledger import Ledger


def check_agreement(ledger: Ledger, carried: Mapping[tuple[str, str, int], int]) -> None:
    """Compare the account of a finished run with what its uplink carried.

    Args:
        ledger: The account.
        carried: ``(split, phase, epoch)`` to the releases carried, each counted once however often the
            line broke.

    Raises:
        GuaranteeError: A release that was not charged, charged twice, or charged and never sent.
    """
    charged: Counter[tuple[str, str, int]] = Counter()
    for event in ledger.events:
        if isinstance(event, ReleaseEvent):
            charged[(event.split, event.phase, event.epoch)] += event.records * event.releases
    for key in sorted({*charged, *carried}):
        if charged[key] != carried.get(key, 0):
            raise ledger_error(
                "/".join(map(str, key)),
                carried.get(key, 0),
                f"releases were carried, but {charged[key]} were charged",
            )
