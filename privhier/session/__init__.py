"""One run being worked on: opened with everything checked, then trained, attacked, accounted, reported."""

from privhier.session.additions import Added, add_attacks
from privhier.session.opening import Session, open_session, reference_config, reopen_session
from privhier.session.stages import attack, report, run, start_tracking, train

__all__ = [
    "Added",
    "Session",
    "add_attacks",
    "attack",
    "open_session",
    "reference_config",
    "reopen_session",
    "report",
    "run",
    "start_tracking",
    "train",
]
