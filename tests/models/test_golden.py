"""Real checkpoint files give what their own projects compute."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from yqc.models.load import LoadedModel, load
from yqc.models.trace import trace

NAMES = (
    *("yolov5n", "yolov7-tiny", "yolov7", "yolov5nu", "yolov8n", "yolov9t", "yolov10n"),
    *("yolo11n", "yolo12n", "yolo26n"),
)
FAMILIES = {"yolov5n": "yolov5", "yolov7-tiny": "yolov7", "yolov7": "yolov7"}
DUAL = ("yolov10n", "yolo26n")
MODELS = {
    "yolov5n-coco": ("yolov5", 80, 1_872_157, None),
    "yolov8n-bccd": ("ultralytics", 3, 3_011_433, (320, 320)),
    "yolov7-tiny-bccd": ("yolov7", 3, 6_020_400, None),
}


def stored(shared: Path, name: str) -> tuple[dict[str, np.ndarray], Tensor]:
    with np.load(shared / "golden" / f"{name}.npz") as arrays:
        found = dict(arrays)
    return found, torch.from_numpy(found["input"]).float() / 255


@torch.no_grad()
def outputs(model: LoadedModel, images: Tensor) -> np.ndarray:
    y: Tensor = model.module(images)
    return y.numpy()


def assert_boxes(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_array_less(np.abs(got - want), 2e-3 + 1e-4 * np.abs(want))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_projects_own(name: str, shared: Path) -> None:
    arrays, images = stored(shared, name)
    model = load(shared / "golden" / f"{name}.pt", head="one2many" if name in DUAL else None)
    assert model.family == FAMILIES.get(name, "ultralytics")
    assert model.name == name.replace("nu", "n")
    assert model.names == ("blicket", "dax", "fep", "gorp", "toma", "wug", "zibble")
    assert model.strides == (8, 16, 32)
    got, want = outputs(model, images), arrays["output"]
    if model.layout == "yolov8":
        got, want = got.transpose(0, 2, 1), want.transpose(0, 2, 1)
    assert_boxes(got[..., :4], want[..., :4])
    np.testing.assert_allclose(got[..., 4:], want[..., 4:], rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", DUAL)
def test_end_to_end_heads_pick_what_the_projects_pick(name: str, shared: Path) -> None:
    arrays, images = stored(shared, name)
    model = load(shared / "golden" / f"{name}.pt")
    assert model.layout == "end2end"
    got, want = outputs(model, images), arrays["output_end2end"]
    assert got.shape == want.shape
    np.testing.assert_allclose(got[..., 4], want[..., 4], rtol=0, atol=5e-5)
    for mine, theirs in zip(got, want, strict=True):
        for row in mine:  # Neighbours may swap: each row stands somewhere near in theirs.
            near = theirs[(np.abs(theirs[:, 4] - row[4]) < 1e-5) & (theirs[:, 5] == row[5])]
            off = np.abs(near[:, :4] - row[:4]) - 1e-4 * np.abs(near[:, :4])
            assert (off.max(1) < 2e-3).any()


@pytest.mark.parametrize("name", NAMES)
def test_graphs_compute_what_the_modules_do(name: str, shared: Path) -> None:
    _, images = stored(shared, name)
    model = load(shared / "golden" / f"{name}.pt")
    graph = trace(model.module, images[:1])
    with torch.no_grad():
        torch.testing.assert_close(graph(images).numpy(), outputs(model, images), rtol=0, atol=0)


def test_training_checkpoints_give_the_averaged_weights(shared: Path) -> None:
    arrays, images = stored(shared, "yolov7-tiny")  # Its `model` and `ema` differ.
    got = outputs(load(shared / "golden" / "yolov7-tiny.pt"), images)
    assert_boxes(got[..., :4], arrays["output"][..., :4])


@pytest.mark.parametrize("name", MODELS)
def test_trained_models_load_fast_and_whole(name: str, shared: Path) -> None:
    family, nc, parameters, imgsz = MODELS[name]
    started = time.process_time()
    model = load(shared / "models" / f"{name}.pt")
    assert time.process_time() - started < 2
    assert (model.family, len(model.names), model.imgsz) == (family, nc, imgsz)
    graph = trace(model.module, torch.zeros(1, 3, 64, 64))
    count = sum(p.numel() for p in graph.parameters())
    dropped = {"yolov7": (128 + 256 + 512) + 3 * 24, "ultralytics": 16}  # Implicit; 0 to 15.
    assert count + dropped.get(family, 0) == parameters
    assert model.warnings == ()
