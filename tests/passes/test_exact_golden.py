"""The exact rewrites on checkpoints of every family: numbers stay, and what they remove is gone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import yqc
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
}
"""How often the last three passes find something."""


def outputs(gm: fx.GraphModule, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes and the rest of one image, a row a box."""
    with torch.no_grad():
        found = gm(image)[0]
    rows = found if found.shape[0] > found.shape[1] else found.T
    return rows[:, :4], rows[:, 4:]


@pytest.mark.parametrize("name", REWRITES)
def test_numbers_stay(shared: Path, name: str) -> None:
    images = np.load(shared / "golden" / f"{name}.npz")["input"]
    source = open_model(
        shared / "golden" / f"{name}.pt",
        imgsz=images.shape[2:],
        head="one2many" if name in {"yolov10n", "yolo26n"} else None,
    )
    image = torch.from_numpy(images[:1].astype(np.float32) / 255)
    boxes, rest = outputs(source.gm, image)
    found = []
    for word in PASSES:
        ctx = yqc.Context()
        (action,) = yqc.Pipeline.parse(word).steps
        assert isinstance(action, yqc.Pass)
        action.run(source.gm, ctx)
        found.append(len(ctx.rewrites))
        if ctx.rewrites:
            tidy(source.gm)
            new_boxes, new_rest = outputs(source.gm, image)
            assert (new_boxes - boxes).abs().max() <= 1e-4 * boxes.abs().max()
            assert (new_rest - rest).abs().max() <= 1e-5
    assert tuple(found[3:]) == REWRITES[name]
    pools = [m for m in source.gm.modules() if isinstance(m, nn.MaxPool2d)]
    assert all(max(np.atleast_1d(pool.kernel_size)) <= 3 for pool in pools)
    assert not any(isinstance(m, nn.Upsample) for m in source.gm.modules())
