"""The process of the command line: its streams and signals; imports nothing that takes long."""

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn, TextIO

INTERRUPTED, TERMINATED = 130, 143
"""Exit status after SIGINT and SIGTERM: 128 and the number of the signal."""
OVER_BUDGET = 3
"""Exit status where what was made costs more than was allowed."""


def guard() -> None:
    """Make the process end well: on signals, with closed streams, with a full disk behind them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if not isinstance(sys.stderr, _Forgiving):
        _open_streams()


def leave(status: object) -> NoReturn:
    """End the process at once, with what `sys.exit` takes.

    Python would take a second or two to free piece by piece what the system frees anyway.
    """
    if isinstance(status, str):
        sys.stderr.write(f"{status}\n")
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        pass
    except OSError as error:
        sys.stderr.write(f"yqc: cannot write to stdout: {error.strerror}\n")
        status = status or 1
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop the process; a second signal kills it.

    While modules are imported there is nothing to clean up, and libraries would turn the exception
    into others of their own.
    """
    signal.signal(number, signal.SIG_DFL)
    code = INTERRUPTED if number == signal.SIGINT else TERMINATED
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            with contextlib.suppress(OSError):
                os.write(2, b"yqc: interrupted; nothing was written\n")
            os._exit(code)
        frame = frame.f_back
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(code)


def _open_streams() -> None:
    """Let closed streams lead nowhere, and let nothing fail that stderr cannot take."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would get the number
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = _Forgiving(sys.stderr)


class _Forgiving:
    """A text stream whose failures are ignored, such as those of a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as the stream has it
        return getattr(self._stream, name)
