"""Accuracy of files without the decoding beside files with it, and distance on random checkpoints.

    python benchmarks/raw_heads.py ../shared --keep DIR
    python benchmarks/raw_heads.py ../shared --keep DIR --only yolov8n-bccd golden

SHARED holds `models`, `data` and `golden`. Each model is compiled in float and in int8 with
`--decode full`, `raw` and `scores`, and each file is measured as `yqc eval` does. Each golden
checkpoint is compiled in float, and what `yqc.runtime` decodes of random input is compared with the
file that decodes itself. What is done is kept in DIR, so a run that was stopped goes on where it
was. Figures are of the main accuracy of the task; distances are relative to the largest number.
"""

import argparse
import json
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

import yqc
from yqc import runtime

MODELS = {
    "yolov8n-seg-figures": ("figures/segment.yaml", 160),
    "yolo11n-pose-figures": ("figures/pose.yaml", 160),
    "yolov8n-obb-figures": ("figures/obb.yaml", 160),
    "yolo11n-cls-figures": ("figures/classify", 64),
    "yolov8n-bccd": ("bccd/bccd.yaml", 320),
    "yolov7-tiny-bccd": ("bccd/bccd.yaml", 320),
    "yolov5n-coco": ("coco128/coco128.yaml", 640),
}
DECODES: tuple[Literal["full", "raw", "scores"], ...] = ("full", "raw", "scores")
TYPES = ("float", "int8")
SIZE = (64, 96)
"""Height and width for golden checkpoints: sides differ, and each is a multiple of 32."""


def main() -> None:
    """Measure what is not yet kept, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--keep", type=Path, required=True, help="folder of files and figures")
    parser.add_argument("--only", nargs="+", default=[*MODELS, "golden"])
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    for name in (name for name in MODELS if name in options.only):
        for passes in ("" if kind == "float" else kind for kind in options.types):
            scores = measure_model(name, passes, options.shared, options.keep)
            rest = "  ".join(
                f"{decode} {scores[decode]:.4f} ({scores[decode] - scores['full']:+.4f})"
                for decode in DECODES[1:]
            )
            print(f"{name:22} {passes or 'float':5}  full {scores['full']:.4f}  {rest}", flush=True)
    checkpoints = sorted((options.shared / "golden").glob("*.pt"))
    for checkpoint in checkpoints if "golden" in options.only else ():
        distances = measure_golden(checkpoint, options.keep)
        rest = "  ".join(f"{decode} {far:.1e}" for decode, far in distances.items())
        print(f"{checkpoint.stem:22} float  {rest}", flush=True)


def measure_model(name: str, passes: str, shared: Path, keep: Path) -> dict[str, float]:
    """Return the accuracy of a model's files by the form of their decoding."""
    done = keep / f"{name}-{passes or 'float'}.json"
    if not done.exists():
        data, imgsz = shared / "data" / MODELS[name][0], MODELS[name][1]
        scores = {}
        for decode in DECODES:
            out = keep / f"{name}-{passes or 'float'}-{decode}.onnx"
            yqc.compile(
                shared / "models" / f"{name}.pt", passes,
                output=out, data=data, imgsz=imgsz, decode=decode, evaluate=False, html=False,
            )  # fmt: skip
            result = yqc.evaluate(out, data)
            scores[decode] = attrgetter(result.main)(result.scores)
        done.write_text(json.dumps(scores), encoding="utf-8")
    found: dict[str, float] = json.loads(done.read_text(encoding="utf-8"))
    return found


def measure_golden(checkpoint: Path, keep: Path) -> dict[str, float]:
    """Return the largest distance from the file that decodes itself, relative, by form."""
    done = keep / f"golden-{checkpoint.stem}.json"
    if not done.exists():
        distances = {}
        wanted = run_random(checkpoint, "full", keep)
        for decode in DECODES[1:]:
            found = run_random(checkpoint, decode, keep)
            distances[decode] = max(
                float(np.abs(a - b).max()) / max(1.0, float(np.abs(b).max()))
                for a, b in zip(found, wanted, strict=True)
            )
        done.write_text(json.dumps(distances), encoding="utf-8")
    kept: dict[str, float] = json.loads(done.read_text(encoding="utf-8"))
    return kept


def run_random(
    checkpoint: Path, decode: Literal["full", "raw", "scores"], keep: Path
) -> tuple[np.ndarray, ...]:
    """Compile a checkpoint in float, and return its decoded outputs for seeded random input."""
    out = keep / "golden.onnx"
    yqc.compile(
        checkpoint, "",
        output=out, imgsz=SIZE, decode=decode, evaluate=False, html=False, head=head_of(checkpoint),
    )  # fmt: skip
    session = ort.InferenceSession(out)
    place = session.get_inputs()[0]
    x = np.random.default_rng(0).random((1, place.shape[1], *SIZE), np.float32)
    found = session.run(None, {place.name: x})
    if decode == "full":
        return tuple(found)
    named = dict(zip((one.name for one in session.get_outputs()), found, strict=True))
    return runtime.decode(named, session.get_modelmeta().custom_metadata_map["yqc.heads"])


def head_of(checkpoint: Path) -> Literal["one2many"] | None:
    """Return the head to compare: that of many boxes, where a model has two."""
    two = ("yolov10", "yolo26")
    return "one2many" if checkpoint.stem.startswith(two) and "cls" not in checkpoint.stem else None


if __name__ == "__main__":
    main()
