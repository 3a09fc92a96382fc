"""The figures of `evaluate` against those of an outside judge that shares no code with yqc."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from yqc.data import Placed, Split, load_data, read_images
from yqc.evaluation import evaluate

Floats = NDArray[np.float32]
IMAGES, SIDE, NC = 16, 320, 80


@pytest.fixture(scope="module")
def judge(shared: Path) -> ModuleType:
    path = shared / "tools" / "eval_onnx.py"
    spec = importlib.util.spec_from_file_location("eval_onnx", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def val(shared: Path) -> Split:
    split = load_data(shared / "data/coco128/coco128.yaml").val
    return replace(split, images=split.images[:IMAGES])


def blurred_truth(split: Split) -> Floats:
    """[images, 400, 85]: what a middling detector might say, for images placed in the input.

    Every object is found a few times, off by some pixels, often as another class too; the rest are
    boxes of nothing.
    """
    assert split.annotations is not None
    rng = np.random.default_rng(0)
    outputs = np.zeros((IMAGES, 400, 5 + NC), np.float32)
    outputs[..., :4] = rng.uniform(10, SIDE - 10, (IMAGES, 400, 4))
    outputs[..., 4] = rng.uniform(0, 0.3, (IMAGES, 400))
    outputs[..., 5:] = rng.uniform(0, 1, (IMAGES, 400, NC)) ** 60
    for image in read_images(split.images, (SIDE, SIDE)):
        assert isinstance(image, Placed)
        place, row = image.placement, 0
        for thing in split.annotations["annotations"]:
            if thing["image_id"] != image.index + 1:
                continue
            left, top, width, height = (v * place.scale for v in thing["bbox"])
            x, y = left + width / 2 + place.dx, top + height / 2 + place.dy
            size = np.array([width, height] * 2)
            for _ in range(rng.integers(0, 6)):
                outputs[image.index, row, :4] = [x, y, width, height] + size * rng.normal(
                    0, 0.06, 4
                )
                outputs[image.index, row, 4] = rng.uniform(0.3, 1)
                outputs[image.index, row, 4 + thing["category_id"]] = rng.uniform(0.2, 1)
                row += 1
    return outputs


def in_layout(outputs: Floats, layout: str) -> Floats:
    if layout == "yolov5":
        return outputs
    if layout == "yolov8":
        scores = outputs[..., 5:] * outputs[..., 4:5]
        return np.concatenate([outputs[..., :4], scores], 2).transpose(0, 2, 1)
    best = outputs[..., 5:].argmax(2)
    score = outputs[..., 4] * outputs[..., 5:].max(2)
    half = outputs[..., 2:4] / 2
    corners = [outputs[..., :2] - half, outputs[..., :2] + half]
    rows = np.concatenate([*corners, score[..., None], best[..., None]], 2)
    order = np.argsort(-score, 1)[:, :300, None]
    return np.take_along_axis(rows, order, 1)


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ("yolov5", TensorProto.FLOAT),
        ("yolov8", TensorProto.FLOAT),
        ("end2end", TensorProto.FLOAT),
        ("yolov8", TensorProto.FLOAT16),
    ],
)
def test_agrees_with_the_judge(
    judge: ModuleType,
    shared: Path,
    val: Split,
    remember: Callable[..., Path],
    keys_of: Callable[..., Floats],
    layout: str,
    kind: int,
) -> None:
    outputs = in_layout(blurred_truth(val), layout)
    keys = keys_of(val, (SIDE, SIDE))
    data = shared / "data/coco128"
    if kind == TensorProto.FLOAT16:  # The judge runs float32 only, so let it see the same numbers.
        outputs = outputs.astype(np.float16).astype(np.float32)
    path = remember(outputs, keys, size=(SIDE, SIDE))
    want = judge.evaluate(
        str(path),
        data / "images/val2017",
        str(data / "annotations/instances_val2017.json"),
        imgsz=SIDE,
        limit=IMAGES,
        threads=1,
    )
    got = evaluate(remember(outputs, keys, size=(SIDE, SIDE), kind=kind), val, threads=1)
    assert got.detections.head.layout == layout
    assert got.images == want["images"] == IMAGES
    assert 0.1 < want["mAP"] < 0.9
    assert got.map == pytest.approx(want["mAP"], abs=0.002)
    assert got.map50 == pytest.approx(want["mAP50"], abs=0.002)


def test_labels_and_json_of_the_same_images_give_the_same_figures(
    shared: Path, val: Split, remember: Callable[..., Path], keys_of: Callable[..., Floats]
) -> None:
    from_json = load_data(shared / "data/coco128/annotations/instances_val2017.json")
    listed = [*from_json.train.images, *from_json.val.images][:IMAGES]
    assert [p.resolve() for p in listed] == [p.resolve() for p in val.images]
    first = replace(from_json.train, images=from_json.train.images[:IMAGES])
    path = remember(blurred_truth(val), keys_of(val, (SIDE, SIDE)), size=(SIDE, SIDE))
    a, b = (evaluate(path, split, threads=1) for split in (val, first))
    assert a.map == pytest.approx(b.map, abs=1e-4)
    assert a.small == pytest.approx(b.small, abs=1e-4)
