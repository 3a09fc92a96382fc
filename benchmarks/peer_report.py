"""The rows of `peers.py`, and their tables."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from yqc.report import make_console
from yqc.report.layout import Trimmed, listing, say

MADE = ("", "file\nMB", "wts\nMB", "all\ns", "CPU\ns", "step\ns", "MB")
MADE_CAPTION = (
    "wts: initialisers and constants. all: the whole process; CPU: its processor time; step: yqc's "
    "passes, or the peer's call that quantizes. MB: most memory of the process."
)
RUNS = ("", "mAP", "ms", "x", "95 %", "CPU\nms", "CPU\nx", "dB", "found")
RUNS_CAPTION = (
    "x: float time / this file's, medians of paired rounds on one thread, with the 95 % interval; "
    "above 1 is faster. CPU: the same of processor time. dB: the outputs against the same file run "
    "as it stands (onnxruntime without optimisation; OpenVINO's own format in float arithmetic), "
    "signal over noise on {images} images (inf: equal). found: detections at confidence 0.25 "
    "there, of those that the file run as it stands finds."
)


@dataclass
class Row:
    """One file: what it cost to make, and what was measured of it; None where nothing was."""

    name: str
    file: str
    runtimes: tuple[str, ...] = ()
    """Where it is run: a peer's file and yqc's in the runtime that it was made for."""
    error: str | None = None
    seconds_process: float | None = None
    """Wall time from the start of the process to its end."""
    seconds_cpu: float | None = None
    """Processor time of all its threads."""
    seconds_step: float | None = None
    """Wall time of the quantization alone."""
    seconds_passes: dict[str, float] = field(default_factory=dict)
    """The same for each of yqc's passes."""
    peak_bytes: int | None = None
    """Most resident memory of the process."""
    measured: dict[str, Any] = field(default_factory=dict)
    """As `peer_tools.measure` returns it."""


@dataclass
class Comparison:
    """What `--json` prints."""

    model: str
    data: str
    imgsz: list[int]
    images: int
    """How many calibration images were asked for."""
    checked: int
    """How many images outputs were compared on."""
    runs: int
    precision: str | None
    versions: dict[str, str]
    missing: list[str]
    rows: list[Row]


def show(found: Comparison) -> None:
    """Print what each file cost, then how it runs in each runtime, and why it is not there."""
    height, width = found.imgsz
    head = (
        f"{Path(found.model).name}, {height} x {width} px, {found.images} calibration images of "
        f"{Path(found.data).name}"
    )
    versions = listing(f"{name} {number}" for name, number in found.versions.items())
    parts = [say(head), versions, "", _table(MADE, [_made(row) for row in found.rows])]
    parts += [say(MADE_CAPTION)]
    runtimes = dict.fromkeys(name for row in found.rows for name in row.measured.get("runs", ()))
    for runtime in runtimes:
        rows = [row for row in found.rows if runtime in row.measured.get("runs", ())]
        forced = f", {found.precision}" if found.precision else ""
        parts += ["", say(f"in {runtime}{forced}")]
        parts += [_table(RUNS, [_ran(row, runtime) for row in rows])]
    parts += [say(RUNS_CAPTION.format(images=found.checked))] if runtimes else []
    notes = [say(note) for note in _notes(found)]
    make_console().print(Trimmed(Group(*parts, *([""] if notes else []), *notes)))


def _notes(found: Comparison) -> Iterator[str]:
    for row in found.rows:
        errors = {name: run.get("error") for name, run in row.measured.get("runs", {}).items()}
        yield from (f"{row.name}: {why}" for why in (row.error,) if why)
        yield from (f"{row.name} in {name}: {why}" for name, why in errors.items() if why)
    for name in found.missing:
        yield f"{name} is not installed; what needs it was skipped"


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(heads):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _made(row: Row) -> list[str]:
    return [
        row.name,
        _number(row.measured.get("file_bytes"), 2, 1e6),
        _number(row.measured.get("weight_bytes"), 2, 1e6),
        _number(row.seconds_process, 1),
        _number(row.seconds_cpu, 1),
        _number(row.seconds_step, 1),
        _number(row.peak_bytes, 0, 1e6),
    ]


def _ran(row: Row, runtime: str) -> list[str]:
    run = row.measured["runs"][runtime]
    got = run.get
    interval = got("interval")
    return [
        row.name,
        _number(got("map"), 4),
        _number(got("ms"), 1),
        _number(got("ratio"), 2),
        f"{interval[0]:.2f}-{interval[1]:.2f}" if interval else "-",
        _number(got("cpu_ms"), 1),
        _number(got("cpu_ratio"), 2),
        "inf" if "db" in run and run["db"] is None else _number(run.get("db"), 0),
        f"{got('found')}/{got('expected')}" if got("expected") is not None else "-",
    ]


def _number(value: float | None, places: int, unit: float = 1) -> str:
    return "-" if value is None else f"{value / unit:.{places}f}"
