"""Whole detectors, as checkpoints hold them: graph and file agree, for one image and for three."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.slow import slow_but
from yqc.emit import emit, roundtrip, weight_bytes
from yqc.emit.roundtrip import compare_outputs, open_session, run_session
from yqc.models.load import load
from yqc.models.trace import trace

NAMES = (
    *("yolov5n", "yolov7-tiny", "yolov7", "yolov5nu", "yolov8n", "yolov9t"),
    *("yolov10n", "yolo11n", "yolo12n", "yolo26n"),
)
FIXED = ("yolov5n", "yolo12n", "yolo26n")
"""Also of a fixed size: a head of each kind, and attention."""


@pytest.mark.parametrize(
    ("name", "dynamic"),
    slow_but(
        [*((name, True) for name in NAMES), *((name, False) for name in FIXED)],
        *[("yolov7-tiny", True), ("yolo11n", True), ("yolov5n", False)],
    ),
)
def test_checkpoint_round_trips(name: str, dynamic: bool, shared: Path) -> None:
    model = load(shared / "golden" / f"{name}.pt")
    pixels = np.load(shared / "golden" / f"{name}.npz")["input"]
    images = torch.from_numpy(pixels).float() / 255
    gm = trace(model.module, images[:1])
    emitted = emit(gm, dynamic=dynamic)
    trip = roundtrip(gm, emitted, images[:1], model.form)
    # Of a mirrored image, float32 itself is 1e-4 from float64 in these random networks.
    assert trip.within() if dynamic else trip.within(boxes=1e-5, scores=2e-5)
    used = {
        id(p): p.numel()
        for node in gm.graph.nodes
        if node.op == "call_module"
        for p in gm.get_submodule(str(node.target)).parameters()
    }
    assert weight_bytes(emitted) <= 4 * sum(used.values())
    if dynamic:
        more = torch.cat([images, images[:1].flip(-1)])
        with torch.no_grad():
            want = model.module(more).numpy()
        got = run_session(open_session(emitted), [more.numpy()])
        deviation = compare_outputs([want], got, model.form)
        assert deviation.boxes < 1e-3
        assert deviation.scores < 1e-3
