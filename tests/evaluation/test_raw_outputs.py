"""Outputs without the decoding: decoded as written out cell by cell, and hostile metadata."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from yqc.errors import CheckpointError
from yqc.evaluation.runner import find_heads
from yqc.runtime import Gaussians as Oriented
from yqc.runtime import decode, fast_nms, overlap, read_heads

Floats = NDArray[np.float32]


def entry(**changes: Any) -> dict[str, Any]:
    """The metadata of a head of two classes and two levels."""
    outputs = [
        {"name": f"{kind}_{stride}", "kind": kind, "stride": stride}
        for stride in (8, 16)
        for kind in ("box", "cls")
    ]
    plain = {"version": 1, "decode": "raw", "task": "detect", "layout": "yolov8", "nc": 2}
    return {**plain, "outputs": outputs, "reg_max": 4, **changes}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def expected(bins: Floats) -> float:
    shares = np.exp(bins.astype(float))
    return float((shares * np.arange(len(bins))).sum() / shares.sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31))
def test_boxes_are_those_of_each_cell(h: int, w: int, reg_max: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = {}
    for stride, (rows, columns) in ((8, (2 * h, 2 * w)), (16, (h, w))):
        raw[f"box_{stride}"] = rng.normal(0, 3, (1, 4 * reg_max, rows, columns)).astype(np.float32)
        raw[f"cls_{stride}"] = rng.normal(0, 3, (1, 2, rows, columns)).astype(np.float32)
    (found,) = decode(raw, entry(reg_max=reg_max))
    wanted = []
    for stride in (8, 16):
        box, cls = raw[f"box_{stride}"][0], raw[f"cls_{stride}"][0]
        for y in range(box.shape[1]):
            for x in range(box.shape[2]):
                bins = box[:, y, x].reshape(4, reg_max)
                left, top, right, bottom = (
                    float(side[0]) if reg_max == 1 else expected(side) for side in bins
                )
                wanted.append([
                    stride * (x + 0.5 + (right - left) / 2),
                    stride * (y + 0.5 + (bottom - top) / 2),
                    stride * (left + right),
                    stride * (top + bottom),
                    *(sigmoid(float(c)) for c in cls[:, y, x]),
                ])  # fmt: skip
    np.testing.assert_allclose(found[0].T, wanted, rtol=1e-4, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_anchors_are_those_of_each_cell(h: int, w: int, anchors: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 100, (1, anchors, 2)).tolist()
    raw = rng.normal(0, 2, (1, anchors * 7, h, w)).astype(np.float32)
    outputs = [{"name": "raw_8", "kind": "raw", "stride": 8}]
    heads = entry(layout="yolov5", outputs=outputs, anchors=sizes)
    (found,) = decode({"raw_8": raw}, heads)
    wanted = []
    for anchor in range(anchors):
        for y in range(h):
            for x in range(w):
                s = [sigmoid(float(v)) for v in raw[0, anchor * 7 : anchor * 7 + 7, y, x]]
                width, height = sizes[0][anchor]
                wanted.append([
                    8 * (2 * s[0] - 0.5 + x), 8 * (2 * s[1] - 0.5 + y),
                    (2 * s[2]) ** 2 * width, (2 * s[3]) ** 2 * height, *s[4:],
                ])  # fmt: skip
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**31), st.floats(0.1, 0.9))
def test_oriented_boxes_are_suppressed_by_all_better_ones(n: int, seed: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.column_stack([
        rng.uniform(0, 30, (n, 2)), rng.uniform(2, 20, (n, 2)), rng.uniform(-2, 2, n)
    ])  # fmt: skip
    scores, classes = rng.random(n).astype(np.float32), rng.integers(0, 2, n)
    order = np.argsort(-scores, kind="stable")
    wanted = [
        j
        for place, j in enumerate(order.tolist())
        if not any(
            classes[i] == classes[j]
            and overlap(Oriented.of(boxes[i][None]), Oriented.of(boxes[j][None]))[0] > iou
            for i in order[:place]
        )
    ]
    assert fast_nms(boxes, scores, classes, iou=iou).tolist() == wanted


def without_a_level(heads: dict[str, Any]) -> None:
    del heads["outputs"][1]


def with_kind(heads: dict[str, Any]) -> None:
    heads["outputs"][0]["kind"] = "angle"


def twice(heads: dict[str, Any]) -> None:
    heads["outputs"].append(heads["outputs"][0])


@pytest.mark.parametrize(
    "damage",
    [
        without_a_level, with_kind, twice,
        lambda heads: heads.update(nc=10**30),
        lambda heads: heads.update(nc=-1),
        lambda heads: heads.update(nc=True),
        lambda heads: heads.update(reg_max=1e300),
        lambda heads: heads.update(outputs={}),
        lambda heads: heads.update(outputs=[7]),
        lambda heads: heads.update(version=2),
        lambda heads: heads.update(task="fly"),
        lambda heads: heads.pop("nc"),
        lambda heads: heads["outputs"][0].update(stride=0),
        lambda heads: heads["outputs"][0].update(stride="8"),
        lambda heads: heads["outputs"][0].update(name=None),
        lambda heads: heads.update(layout="yolov5"),
        lambda heads: heads.update(filler="x" * 70_000),
    ],
)  # fmt: skip
def test_damaged_metadata_is_one_sentence(damage: Callable[[dict[str, Any]], object]) -> None:
    heads = entry()
    find_heads(Path("m.onnx"), {"yqc.heads": json.dumps(heads)})
    damage(heads)
    with pytest.raises(CheckpointError, match=r"^m\.onnx has damaged metadata: yqc\.heads ") as e:
        find_heads(Path("m.onnx"), {"yqc.heads": json.dumps(heads)})
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 300


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([*entry(), "anchors", "keypoints", "kpt_shape"]), VALUES)
def test_no_value_is_another_error(key: str, value: object) -> None:
    raw = {f"{k}_{s}": np.zeros((1, c, 2, 2), np.float32)
           for s in (8, 16) for k, c in (("box", 16), ("cls", 2))}  # fmt: skip
    try:
        decode(raw, read_heads(json.dumps(entry(**{key: value}))))
    except ValueError as error:
        assert str(error)  # noqa: PT017  # most values fail, some fit


def test_outputs_that_the_file_lacks_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"the file gives no output 'box_8', which yqc.heads names"
    ):
        decode({}, entry())
