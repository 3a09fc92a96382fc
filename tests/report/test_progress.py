"""Progress: a bar on a terminal, few and plain lines in a log, nothing when it is to be quiet."""

import io
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from yqc.progress import Silent, Stage, expect
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
    run_named(progress, clock, "evaluating", total, seconds)


def run_named(progress: Lines, clock: Clock, label: str, total: int, seconds: float) -> None:
    with progress.task(label, total=total) as advance:
        for _ in range(total):
            clock.time += seconds
            advance(1)


def test_a_log_gets_a_line_each_ten_seconds(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    run(lines, clock, 64, 0.5)
    assert stream.getvalue().splitlines() == [
        "evaluating 0/64",
        "evaluating 20/64; 0:10 so far, 0:22 left",
        "evaluating 40/64; 0:20 so far, 0:12 left",
        "evaluating 60/64; 0:30 so far, 0:02 left",
        "evaluating: done in 0:32",
    ]


def test_quick_work_gets_two_lines(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    run(lines, clock, 128, 0.001)
    assert stream.getvalue().splitlines() == ["evaluating 0/128", "evaluating: done in 0:00"]


def test_stages_are_named_and_the_whole_is_foreseen(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    with lines.task("compiling", total=0):
        expect(
            lines, [Stage("calibrate", 4), Stage("calibrate/calibrating", 10), Stage("timing", 6)]
        )
        with lines.task("calibrate", total=0):
            clock.time += 4
            run_named(lines, clock, "calibrating", 10, 1.0)
        run_named(lines, clock, "timing", 2, 12.0)
    assert stream.getvalue().splitlines() == [
        "calibrate",
        "calibrating 0/10; 0:04 so far, 0:16 left",
        "calibrating 10/10; 0:14 so far, 0:06 left",
        "timing 1/2; 0:26 so far, 0:12 left",
        "timing 2/2; 0:38 so far, 0:00 left",
        "compiling: done in 0:38",
    ]


def test_work_that_says_nothing_gets_a_line(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    with lines.task("rounding", total=0):
        clock.time += 11  # a thread looks at the clock once a second
        wait_for("rounding; 0:11 so far\n", stream)


def test_work_of_hours_gets_fewer_lines(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    run(lines, clock, 7200, 1.0)
    assert len(stream.getvalue().splitlines()) < 400


def test_too_many_steps_end_once(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    with lines.task("calibrating", total=3) as advance:
        clock.time += 20
        advance(5)
        advance(5)
    with lines.task("nothing", total=0) as advance:
        advance(1)
    assert stream.getvalue().splitlines() == [
        "calibrating 0/3",
        "calibrating 3/3; 0:20 so far, 0:00 left",
        "calibrating: done in 0:20",
        "nothing: done in 0:00",
    ]


def test_failed_work_is_not_said_to_be_done(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    with pytest.raises(KeyError), lines.task("evaluating", total=2):
        raise KeyError
    run(lines, clock, 1, 0.0)
    assert stream.getvalue().splitlines()[:2] == ["evaluating 0/2", "evaluating 0/1"]


def test_counts_steps_of_many_threads(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, clock, lines = log
    with lines.task("reading", total=4001) as advance:
        threads = [
            threading.Thread(target=lambda: [advance(1) for _ in range(1000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.time += 10
        advance(1)
    assert "reading 4001/4001; 0:10 so far, 0:00 left" in stream.getvalue()


def test_notes_in_a_log_are_clean(log: tuple[io.StringIO, Clock, Lines]) -> None:
    stream, _, lines = log
    lines.note("bad.jpg\x1b[2J\r was skipped")
    with lines.task("a\nb", total=0):
        pass
    assert stream.getvalue() == "bad.jpg\\x1b[2J\\r was skipped\na\\nb: done in 0:00\n"


def test_no_terminal_means_lines_and_quiet_means_silence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with make_progress().task("evaluating", total=1) as advance:
        advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "evaluating 0/1"
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
    with bars.task("searching for a ratio that keeps accuracy", total=0):
        wait_for("searching for a ratio that keeps..", stream)
        expect(bars, [Stage("evaluating", 128)])
        with bars.task("evaluating", total=128) as advance:
            advance(64)
            wait_for("evaluating 64/128 ", stream)
            wait_for(" left", stream)
            bars.note("bad.jpg [red] was skipped")
            print("result")  # noqa: T201  # what a command prints meanwhile
    with pytest.raises(KeyError), bars.task("again [red]", total=1):
        raise KeyError
    shown = stream.getvalue()
    assert "bad.jpg [red] was skipped\n" in shown
    assert "again [red] " in shown
    assert "\x1b[2K" in shown[-12:], "the last bar is wiped"
    assert "\n" not in shown[-12:], "and leaves no empty line"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 2, "the cursor is back"
    assert capsys.readouterr() == ("result\n", ""), "stdout is left alone"
