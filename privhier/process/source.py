"""Which source this process was started from: the commit of the repository around the current folder."""

from __future__ import annotations

import subprocess
from typing import Any


def git_state() -> dict[str, Any]:
    """Commit and dirtiness of the repository around the current folder; nulls outside one.

    Returns:
        ``commit``: 40 hexadecimal digits or None. ``dirty``: whether a tracked file differs from it, or None.
    """

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
