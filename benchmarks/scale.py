"""Memory at scale: a detector of 70 M parameters with random weights, and many calibration images.

    python benchmarks/scale.py --passes int8 --imgsz 320 --images 8
    python benchmarks/scale.py --passes int4 --imgsz 320 --images 8
    python benchmarks/scale.py --scale t --imgsz 64 --images 5000

The model is a YOLOv8 from a model YAML through `arch`, by default its largest scale (x); t is a
tiny one of our own. Calibration images are coloured noise, those that are evaluated drawn shapes.
The compile runs in a process of its own, whose peak is what the system counted. Resident memory is
read after every image that a pass has gone through.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

from yqc.progress import Advance, Silent

AIM = 8.0
"""GiB that a compile of the large model may take."""
GROWTH = 64.0
"""MiB that resident memory may grow by from a tenth of the images to the last."""
STREAM = 100
"""Images from which on growth is judged; of fewer, what a pass keeps of each is all there is."""
KILOBYTE = 1 if sys.platform == "darwin" else 1024
"""What getrusage counts memory in."""
LABELS = ("calibrating", "correcting biases", "weighing what matters")
"""Tasks that go through the calibration images."""

ARCHITECTURE: dict[str, Any] = {
    "nc": 6,
    "scales": {"t": [0.33, 0.125, 1024], "n": [0.33, 0.25, 1024], "x": [1.0, 1.25, 512]},
    "backbone": [
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, "C2f", [128, True]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 6, "C2f", [256, True]],
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 6, "C2f", [512, True]],
        [-1, 1, "Conv", [1024, 3, 2]],
        [-1, 3, "C2f", [1024, True]],
        [-1, 1, "SPPF", [1024, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 6], 1, "Concat", [1]],
        [-1, 3, "C2f", [512]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 3, "C2f", [256]],
        [-1, 1, "Conv", [256, 3, 2]],
        [[-1, 12], 1, "Concat", [1]],
        [-1, 3, "C2f", [512]],
        [-1, 1, "Conv", [512, 3, 2]],
        [[-1, 9], 1, "Concat", [1]],
        [-1, 3, "C2f", [1024]],
        [[15, 18, 21], 1, "Detect", ["nc"]],
    ],
}
"""YOLOv8 by its published rows; scale x has 68.2 M parameters with 80 classes."""


def main() -> int:
    """Compile, print, and return 1 if an aim is missed."""
    options = _options()
    keep = options.keep
    scratch = tempfile.TemporaryDirectory() if keep is None else nullcontext(keep)
    with scratch as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        job = {key: value for key, value in vars(options).items() if key != "keep"}
        _process("prepare", job, folder)
        began = perf_counter()
        found, usage = _process("compile", job, folder)
        wall = perf_counter() - began
    peak = usage.ru_maxrss * KILOBYTE / 2**30
    missed = peak > AIM
    print(f"yolov8{options.scale}, {found['params'] / 1e6:.1f} M parameters, random weights")
    print(f"{options.passes}, {options.imgsz} px, {options.images} calibration images")
    print(
        f"file {found['file_bytes'] / 1e6:.1f} MB, of it weights {found['weight_bytes'] / 1e6:.1f}"
    )
    cpu = usage.ru_utime + usage.ru_stime
    print(f"wall {wall:.0f} s, processor {cpu:.0f} s, slowest: {found['slowest']}")
    print(f"peak resident memory {peak:.2f} GiB, aim {AIM:g}")
    for label, samples in found["samples"]:
        tenth = samples[len(samples) // 10]
        growth = (samples[-1] - tenth) / 2**20
        places = sorted(
            {0, *(len(samples) * part // 10 for part in range(1, 10)), len(samples) - 1}
        )
        told = ", ".join(f"{place + 1}: {samples[place] / 2**20:.0f}" for place in places)
        print(f"{label}, MiB after image {told}; growth from the tenth part on {growth:+.1f} MiB")
        missed = missed or (growth > GROWTH and len(samples) >= STREAM)
    return int(missed)


class Sampler(Silent):
    """Reads the resident memory after every step of the tasks that go through images."""

    def __init__(self) -> None:
        self.samples: list[tuple[str, list[int]]] = []

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:  # the protocol's
        """Sample a task's steps."""
        found: list[int] = []

        def advance(_: int) -> None:
            found.append(resident())
            if len(found) % 500 == 1:
                print(f"{label} {len(found)}: {found[-1] / 2**20:.0f} MiB", file=sys.stderr)

        yield advance if label in LABELS else lambda _: None
        if found:
            self.samples.append((label, found))


def resident() -> int:
    """Return the resident memory of this process in bytes; 0 where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def prepare(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the model YAML, a state dict of random weights, and the images."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415  # the parent of both processes must stay small
    import yaml  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    from yqc.data import scenes, shapes  # noqa: PLC0415
    from yqc.models.arch import build_detector, read_architecture  # noqa: PLC0415

    path = folder / f"yolov8{job['scale']}.yaml"
    path.write_text(yaml.safe_dump(ARCHITECTURE), encoding="utf-8")
    torch.manual_seed(0)
    detector = build_detector(read_architecture(path))
    for module in detector.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # keeps the size of values over 100 layers
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    torch.save(detector.half().state_dict(), folder / "weights.pt")
    noise = folder / "noise"
    noise.mkdir(exist_ok=True)
    dice = np.random.default_rng(0)
    for i in range(job["images"]):
        grain = dice.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        side = job["imgsz"]
        Image.fromarray(grain).resize((side, side)).save(noise / f"{i:06d}.png", compress_level=1)
    shapes.write_shapes(folder / "shapes", train=1, val=4)
    names = dict(enumerate(scenes.NAMES))
    data = {"path": ".", "train": "noise", "val": "shapes/images/val", "names": names}
    (folder / "data.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return {}


def compile_model(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Compile, and return what is printed of it."""
    import yqc  # noqa: PLC0415

    sampler = Sampler()
    report = yqc.compile(
        folder / "weights.pt",
        job["passes"],
        output=folder / "out.onnx",
        arch=folder / f"yolov8{job['scale']}.yaml",
        data=folder / "data.yaml",
        imgsz=job["imgsz"],
        calib_images=job["images"],
        evaluate=not job["no_eval"],
        html=False,
        progress=sampler,
    ).report
    timed = [(each.name, each.seconds or 0.0) for each in report.passes]
    slowest = sorted(timed, key=lambda each: -each[1])[:3]
    return {
        "params": report.size.params_before,
        "file_bytes": report.size.file_bytes,
        "weight_bytes": report.size.weight_bytes,
        "slowest": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in slowest),
        "samples": sampler.samples,
    }


def _process(task: str, job: dict[str, Any], folder: Path) -> tuple[dict[str, Any], Any]:
    """Do one task in a process of its own; returns its result, and the resources it used."""
    result = folder / f"{task}.json"
    order = json.dumps({**job, "task": task, "folder": str(folder), "result": str(result)})
    command = [sys.executable, "-W", "ignore", __file__, "--job", order]
    process = subprocess.Popen(command)  # noqa: S603  # this Python, this file
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{task} failed: {process.returncode}")
    return json.loads(result.read_text(encoding="utf-8")), usage


def _job(job: dict[str, Any]) -> None:
    task = {"prepare": prepare, "compile": compile_model}[job["task"]]
    result = task(job, Path(job["folder"]))
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", choices=("t", "n", "x"), default="x", help="of YOLOv8 (x)")
    parser.add_argument("--passes", default="int8", help="what to compile with (int8)")
    parser.add_argument("--imgsz", type=int, default=320, help="height and width in pixels (320)")
    parser.add_argument("--images", type=int, default=8, help="calibration images (8)")
    parser.add_argument("--no-eval", action="store_true", help="measure no accuracy")
    parser.add_argument("--keep", type=Path, help="a folder for the files; default: deleted")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        _job(json.loads(sys.argv[2]))
    else:
        sys.exit(main())
