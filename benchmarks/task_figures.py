"""Accuracy, size, speed and time of every task's compiled files, by an outside judge.

    python benchmarks/task_figures.py ../shared --keep DIR
    python benchmarks/task_figures.py ../shared --keep DIR --tasks pose obb --passes int8 int4

SHARED holds `models/*-figures.pt`, `data/figures` and the judge `tools/eval_tasks.py`, which
shares no code with yqc. Each file is compiled by `yqc compile --no-eval` in a process of its own,
judged in another, and int8 files are timed beside the float file by `yqc bench` on one thread. What
is done is kept in DIR, so a run that was stopped goes on where it was; delete `TASK-PASSES.json` to
repeat one.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

MODELS = {
    "segment": "yolov8n-seg",
    "pose": "yolo11n-pose",
    "obb": "yolov8n-obb",
    "classify": "yolo11n-cls",
}
FLOAT = "fold-bn"
"""What the float file is compiled with."""
PASSES = (FLOAT, "int8", "int4", "codebook", "fp16", "relu,int8", "slim,int8", "prune,int8")
ROUNDS = 60
"""Paired rounds of a timing: 60 know the ratio of processor times to 1 %, half of them to 1.5 %."""


@dataclass
class Row:
    """One compiled file."""

    task: str
    passes: str
    figure: float
    """The task's main figure, by the judge."""
    loss: float
    """Of that figure, relative to the float file's."""
    removed: float
    """Parameters that pruning removed, of all."""
    ratio_vs_fp16: float
    wall: float
    """Seconds of the compile."""
    cpu: float
    load: float
    """Processes that ran or waited beside it on average, of one minute, at its end."""
    times: list[float] | None = None
    """Milliseconds of processor time of the float file and of this one, of paired rounds."""
    speed: float | None = None
    """The quotient of `times`."""


def main() -> None:
    """Compile, judge and time what is not yet kept, and print the table."""
    options = _options()
    options.keep.mkdir(parents=True, exist_ok=True)
    for passes in (FLOAT, *(name for name in options.passes if name != FLOAT)):
        for task in options.tasks:
            done = options.keep / f"{task}-{passes}.json"
            if not done.exists():
                row = measure(task, passes, options.shared, options.keep)
                done.write_text(json.dumps(asdict(row), indent=2), encoding="utf-8")
            print(_line(Row(**json.loads(done.read_text(encoding="utf-8")))), flush=True)


def measure(task: str, passes: str, shared: Path, keep: Path) -> Row:
    """Compile a task's model by a pipeline, judge the file, and time it if it is int8."""
    base = keep / f"{task}-{passes}"
    onnx, plain = base.with_suffix(".onnx"), keep / f"{task}-{FLOAT}.onnx"
    model = shared / "models" / f"{MODELS[task]}-figures.pt"
    words = ["--passes", passes, "--data", str(data_of(task, shared)), "-o", str(onnx)]
    began = perf_counter()
    cpu = _run(["-m", "yqc", "compile", str(model), *words, "--no-eval", "--no-html"], base)[1]
    wall, load = perf_counter() - began, os.getloadavg()[0]
    report = json.loads(base.with_suffix(".report.json").read_text(encoding="utf-8"))
    size = report["size"]
    figure = judge(onnx, task, shared)
    whole = figure if passes == FLOAT else judge(plain, task, shared)
    removed = 1 - size["params_after"] / size["params_before"]
    row = Row(
        task, passes, figure, 1 - figure / whole, removed, size["ratio_vs_fp16"], wall, cpu, load
    )
    if "int8" in passes:
        files = [str(plain), str(onnx)]
        timing = ["--threads", "1", "--runs", str(ROUNDS), "--json"]
        shown = json.loads(_run(["-m", "yqc", "bench", *files, *timing], base)[0])
        row.times = [each["cpu_ms"] for each in shown["rows"]]
        row.speed = row.times[0] / row.times[1]
    return row


def data_of(task: str, shared: Path) -> Path:
    """Where a task's training and validation pictures are named."""
    figures = shared / "data" / "figures"
    return figures / ("classify" if task == "classify" else f"{task}.yaml")


def judge(file: Path, task: str, shared: Path) -> float:
    """Measure the main figure of an ONNX file by the judge, in a process of its own."""
    figures = shared / "data" / "figures"
    images = figures / ("classify/val" if task == "classify" else f"{task}/images/val")
    truth = {
        "segment": ["--ann", str(figures / "annotations" / "val.json")],
        "pose": ["--ann", str(figures / "annotations" / "val.json")],
        "obb": ["--labels", str(figures / "obb" / "labels" / "val")],
        "classify": [],
    }[task]
    size = "64" if task == "classify" else "160"
    words = ["--task", task, "--images", str(images), "--imgsz", size, *truth]
    tool = str(shared / "tools" / "eval_tasks.py")
    printed, _ = _run([tool, str(file), *words], file.with_suffix(".judge"))
    return float(json.loads(printed.splitlines()[-1])["mAP"])


def _run(arguments: Sequence[str], base: Path) -> tuple[str, float]:
    """Run a Python process to its end: what it printed, and its seconds of processor time."""
    log = base.with_suffix(".log")
    before = os.times()
    with log.open("wb") as errors:
        done = subprocess.run(  # noqa: S603  # this Python with yqc or the judge
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, check=False
        )
    after = os.times()
    if done.returncode:
        raise SystemExit(f"{arguments} failed; see {log}")
    spent = after.children_user - before.children_user
    return done.stdout.decode(), spent + after.children_system - before.children_system


def _line(row: Row) -> str:
    parts = [
        f"{row.task:9}{row.passes:11}{row.figure:.4f}",
        f"loss {100 * row.loss:6.2f} %",
        f"removed {100 * row.removed:4.1f} %",
        f"{row.ratio_vs_fp16:5.2f}x of fp16",
        f"{row.wall:5.0f} s, {row.cpu:.0f} s CPU, load {row.load:.1f}",
    ]
    return "  ".join(parts + ([f"{row.speed:.2f}x fast"] if row.speed else []))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--passes", nargs="+", default=list(PASSES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
