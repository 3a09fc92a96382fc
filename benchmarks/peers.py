"""yqc's int8 beside onnxruntime's quantize_static and NNCF: accuracy, size, speed, cost.

    python benchmarks/peers.py yolov8n.pt --data data.yaml --imgsz 320 --images 64

All quantize one float graph with the same calibration images, each in a process of its own. yqc's
is the command `yqc compile --no-eval`, which starts at the checkpoint and ends with a verified file
and its report; the peers' start at the float ONNX file, which the row `float` makes. Peers that are
not installed are named and skipped:

    pip install nncf openvino
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from resource import struct_rusage
from time import perf_counter
from typing import Any

from rich.console import Group
from rich.table import Table

from yqc.progress import Progress
from yqc.report import make_console, make_progress
from yqc.report.layout import Trimmed, listing, say

TOOLS = Path(__file__).with_name("peer_tools.py")
PACKAGES = ("yqc", "torch", "onnx", "onnxruntime", "nncf", "openvino")
COMPILE = "compile"
"""The one task that is not of `peer_tools.py`."""
KILOBYTE = 1 if sys.platform == "darwin" else 1024
"""What getrusage counts memory in."""
HEADS = ("", "mAP", "file\nMB", "wts\nMB", "ORT\nx", "OV\nx", "all\ns", "CPU\ns", "step\ns", "MB")
CAPTION = (
    "wts: initialisers and constants. ORT, OV: float time / this file's under onnxruntime and "
    "OpenVINO, one thread, paired runs, medians; above 1 is faster. all: the whole process; "
    "CPU: its processor time; step: yqc's passes, or the peer's call that quantizes. "
    "MB: most memory of the process."
)


class PeerError(Exception):
    """A process failed."""


@dataclass
class Row:
    """One file: what it cost to make, and what was measured of it; None where nothing was."""

    name: str
    file: str
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
    runs: int
    versions: dict[str, str]
    missing: list[str]
    rows: list[Row]


def main() -> int:
    """Compare and print; 1 if the float file cannot be made or measured."""
    options = _options()
    versions, missing = _versions()
    progress = make_progress()
    for name in missing:
        progress.note(f"{name} is not installed; what needs it is skipped")
    scratch = tempfile.TemporaryDirectory() if options.keep is None else nullcontext(options.keep)
    try:
        with scratch as folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            imgsz, rows = make_files(options, Path(folder), missing, progress)
            _measure(options, imgsz, rows, with_openvino="openvino" not in missing)
    except PeerError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    model, data, images = str(options.model), str(options.data), options.images
    found = Comparison(model, data, imgsz, images, options.runs, versions, missing, rows)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        show(found)
    return 0


def make_files(
    options: argparse.Namespace, folder: Path, missing: list[str], progress: Progress
) -> tuple[list[int], list[Row]]:
    """Make the float file, then every int8 file; the height and width, and one row a file.

    Raises:
        PeerError: there is no float file. An int8 file that cannot be made is a row that says why.
    """
    plain = Row("float", str(folder / "float.onnx"))
    model = {"model": str(options.model.resolve())}
    exported = _make(plain, {"task": "export", "imgsz": options.imgsz, **model})
    if plain.error:
        raise PeerError(plain.error)
    common = {
        "data": str(options.data.resolve()),
        "imgsz": exported["imgsz"],
        "images": options.images,
    }
    peer = {"source": plain.file, **common}
    jobs: dict[str, dict[str, Any]] = {
        f"yqc {target}": {"task": COMPILE, "target": target, **model, **common}
        for target in ("portable", "onnxruntime", "openvino")
    }
    jobs["ort"] = {"task": "ort_static", "exclude": [], **peer}
    jobs["ort, decode out"] = {"task": "ort_static", "exclude": exported["decode"], **peer}
    if "nncf" not in missing:
        jobs["nncf"] = {"task": "nncf_default", **peer}
    rows = [plain]
    with progress.task("compiling", len(jobs)) as advance:
        for name, job in jobs.items():
            progress.note(f"int8 by {name}")
            rows.append(
                Row(name, str(folder / f"{name.replace(', ', '-').replace(' ', '-')}.onnx"))
            )
            _make(rows[-1], job)
            advance(1)
    return exported["imgsz"], rows


def _make(row: Row, job: dict[str, Any]) -> dict[str, Any]:
    """Make a row's file in a process of its own, and write into the row what that cost."""
    began = perf_counter()
    do = compiled if job["task"] == COMPILE else run
    try:
        result, usage = do({**job, "output": row.file}, Path(row.file), quiet=True)
    except PeerError as error:
        row.error = str(error)
        return {}
    row.seconds_process = perf_counter() - began
    row.seconds_cpu = usage.ru_utime + usage.ru_stime
    row.seconds_step = result["seconds"]
    row.seconds_passes = result.get("passes", {})
    row.peak_bytes = usage.ru_maxrss * KILOBYTE
    return result


def _measure(
    options: argparse.Namespace, imgsz: list[int], rows: list[Row], *, with_openvino: bool
) -> None:
    job = {
        "task": "measure",
        "files": {row.name: row.file for row in rows if not row.error},
        "data": str(options.data.resolve()),
        "imgsz": imgsz,
        "runs": options.runs,
        "with_openvino": with_openvino,
    }
    found, _ = run(job, Path(rows[0].file).with_name("measure"), quiet=False)
    for row in rows:
        row.measured = found.get(row.name, {})
        row.error = row.error or row.measured.pop("error", None)


def run(job: dict[str, Any], base: Path, *, quiet: bool) -> tuple[dict[str, Any], struct_rusage]:
    """Do a job of `peer_tools.py` in a process of its own.

    Args:
        job: `task` and its arguments.
        base: what the job's own files are called, but for their suffixes.
        quiet: what the process prints goes to a file, not to stderr.

    Returns:
        What the task returned, and the resources that the process used.

    Raises:
        PeerError: it failed; if `quiet`, the message is the last line that it printed.
    """
    order, result = base.with_suffix(".job"), base.with_suffix(".result")
    order.write_text(json.dumps({**job, "result": str(result)}), encoding="utf-8")
    usage = _finish(job["task"], [str(TOOLS), str(order)], base, quiet=quiet)
    return json.loads(result.read_text(encoding="utf-8")), usage


def compiled(
    job: dict[str, Any], base: Path, *, quiet: bool
) -> tuple[dict[str, Any], struct_rusage]:
    """Run `yqc compile --no-eval`; arguments, results and errors are those of `run`."""
    flags = {
        "passes": "int8",
        "output": job["output"],
        "data": job["data"],
        "imgsz": ",".join(map(str, job["imgsz"])),
        "calib-images": job["images"],
        "target": job["target"],
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = ["-m", "yqc", "compile", job["model"], *words, "--no-eval"]
    usage = _finish(job["task"], command, base, quiet=quiet)
    report = json.loads(base.with_suffix(".report.json").read_text(encoding="utf-8"))
    each = {step["name"]: step["seconds"] for step in report["passes"]}
    return {"seconds": sum(each.values()), "passes": each}, usage


def _finish(name: str, arguments: list[str], base: Path, *, quiet: bool) -> struct_rusage:
    """Run a Python process to its end.

    This process stays small on purpose: Linux lets a child's peak memory begin at its parent's.
    """
    log = base.with_suffix(".log")
    silent = {**os.environ, "NNCF_CI": "1"}  # NNCF sends no telemetry then, whose wait would count
    with log.open("wb") if quiet else nullcontext(sys.stderr) as printed:
        process = subprocess.Popen(  # noqa: S603  # this Python, a file of this folder or yqc
            [sys.executable, *arguments], stdout=printed, stderr=printed, env=silent
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(errors="replace").strip().splitlines() if quiet else []
        raise PeerError(said[-1] if said else f"{name} failed: {process.returncode}")
    return usage


def show(found: Comparison) -> None:
    """Print one line a file, and why there is none."""
    height, width = found.imgsz
    head = (
        f"{Path(found.model).name}, {height} x {width} px, {found.images} calibration images of "
        f"{Path(found.data).name}"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(HEADS):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in found.rows:
        table.add_row(row.name, *_cells(row))
    notes = [f"{row.name}: {row.error}" for row in found.rows if row.error]
    notes += [f"{name} is not installed; what needs it was skipped" for name in found.missing]
    versions = listing(f"{name} {number}" for name, number in found.versions.items())
    lines = ["", *notes, *([""] if notes else []), _float_times(found.rows[0]) + CAPTION]
    make_console().print(Trimmed(Group(say(head), versions, "", table, *map(say, lines))))


def _cells(row: Row) -> list[str]:
    got = row.measured.get
    return [
        _number(got("map"), 4),
        _number(got("file_bytes"), 2, 1e6),
        _number(got("weight_bytes"), 2, 1e6),
        _number(got("onnxruntime_ratio"), 2),
        _number(got("openvino_ratio"), 2),
        _number(row.seconds_process, 1),
        _number(row.seconds_cpu, 1),
        _number(row.seconds_step, 1),
        _number(row.peak_bytes, 0, 1e6),
    ]


def _number(value: float | None, places: int, unit: float = 1) -> str:
    return "-" if value is None else f"{value / unit:.{places}f}"


def _float_times(row: Row) -> str:
    names = {"onnxruntime_ms": "onnxruntime", "openvino_ms": "OpenVINO"}
    told = [
        f"{row.measured[key]:.1f} ms under {names[key]}" for key in names if key in row.measured
    ]
    return f"The float file takes {', '.join(told)}. " if told else ""


def _versions() -> tuple[dict[str, str], list[str]]:
    """Return the versions of what is installed, and the names of what is not."""
    found, missing = {}, []
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    return found, missing


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a YOLO checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="a data YAML or a COCO JSON")
    parser.add_argument("--imgsz", type=int, help="height and width; default: as trained")
    parser.add_argument("--images", type=int, default=64, help="calibration images (64)")
    parser.add_argument("--runs", type=int, default=30, help="rounds of the latency (30)")
    parser.add_argument("--keep", type=Path, help="a folder for the files; default: deleted")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
