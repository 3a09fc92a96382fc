"""Small checkpoints of every task, and drawn data for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.models import checkpoints

TASKS = ("segment", "pose", "obb", "classify")
NAMES = ("cat", "dog")
SIZE = 64
_BACKBONE = [
    *([-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16)),
    [-1, 1, "C2f", [16, True]],
    *([-1, 1, "Conv", [16, 3, 2]] for _ in range(2)),
]
_HEADS: dict[str, tuple[str, list[Any], str]] = {
    "segment": ("Segment", ["nc", 8, 16], "SegmentationModel"),
    "pose": ("Pose", ["nc", "kpt_shape"], "PoseModel"),
    "obb": ("OBB", ["nc", 1], "OBBModel"),
    "classify": ("Classify", ["nc"], "ClassificationModel"),
}


def write_checkpoint(path: Path, task: str, *, p2: bool = False) -> Path:
    """Write a detector of some ten thousand parameters, of strides 8 to 32, with P2 from 4 on.

    It has two classes, and three keypoints of three numbers.
    """
    head, arguments, model = _HEADS[task]
    levels: Any = -1 if task == "classify" else [1] * p2 + [3, 4, 5]
    spec = {"backbone": _BACKBONE, "head": [[levels, 1, head, arguments]], "kpt_shape": [3, 3]}
    detector = checkpoints.make(spec, nc=len(NAMES))
    return checkpoints.save(
        path,
        detector,
        "ultralytics",
        names=list(NAMES),
        args={"imgsz": SIZE},
        class_path=f"ultralytics.nn.tasks.{model}",
    )


LINES = {
    "detect": "0 .5 .5 .4 .4\n",
    "segment": "0 .3 .3 .7 .3 .7 .7 .3 .7\n1 .1 .1 .3 .1 .2 .4\n",
    "pose": "0 .5 .5 .4 .4 .4 .4 2 .6 .4 2 .5 .6 1\n",
    "obb": "0 .3 .3 .7 .3 .7 .7 .3 .7\n1 .1 .2 .2 .1 .4 .3 .3 .4\n",
}
"""Label lines of a picture."""


def write_data(folder: Path, task: str, count: int = 8, *, keypoints: str = "[3, 3]") -> Path:
    """Write `count` pictures of noise to calibrate on and as many to evaluate on; return the data.

    Args:
        folder: is made.
        task: says what the labels are.
        count: pictures of each split; of a classifier, half of them of each class.
        keypoints: `kpt_shape` of the data YAML, for a pose model; empty for none.
    """
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(count):
            name = f"images/{split}" if task != "classify" else f"{split}/{NAMES[i % 2]}"
            path = folder / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 256, (6, 8, 3), np.uint8)
            Image.fromarray(noise).resize((80, 60)).save(path)
            if task != "classify":
                label = folder / "labels" / split / f"{i}.txt"
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(LINES[task])
    if task == "classify":
        return folder
    spec = folder / "data.yaml"
    shape = f"kpt_shape: {keypoints}\n" if task == "pose" and keypoints else ""
    spec.write_text(f"train: images/train\nval: images/val\n{shape}names: {json.dumps(NAMES)}\n")
    return spec
