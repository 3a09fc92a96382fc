"""The command line, run within the test's own process; and programs beside it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from yqc.cli import main


class Done(NamedTuple):
    """What one run of the command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs `yqc` with some arguments."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["yqc", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *capsys.readouterr())

    return run


def here() -> dict[str, bytes]:
    """Return the files of the working directory."""
    return {p.name: p.read_bytes() for p in Path().iterdir() if p.is_file()}


@contextmanager
def beside(program: str, folder: Path) -> Iterator[IO[str]]:
    """Run a Python program in a folder, at the same time, until the context ends.

    Gives its output. The program may wait for the end with `sys.stdin.read()`; it must end well.
    """
    with subprocess.Popen(  # noqa: S603  # this interpreter
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout
        process.communicate("")
    assert process.returncode == 0
