"""`yqc`, and `python -m yqc`: the command line as a process."""

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def run() -> None:
    """Run the command line, from its first moments on with signals handled."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        from yqc.commands.process import guard  # noqa: PLC0415

        guard()
        from yqc.cli import run as run_command_line  # noqa: PLC0415
    except KeyboardInterrupt:
        _leave(signal.SIGINT, None)
    run_command_line()


def _leave(number: int, _frame: object) -> "NoReturn":
    """End the process at once, while nothing is there yet that could do it better."""
    os.write(2, b"yqc: interrupted; nothing was written\n")
    os._exit(128 + number)


if __name__ == "__main__":
    run()
