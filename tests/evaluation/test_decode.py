"""The three output layouts: telling them apart, and the boxes they stand for."""

import numpy as np
import pytest
from numpy.typing import NDArray

from yqc.errors import CheckpointError
from yqc.evaluation import Boxes, Layout, OutputForm
from yqc.evaluation.decode import detections
from yqc.evaluation.forms import Hints, find_form

Floats = NDArray[np.float32]


def listed(boxes: Boxes) -> list[tuple[list[float], float, int]]:
    rows = zip(boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.classes.tolist(), strict=True)
    return [(box, round(score, 5), cls) for box, score, cls in rows]


def array(*rows: list[float]) -> Floats:
    return np.array(rows, np.float32)


XYWH = [[50, 40, 20, 10], [90, 90, 8, 8], [10, 10, 4, 4]]
WANT = [
    ([40, 35, 60, 45], 0.72, 1),
    ([40, 35, 60, 45], 0.45, 0),
    ([86, 86, 94, 94], 0.1, 0),
]


def test_yolov5_scores_are_objectness_times_class() -> None:
    output = array(
        [*XYWH[1], 0.5, 0.2, 0.002], [*XYWH[0], 0.9, 0.5, 0.8], [*XYWH[2], 0.001, 1.0, 1.0]
    )
    assert listed(detections(output, OutputForm("yolov5"))) == WANT


def test_yolov8_scores_stand_by_themselves() -> None:
    output = array([*XYWH[1], 0.1, 0.0], [*XYWH[0], 0.45, 0.72], [*XYWH[2], 0.001, 0.0]).T
    assert listed(detections(output, OutputForm("yolov8"))) == WANT


def test_end2end_rows_are_taken_as_they_are() -> None:
    output = array([*WANT[0][0], 0.72, 1], [*WANT[1][0], 0.45, 0], [86, 86, 94, 94, 0.1, 0])
    assert (
        listed(detections(np.concatenate([output, array([0] * 6)]), OutputForm("end2end"))) == WANT
    )


@pytest.mark.parametrize("layout", ["yolov5", "yolov8", "end2end"])
def test_what_is_no_number_is_no_detection(layout: Layout) -> None:
    rows = np.tile(array([50, 40, 60, 70, 0.9, 0.9]), (5, 1))
    rows[0, 0], rows[1, 3], rows[2, 4:] = np.nan, np.inf, np.nan
    rows[:, 0] += np.arange(5, dtype=np.float32) * 100
    rows[:, 2] += np.arange(5, dtype=np.float32) * (100 if layout == "end2end" else 0)
    found = detections(rows.T if layout == "yolov8" else rows, OutputForm(layout))
    assert sorted(set(found.xyxy[:, 0].tolist())) == (
        [350, 450] if layout == "end2end" else [320, 420]
    )


@pytest.mark.parametrize("layout", ["yolov5", "yolov8"])
def test_keeps_at_most_the_best_300(layout: Layout) -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((500, 7), np.float32)
    rows[:, :2] *= 10000
    rows[:, 4] = 1
    output = rows if layout == "yolov5" else np.delete(rows, 4, 1).T
    found = detections(output, OutputForm(layout))
    best = np.sort(rows[:, 5:].ravel())[::-1][:300]
    np.testing.assert_array_equal(found.scores, best)


@pytest.mark.parametrize(
    ("shape", "nc", "head"),
    [
        ((1, 84, 8400), None, OutputForm("yolov8", 80)),
        ((1, 25200, 85), None, OutputForm("yolov5", 80)),
        ((1, 5, 8400), None, OutputForm("yolov8", 1)),
        ((1, 6, 8400), 2, OutputForm("yolov8", 2)),
        ((1, 25200, 6), 1, OutputForm("yolov5", 1)),
        ((1, 84, 84), 80, OutputForm("yolov8", 80)),
        ((1, 84, 21), 80, OutputForm("yolov8", 80)),
        ((1, 63, 85), 80, OutputForm("yolov5", 80)),
        ((1, 252, 6), 1, OutputForm("yolov5", 1)),
    ],
)
def test_tells_the_layout(shape: tuple[int, ...], nc: int | None, head: OutputForm) -> None:
    output = np.random.default_rng(0).random(shape, np.float32)
    assert find_form([output], None, Hints(nc=nc)) == head


def test_tells_end2end_rows_by_what_is_in_them() -> None:
    output = np.random.default_rng(0).random((1, 300, 6), np.float32)
    assert find_form([output]) == OutputForm("yolov5", 1)
    output[..., 5] = np.round(output[..., 5] * 9)
    assert find_form([output]) == OutputForm("yolov5", 1)
    output[..., 4] = np.sort(output[..., 4])[:, ::-1]
    assert find_form([output], None, Hints(nc=9)) == OutputForm("end2end", 9)
    assert find_form([output], OutputForm("yolov5")) == OutputForm("yolov5", 1)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 80, 80), None),
        ((1, 4, 8400), None),
        ((1, 300, 5), None),
        ((), None),
        ((1, 300, 7), "end2end"),
        ((1, 4, 8400), "yolov8"),
        ((1, 8400, 5), "yolov5"),
    ],
)
def test_refuses_what_is_no_decoded_detector(shape: tuple[int, ...], layout: Layout | None) -> None:
    with pytest.raises(CheckpointError, match="is not that of a decoded"):
        find_form([np.zeros(shape, np.float32)], OutputForm(layout) if layout else None)
