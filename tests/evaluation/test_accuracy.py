"""COCO figures on cases whose answer is known, and agreement."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from yqc.data import Annotations, Object, Placed, Split, read_images, to_float
from yqc.data.sets import BoxEntry
from yqc.errors import DataError
from yqc.evaluation import Boxes, Detections, OutputForm, accuracy, agreement, agreement50, evaluate

Floats = NDArray[np.float32]
MakeSplit = Callable[..., Split]
Box = tuple[float, float, float, float]

SMALL, MEDIUM, LARGE = (10, 10, 20, 20), (5, 60, 50, 50), (60, 5, 120, 110)


def thing(cls: int, box: Box, *, crowd: bool = False) -> Object:
    return Object(cls, box, box[2] * box[3], crowd)


def found(*images: list[tuple[int, Box, float]], nc: int | None = 1) -> Detections:
    """Detections given as (class, left top width height, score)."""
    boxes = {}
    for i, rows in enumerate(images):
        xywh = np.array([row[1] for row in rows], np.float32).reshape(-1, 4)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        scores = np.array([row[2] for row in rows], np.float32)
        boxes[i] = Boxes(xyxy, scores, np.array([row[0] for row in rows], np.intp))
    return Detections(boxes, OutputForm("yolov8", nc), (), 1.0, 0.5)


def truth(split: Split) -> Annotations:
    assert split.annotations is not None
    return split.annotations


class Oracle:
    """A runner that knows the answers: the image's position tells the row, its mean the image."""

    def __init__(self, split: Split, outputs: list[Floats], imgsz: tuple[int, int]) -> None:
        images = [one for one in read_images(split.images, imgsz) if isinstance(one, Placed)]
        self.answers = {
            to_float(one.pixels).tobytes(): output
            for one, output in zip(images, outputs, strict=True)
        }

    def run(self, images: Floats, /) -> tuple[Floats, ...]:
        return (self.answers[images.tobytes()][None],)


def test_a_detector_that_knows_the_answers_scores_one(
    split: MakeSplit, capsys: pytest.CaptureFixture[str]
) -> None:
    val = split((200, 120, [thing(0, MEDIUM), thing(1, LARGE)]), (64, 128, []), names=("a", "b"))
    # At 100 x 100, 200 x 120 is halved and starts at y = 20.
    first = np.array([[15, 62.5, 25, 25, 1, 0.9, 0], [60, 50, 60, 55, 0.9, 0, 1]], np.float32)
    result = evaluate(
        Oracle(val, [first, first[:0]], (100, 100)),
        val,
        imgsz=(100, 100),
        form=OutputForm("yolov5"),
    )
    assert (result.map, result.map50, result.map75) == pytest.approx((1, 1, 1))
    assert (result.medium, result.large) == pytest.approx((1, 1))
    assert result.small is None
    assert (result.images, result.skipped) == (2, ())
    assert result.seconds_total == result.detections.seconds_total
    assert capsys.readouterr().out == ""
    assert all(set(entry) == BoxEntry.__required_keys__ for entry in truth(val)["annotations"])


def test_a_loose_box_passes_at_50_only(split: MakeSplit) -> None:
    val = split((200, 120, [thing(0, (10, 10, 100, 100))]))
    result = accuracy(found([(0, (10, 10, 100, 62), 0.9)]), truth(val))
    assert (result.map50, result.map75) == pytest.approx((1, 0))
    assert result.map == pytest.approx(0.3)  # 0.50, 0.55 and 0.60 of the ten thresholds.


def test_half_of_the_objects_is_half_of_the_precision(split: MakeSplit) -> None:
    val = split((200, 120, [thing(0, SMALL), thing(0, LARGE)]))
    result = accuracy(found([(0, LARGE, 0.9)]), truth(val))
    assert result.map == pytest.approx(51 / 101)  # 101 recall points, 0 to 0.5 reached.
    assert [result.small, result.medium, result.large] == [0, None, pytest.approx(1)]


def test_nothing_found_is_zero_and_nothing_to_find_is_none(split: MakeSplit) -> None:
    assert accuracy(found([]), truth(split((9, 9, [thing(0, SMALL)])))).map == 0
    assert accuracy(found([(0, SMALL, 0.9)]), truth(split((9, 9, [])))).map is None


def test_what_is_found_in_a_crowd_counts_neither_way(split: MakeSplit) -> None:
    hits = [(0, SMALL, 0.5), (0, (62.0, 7.0, 30.0, 30.0), 0.9), (0, (90.0, 50.0, 30.0, 30.0), 0.8)]
    for crowd, want in ((True, 1.0), (False, 0.5)):
        val = split((200, 120, [thing(0, SMALL), thing(0, LARGE, crowd=crowd)]))
        result = accuracy(found(hits), truth(val))
        assert (result.map50 == pytest.approx(want)) is crowd


def test_an_image_that_cannot_be_read_counts_neither_way(split: MakeSplit) -> None:
    val = split((200, 120, [thing(0, MEDIUM)]), None, (200, 120, [thing(0, LARGE)]))
    truth(val)["annotations"].append(
        {"id": 9, "image_id": 2, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    )
    two = found([(0, MEDIUM, 0.9)], [], [(0, LARGE, 0.8)])
    del two.boxes[1]
    result = accuracy(two, truth(val))
    assert [result.map, result.images] == [pytest.approx(1), 2]


def test_other_classes_than_the_data_are_an_error(split: MakeSplit) -> None:
    val = split((9, 9, [thing(0, SMALL)]), names=("a", "b"))
    with pytest.raises(DataError, match="the model predicts 3 classes but the data has 2"):
        accuracy(found([(0, SMALL, 0.9)], nc=3), truth(val))
    assert accuracy(found([(1, SMALL, 0.9)], nc=None), truth(val)).map == 0
    with pytest.raises(DataError, match="the model predicts 6 classes but the data has 2"):
        accuracy(found([(5, SMALL, 0.9)], nc=None), truth(val))


def test_images_without_labels_have_no_accuracy(split: MakeSplit) -> None:
    bare = Split("val", split((9, 9, [])).images)
    with pytest.raises(DataError, match="the val images have no labels"):
        evaluate(Oracle(bare, [np.zeros((1, 6), np.float32)], (9, 9)), bare, imgsz=(9, 9))


def test_a_model_agrees_with_itself() -> None:
    both = found([(0, SMALL, 0.9), (3, LARGE, 0.3), (1, LARGE, 0.2)], [(2, MEDIUM, 0.25)], nc=9)
    result = agreement(both, both)
    assert [result.ap50, result.map, result.images] == [pytest.approx(1), pytest.approx(1), 2]


def test_agreement_counts_what_the_reference_is_sure_of() -> None:
    reference = found([(0, SMALL, 0.9), (1, LARGE, 0.25), (2, LARGE, 0.249)], nc=9)
    assert agreement(reference, found([(0, SMALL, 0.01)], nc=9)).ap50 == pytest.approx(0.5)
    assert agreement(reference, found([(2, LARGE, 0.9)], nc=9)).ap50 == 0
    assert agreement(reference, found([], nc=9)).ap50 == 0
    loose = agreement(reference, found([(0, SMALL, 0.9), (1, (60, 5, 120, 60), 0.9)], nc=9))
    assert loose.ap50 == pytest.approx(1)
    assert loose.map == pytest.approx((1 + 0.1) / 2)


def test_agreement_at_one_iou_is_the_same_alone() -> None:
    reference = found([(0, SMALL, 0.9), (1, LARGE, 0.3)], [(2, MEDIUM, 0.7)], nc=9)
    other = found([(0, SMALL, 0.4), (1, (60, 5, 120, 60), 0.9)], [(1, MEDIUM, 0.9)], nc=9)
    assert agreement50(reference, other) == agreement(reference, other).ap50
    assert agreement50(found([(0, SMALL, 0.1)]), other) is None


def test_agreement_of_other_images_or_with_nothing_is_none() -> None:
    nothing = agreement(found([(0, SMALL, 0.1)]), found([(0, SMALL, 0.9)]))
    assert (nothing.ap50, nothing.map, nothing.images) == (None, None, 1)
    two = found([(0, SMALL, 0.9)], [(0, SMALL, 0.9)])
    one = found([(0, SMALL, 0.9)])
    assert agreement(two, one).ap50 == pytest.approx(1)
    assert agreement(two, one).images == 1
