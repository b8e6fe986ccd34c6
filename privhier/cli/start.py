"""Where the command begins: a Ctrl-C or SIGTERM while the program is still being loaded is answered, too."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Entry point of the ``privhier`` command: load the command line, then hand over to it."""
    heard = [sign for sign in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(sign) is not signal.SIG_IGN]
    before = {sign: signal.signal(sign, _too_early) for sign in heard}
    from privhier.cli.main import main as command_line

    for sign, handler in before.items():
        signal.signal(sign, handler)
    command_line()


def _too_early(number: int, frame: FrameType | None) -> NoReturn:
    """Nothing has begun: end here, and not in the middle of some library's loading."""
    command = shlex.join(["privhier", *sys.argv[1:]])
    line = f"error: Ctrl-C: 'interrupted' - nothing has begun yet. Start it again: {command}\n"
    os.write(2, line.encode(errors="backslashreplace"))
    os._exit(2)


if __name__ == "__main__":
    main()
