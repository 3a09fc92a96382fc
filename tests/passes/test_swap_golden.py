"""swap-activation on checkpoints of several families: the file computes what the graph does."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from yqc import Context, text
from yqc.emit import emit, roundtrip
from yqc.graph.metadata import Swapped
from yqc.models.source import open_model
from yqc.swapping import positions
from yqc_passes.swap_activation import SwapActivation

FEW = ("yolov7-tiny", "yolo26n")
"""Anchors behind LeakyReLU, and rows of detections; the others pass too, and take minutes."""


@pytest.mark.parametrize("name", FEW)
def test_the_file_equals_the_graph(
    shared: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "SAMPLES", 256)
    monkeypatch.setattr(positions, "TRIED", 64)
    arrays = np.load(shared / "golden" / f"{name}.npz")["input"]
    source = open_model(shared / "golden" / f"{name}.pt", imgsz=arrays.shape[2:])
    images = list(torch.from_numpy(arrays).float().div(255).split(1))  # type: ignore[no-untyped-call]

    def calibration() -> Iterable[Tensor]:
        return images

    gm = source.gm
    ctx = Context(calibration=calibration, form=source.form)
    SwapActivation(refit="never").run(gm, ctx)
    swapped = [node for node in gm.graph.nodes if Swapped.on(node)]
    assert len(swapped) > 30
    assert "SiLU" not in text(gm)
    assert "LeakyReLU" not in text(gm)
    assert roundtrip(gm, emit(gm), images[0], source.form).within(1e-3, 1e-3)
