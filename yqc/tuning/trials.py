"""One trial of a search: a pipeline, compiled and judged on the images that are held out."""

import math
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from yqc.errors import YqcError, first_line
from yqc.report import Report
from yqc.settings import Drop

MEASURED_IN = 120.0
"""Seconds that the user's command for measuring may take. Half of it is short for a board that is
reached over a network, double waits longer for one that hangs."""


class CompiledResult(Protocol):
    """What a compile gives."""

    @property
    def report(self) -> Report:
        """The report."""
        ...


class Compiles(Protocol):
    """A model and its data, opened once; `yqc.Session` is one."""

    @property
    def compile(self) -> Callable[..., CompiledResult]:
        """Compiles a pipeline, with the arguments of `yqc.compile`."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a trial found. Losses are of the figure that counts, on the images held out."""

    passes: str
    """The pipeline that does the same again."""
    bytes: int = 0
    """Of the file."""
    drop: float | None = None
    """Loss in the unit of the budget."""
    interval: tuple[float, float] | None = None
    """95 % interval of the relative loss."""
    ms: float | None = None
    """Milliseconds an image."""
    seconds: float = 0.0
    """Of the passes."""
    failed: str = ""
    """Why there is no result."""

    @property
    def values(self) -> tuple[float, ...]:
        """What is as small as possible on the front: bytes, loss and, where measured, time."""
        drop = math.inf if self.drop is None else self.drop
        return (self.bytes, drop) if self.ms is None else (self.bytes, drop, self.ms)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the journal of a search."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Outcome":
        """Undo `to_dict`."""
        interval = plain["interval"]
        return cls(**{**plain, "interval": None if interval is None else tuple(interval)})


def run_trial(session: Compiles, passes: str, drop: Drop, output: Path) -> Outcome:
    """Compile a pipeline and return what came of it; a failure is an outcome, too."""
    try:
        report = session.compile(passes, output=output, latency=False, html=False).report
    except YqcError as error:
        return Outcome(passes, failed=first_line(error))
    except MemoryError:
        return Outcome(passes, failed="there is not enough memory")
    size = report.size.file_bytes
    return Outcome(
        passes,
        bytes=0 if size is None else size,
        drop=drop.of(report.accuracy),
        interval=report.accuracy.interval,
        seconds=sum(one.seconds or 0.0 for one in report.passes),
    )


def measure_by_command(command: str, onnx: Path) -> tuple[float | None, str]:
    """Run a user's command on a file, and read the milliseconds that it prints last.

    Returns:
        The milliseconds, or None and what went wrong.
    """
    words = [word.replace("{onnx}", str(onnx)) for word in shlex.split(command)]
    try:
        with tempfile.TemporaryFile() as out:
            done = subprocess.run(  # noqa: S603  # as the user asks
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=MEASURED_IN,
                check=False,
            )
            out.seek(max(0, out.seek(0, 2) - 4096))
            text = out.read().decode(errors="replace")
    except subprocess.TimeoutExpired:
        return None, f"the measure command took over {MEASURED_IN:g} s and was killed"
    except OSError as error:
        return None, f"the measure command cannot be run: {error.strerror}"
    if done.returncode:
        return None, f"the measure command failed with exit status {done.returncode}"
    for word in reversed(text.split()):
        try:
            value = float(word.removesuffix("ms"))
        except ValueError:
            continue
        if math.isfinite(value) and value > 0:
            return value, ""
    return None, "the measure command printed no number of milliseconds"


Measure = Callable[[Path], tuple[float | None, str]]
"""Returns the milliseconds of a file, or None and why there are none."""
