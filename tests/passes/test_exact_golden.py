"""The exact rewrites on checkpoints of every family: numbers stay, and what they remove is gone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import yqc
from tests.slow import slow_but
from yqc.graph.edit import tidy
from yqc.models.source import open_model

PASSES = (
    *("conv-for-focus", "pad-in-conv", "conv-for-linear", "conv-for-split"),
    *("deconv-for-resize", "split-pools"),
)
REWRITES = {
    "yolov5n": (0, 2, 3),
    "yolov7-tiny": (0, 2, 3),
    "yolov7": (0, 2, 3),
    "yolov5nu": (0, 2, 3),
    "yolov8n": (8, 2, 3),
    "yolov9t": (8, 2, 3),
    "yolov10n": (9, 2, 3),
    "yolo11n": (9, 2, 3),
    "yolo12n": (3, 2, 0),
    "yolo26n": (9, 2, 3),
    "yolov8n-ch1": (8, 2, 3),
    "yolo11n-cls": (5, 0, 0),
    "yolo11n-pose": (9, 2, 3),
    "yolo11n-seg": (9, 2, 3),
    "yolo26n-obb": (9, 2, 3),
    "yolo26n-pose": (9, 2, 3),
    "yolo26n-seg": (9, 4, 3),
    "yolov8n-obb": (8, 2, 3),
}
"""How often the last three passes find something."""


def outputs(gm: fx.GraphModule, image: Tensor, name: str) -> tuple[list[Tensor], list[Tensor]]:
    """Return the coordinates that one image gives, and the rest: scores, coefficients, masks."""
    with torch.no_grad():
        found = gm(image)
    first, *others = [found] if isinstance(found, Tensor) else found
    if name.endswith("-cls"):
        return [], [first]
    rows = first[0] if first.shape[1] > first.shape[2] else first[0].T
    if not name.endswith("-pose"):
        return [rows[:, :4]], [rows[:, 4:], *others]
    return [rows[:, :4], rows[:, 6:]], [rows[:, 4:6]]  # key points are coordinates, too


@pytest.mark.parametrize(
    "name", slow_but(REWRITES, "yolov7-tiny", "yolo11n", "yolo11n-pose", "yolov8n-obb")
)
def test_numbers_stay(shared: Path, name: str) -> None:
    images = np.load(shared / "golden" / f"{name}.npz")["input"]
    source = open_model(
        shared / "golden" / f"{name}.pt",
        imgsz=images.shape[2:],
        head="one2many" if name in {"yolov10n", "yolo26n"} else None,
    )
    image = torch.from_numpy(images[:1].astype(np.float32) / 255)
    before = outputs(source.gm, image, name)
    found = []
    for word in PASSES:
        ctx = yqc.Context()
        (action,) = yqc.Pipeline.parse(word).steps
        assert isinstance(action, yqc.Pass)
        action.run(source.gm, ctx)
        found.append(len(ctx.rewrites))
        if ctx.rewrites:
            tidy(source.gm)
            after = outputs(source.gm, image, name)
            for boxes, new in zip(before[0], after[0], strict=True):
                assert (new - boxes).abs().max() <= 1e-4 * boxes.abs().max()
            for rest, new in zip(before[1], after[1], strict=True):
                assert (new - rest).abs().max() <= 1e-5
    assert tuple(found[3:]) == REWRITES[name]
    pools = [m for m in source.gm.modules() if isinstance(m, nn.MaxPool2d)]
    assert all(max(np.atleast_1d(pool.kernel_size)) <= 3 for pool in pools)
    assert not any(isinstance(m, nn.Upsample) for m in source.gm.modules())
