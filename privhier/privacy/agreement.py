"""Whether what was done is what the ledger was charged for: release by release, epoch by epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from privhier.privacy.events import AnyRelease, StepEvent, ledger_error
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
        if isinstance(event, AnyRelease):
            charged[(event.split, event.phase, event.epoch)] += event.records * event.releases
    for key in sorted({*charged, *carried}):
        if charged[key] != carried.get(key, 0):
            raise ledger_error(
                "/".join(map(str, key)),
                carried.get(key, 0),
                f"releases were carried, but {charged[key]} were charged",
            )


def check_begun(ledger: Ledger, begun: Mapping[tuple[str, int], int]) -> None:
    """Compare how often epochs of DP-SGD were begun with how often they were charged.

    An epoch that was killed has taken noisy steps; begun again under ``system`` noise it takes others, and
    both were seen. Under ``seeded`` it is the same noise on the same records again, and free. A kill
    between charge and first step leaves a charge too many, never one too few.

    Args:
        ledger: The account.
        begun: ``(phase, epoch)`` to how often it was begun, kills included.

    Raises:
        GuaranteeError: An epoch was begun more often than charged.
    """
    charged = Counter((event.phase, event.epoch) for event in ledger.events if isinstance(event, StepEvent))
    fresh = any(event.noise_source == "system" for event in ledger.events)
    for (phase, epoch), count in sorted(begun.items()):
        if charged[(phase, epoch)] < (count if fresh else min(count, 1)):
            raise ledger_error(
                f"dp_sgd {phase}/{epoch}",
                count,
                f"times begun, but charged {charged[(phase, epoch)]} time(s)",
            )
