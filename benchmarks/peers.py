"""yqc's int8 beside onnxruntime's quantize_static and NNCF: accuracy, size, speed, cost.

    python benchmarks/peers.py yolov8n.pt --data data.yaml --imgsz 320 --images 64

All quantize one float graph with the same calibration images, each in a process of its own, and
leave the decoding of boxes in float. yqc's is the command `yqc compile --no-eval`, which starts at
the checkpoint and ends with a verified file and its report; the peers' start at the float ONNX
file, which the row `float` makes. Each file is judged, timed and checked in the runtime that it was
made for: NNCF's ONNX backend and quantize_static in onnxruntime, NNCF's OpenVINO backend in
OpenVINO, yqc's in that of its target. Peers that are not installed are named and skipped:

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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from resource import struct_rusage
from time import perf_counter
from typing import Any

from peer_report import Comparison, Row, show

from yqc.progress import Progress
from yqc.report import make_progress
from yqc.targets import TARGETS

TOOLS = Path(__file__).with_name("peer_tools.py")
PACKAGES = ("yqc", "torch", "onnx", "onnxruntime", "nncf", "openvino")
COMPILE = "compile"
"""The one task that is not of `peer_tools.py`."""
CHECKED = 16
"""Images that outputs are compared on. With half of it a file that is wrong on one image in ten
passes about once in two times; double takes a few more seconds a file."""
KILOBYTE = 1 if sys.platform == "darwin" else 1024
"""What getrusage counts memory in."""


class PeerError(Exception):
    """A process failed."""


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
            _measure(options, imgsz, rows)
    except PeerError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    model, data, images = str(options.model), str(options.data), options.images
    asked = (imgsz, images, CHECKED, options.runs, options.precision)
    found = Comparison(model, data, *asked, versions, missing, rows)
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
    runtimes = tuple(name for name in ("onnxruntime", "openvino") if name not in missing)
    plain = Row("float", str(folder / "float.onnx"), runtimes)
    model = {"model": str(options.model.resolve())}
    exported = _make(plain, {"task": "export", "imgsz": options.imgsz, **model})
    if plain.error:
        raise PeerError(plain.error)
    imgsz, images = exported["imgsz"], options.images
    common = {"data": str(options.data.resolve()), "imgsz": imgsz, "images": images}
    peer = {"source": plain.file, "decode": exported["decode"], **common}
    rows = [plain]
    jobs: list[dict[str, Any]] = []
    for target in TARGETS.values():
        home = () if target.runtime in (None, *missing) else (str(target.runtime),)
        rows.append(Row(f"yqc {target.name}", str(folder / f"yqc-{target.name}.onnx"), home))
        jobs.append({"task": COMPILE, "target": target.name, **model, **common})
    rows.append(Row("quantize_static", str(folder / "quantize_static.onnx"), ("onnxruntime",)))
    jobs.append({"task": "ort_static", **peer})
    if "nncf" not in missing:
        rows.append(Row("NNCF, ONNX", str(folder / "nncf.onnx"), ("onnxruntime",)))
        jobs.append({"task": "nncf_onnx", **peer})
    if not {"nncf", "openvino"} & set(missing):
        rows.append(Row("NNCF, OpenVINO", str(folder / "nncf.xml"), ("openvino",)))
        jobs.append({"task": "nncf_openvino", **peer})
    with progress.task("compiling", len(jobs)) as advance:
        for row, job in zip(rows[1:], jobs, strict=True):
            progress.note(f"int8 by {row.name}")
            _make(row, job)
            advance(1)
    return imgsz, rows


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


def _measure(options: argparse.Namespace, imgsz: list[int], rows: list[Row]) -> None:
    files = {row.name: [row.file, list(row.runtimes)] for row in rows if not row.error}
    job = {
        "task": "measure",
        "files": files,
        "data": str(options.data.resolve()),
        "imgsz": imgsz,
        "runs": options.runs,
        "precision": options.precision,
        "checked": CHECKED,
    }
    found, _ = run(job, Path(rows[0].file).with_name("measure"), quiet=False)
    for row in rows:
        row.measured = found.get(row.name, {})


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
    parser.add_argument("--precision", choices=["f32"], help="of OpenVINO; default: its own choice")
    parser.add_argument("--keep", type=Path, help="a folder for the files; default: deleted")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
