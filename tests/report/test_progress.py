"""Progress: bars on a terminal, few and plain lines in a log, nothing when it is to be quiet."""

import io
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from yqc.progress import Silent
from yqc.report import make_progress
from yqc.report.progress import Bars, Lines


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def log() -> Iterator[tuple[io.StringIO, Clock, Lines]]:
    stream, clock = io.StringIO(), Clock()
    yield stream, clock, Lines(stream, clock)
    assert stream.getvalue().replace("\n", "").isprintable()


def wait_for(words: str, stream: io.StringIO) -> None:
    """Bars are drawn by a thread of their own, ten times a second."""
    end = time.monotonic() + 10
    while words not in stream.getvalue():
        assert time.monotonic() < end, f"{words!r} never appeared"
        time.sleep(0.01)


def run(progress: Lines, clock: Clock, total: int, seconds: float) -> None:
    with progress.task("evaluating", total=total) as advance:
        for _ in range(total):
            clock.time += seconds
            advance(1)


def test_a_log_gets_a_line_a_quarter(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    run(lines, clock, 128, 0.5)
    assert stream.getvalue().splitlines() == [
        "evaluating: 0 of 128",
        "evaluating: 32 of 128, 25 %, 0:16 so far, 0:48 left",
        "evaluating: 64 of 128, 50 %, 0:32 so far, 0:32 left",
        "evaluating: 96 of 128, 75 %, 0:48 so far, 0:16 left",
        "evaluating: 128 of 128, 100 %, 1:04 in all",
    ]


def test_quick_work_gets_two_lines(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    run(lines, clock, 128, 0.001)
    assert stream.getvalue().splitlines() == [
        "evaluating: 0 of 128",
        "evaluating: 128 of 128, 100 %, 0:00 in all",
    ]


def test_work_within_work_is_told_only_when_it_takes_long(
    log: tuple[io.StringIO, Clock, Lines],
) -> None:
    stream, clock, lines = log
    with lines.task("searching", total=2) as advance:
        run(lines, clock, 4, 0.1)
        advance(1)
        run(lines, clock, 4, 1.5)
        advance(1)
    assert stream.getvalue().splitlines() == [
        "searching: 0 of 2",
        "evaluating: 2 of 4, 50 %, 0:03 so far, 0:03 left",
        "evaluating: 4 of 4, 100 %, 0:06 in all",
        "searching: 2 of 2, 100 %, 0:06 in all",
    ]
    run(lines, clock, 1, 0.1)
    assert stream.getvalue().splitlines()[4:] == [
        "evaluating: 0 of 1",
        "evaluating: 1 of 1, 100 %, 0:00 in all",
    ]


def test_too_many_steps_end_once(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, _, lines = log
    with lines.task("calibrating", total=3) as advance:
        advance(5)
        advance(5)
    with lines.task("nothing", total=0) as advance:
        advance(1)
    assert stream.getvalue().splitlines() == [
        "calibrating: 0 of 3",
        "calibrating: 3 of 3, 100 %, 0:00 in all",
        "nothing: 0 of 0",
    ]


def test_failed_work_is_not_said_to_be_done(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    with pytest.raises(KeyError), lines.task("evaluating", total=2):
        raise KeyError
    run(lines, clock, 1, 0.0)
    assert stream.getvalue().splitlines()[:2] == ["evaluating: 0 of 2", "evaluating: 0 of 1"]


def test_counts_steps_of_many_threads(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, _, lines = log
    with lines.task("reading", total=4000) as advance:
        threads = [
            threading.Thread(target=lambda: [advance(1) for _ in range(1000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stream.getvalue().splitlines()[-1] == "reading: 4000 of 4000, 100 %, 0:00 in all"


def test_notes_in_a_log_are_clean(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, _, lines = log
    lines.note("bad.jpg\x1b[2J\r was skipped")
    with lines.task("a\nb", total=0):
        pass
    assert stream.getvalue() == "bad.jpg\\x1b[2J\\r was skipped\na\\nb: 0 of 0\n"


def test_no_terminal_means_lines_and_quiet_means_silence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with make_progress().task("evaluating", total=1) as advance:
        advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "evaluating: 0 of 1"
    assert err.replace("\n", "").isprintable()
    quiet = make_progress(quiet=True)
    assert isinstance(quiet, Silent)
    with quiet.task("evaluating", total=1) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_forced_colour_does_not_put_bars_into_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with make_progress().task("evaluating", total=1) as advance:
        advance(1)
    assert capsys.readouterr().err.replace("\n", "").isprintable()


@pytest.mark.parametrize(("term", "kind"), [("xterm-256color", Bars), ("dumb", Lines)])
def test_a_terminal_means_bars_unless_it_is_a_dumb_one(
    monkeypatch: pytest.MonkeyPatch, term: str, kind: type
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", term)
    assert isinstance(make_progress(), kind)


def test_bars_show_the_count_and_go_with_their_task(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Terminal()
    console = Console(file=stream, width=80, force_terminal=True, color_system=None)
    bars = Bars(console)
    with bars.task("searching for a ratio that keeps accuracy", total=2) as outer:
        with bars.task("evaluating", total=128) as advance:
            advance(64)
            wait_for(" 64/128 ", stream)
            bars.note("bad.jpg [red] was skipped")
            print("result")  # noqa: T201  # what a command prints meanwhile
        outer(1)
    with pytest.raises(KeyError), bars.task("again [red]", total=1):
        raise KeyError
    shown = stream.getvalue()
    assert "searching for a ratio.." in shown
    assert "bad.jpg [red] was skipped\n" in shown
    assert "again [red] " in shown
    assert "\x1b[2K" in shown[-12:], "the last bar is wiped"
    assert "\n" not in shown[-12:], "and leaves no empty line"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 2, "the cursor is back"
    assert capsys.readouterr() == ("result\n", ""), "stdout is left alone"
