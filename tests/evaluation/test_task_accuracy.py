"""Accuracy and agreement of masks, keypoints, oriented boxes and classes, where both are known."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as rle

from yqc.data import Annotations, Mask, Object, annotate
from yqc.data.labels import KEYPOINT_AREA
from yqc.evaluation import Boxes, Detections, OutputForm, accuracy, agreement, agreement50
from yqc.evaluation.boxes import FIELDS

Floats = NDArray[np.float32]
SIZE = 100, 80
HALF = 0.5
"""The mAP of an overlap of 0.72: it passes 0.50, 0.55, 0.60, 0.65 and 0.70 of the ten limits."""
PASSING = 0.72


def truth(*images: Sequence[Object], nc: int = 1) -> Annotations:
    return annotate(["x.png"] * len(images), images, [str(i) for i in range(nc)])


def found(form: OutputForm, *images: Boxes) -> Detections:
    return Detections(dict(enumerate(images)), form, (), 1.0, 0.5)


def corners(box: Sequence[float]) -> Any:
    left, top, width, height = box
    return [left, top, left + width, top + height]


# Masks -----------------------------------------------------------------------------------------

SEGMENT = OutputForm("yolov8", 1, "segment", coefficients=4)
BOX = (10.0, 10.0, 50.0, 40.0)


def mask(left: int, top: int, width: int, height: int) -> Mask:
    pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    pixels[top : top + height, left : left + width] = 1
    return rle.encode(np.asfortranarray(pixels))  # type: ignore[no-any-return]


def outlined(area: Mask, *, crowd: bool = False) -> Object:
    return Object(0, BOX, float(rle.area(area)), crowd, area)


def masked(*rows: tuple[Mask, float]) -> Boxes:
    masks = np.array([None, *(one["counts"] for one, _ in rows)], np.object_)[1:]
    scores = np.array([score for _, score in rows], np.float32)
    xyxy = np.array([corners(BOX)] * len(rows), np.float32).reshape(-1, 4)
    classes = np.zeros(len(rows), np.intp)
    return Boxes(xyxy, scores, classes, np.zeros((0, 0), np.float32), masks, SIZE)


def test_masks_count_by_their_own_overlap_and_boxes_by_theirs() -> None:
    whole = mask(10, 10, 50, 40)
    result = accuracy(found(SEGMENT, masked((mask(10, 10, 36, 40), 0.9))), truth([outlined(whole)]))
    assert result.mask is not None
    assert (result.mask.map, result.mask.map50) == pytest.approx((HALF, 1))
    assert (result.map, result.map50) == pytest.approx((1, 1))
    assert (result.main, result.main_figure) == ("mask.map", result.mask.map)
    assert result.by_class == pytest.approx((HALF,))


def test_one_of_two_masks_is_half_of_the_recall() -> None:
    first, second = mask(0, 0, 20, 20), mask(50, 40, 30, 30)
    result = accuracy(
        found(SEGMENT, masked((first, 0.9)), masked()),
        truth([outlined(first)], [outlined(second)]),
    )
    assert result.mask is not None
    assert result.mask.map == pytest.approx(51 / 101)


def test_a_mask_within_a_crowd_counts_neither_way() -> None:
    first, many = mask(0, 0, 20, 20), mask(30, 0, 60, 60)
    entries = truth([outlined(first), outlined(many, crowd=True)])
    rows = masked((first, 0.5), (mask(40, 10, 10, 10), 0.9))
    result = accuracy(found(SEGMENT, rows), entries)
    assert result.mask is not None
    assert result.mask.map50 == pytest.approx(1)


def test_without_outlines_boxes_are_measured() -> None:
    result = accuracy(
        found(SEGMENT, masked((mask(0, 0, 9, 9), 0.9))), truth([Object(0, BOX, 2000.0)])
    )
    assert (result.main, result.mask) == ("map", None)
    assert result.map == pytest.approx(1)


def test_no_outline_and_nothing_to_find_is_none() -> None:
    result = accuracy(found(SEGMENT, masked((mask(0, 0, 9, 9), 0.9))), truth([]))
    assert result.main_figure is None


# Keypoints -------------------------------------------------------------------------------------


def points(shape: tuple[int, int]) -> OutputForm:
    return OutputForm("yolov8", 1, "pose", kpt_shape=shape)


def person(keypoints: Sequence[Sequence[float]], area: float = 1000.0) -> Object:
    flat = tuple(float(v) for point in keypoints for v in point)
    return Object(0, BOX, area, keypoints=flat)


def posed(rows: Any, score: float = 0.9) -> Boxes:
    extra = np.asarray(rows, np.float32).reshape(1, -1)
    xyxy = np.array([corners(BOX)], np.float32)
    return Boxes(xyxy, np.array([score], np.float32), np.zeros(1, np.intp), extra)


def distance(similarity: float, sigma: float, area: float) -> float:
    """How far a keypoint is off whose similarity is exp(-d^2 / (2 area (2 sigma)^2))."""
    return math.sqrt(-2 * area * (2 * sigma) ** 2 * math.log(similarity))


@pytest.mark.parametrize(
    ("count", "sigma"), [(1, 1.0), (4, 1 / 4), (5, 1 / 5), (17, 0.026), (21, 1 / 21)]
)
@pytest.mark.parametrize("numbers", [2, 3])
def test_similarity_of_keypoints(count: int, sigma: float, numbers: int) -> None:
    """The first keypoint alone is labelled; of 17 it is the nose, whose sigma COCO measured."""
    labelled = [[30, 30, 2]] + [[0, 0, 0]] * (count - 1)
    form = points((count, numbers))
    for similarity, want in ((PASSING, HALF), (0.48, 0.0), (0.98, 1.0)):
        off = distance(similarity, sigma, 1000.0)
        rows = np.full((count, numbers), 0.9)
        rows[0, :2] = 30 + off * 0.6, 30 - off * 0.8
        result = accuracy(found(form, posed(rows)), truth([person(labelled)]))
        assert result.keypoints is not None
        assert result.keypoints.map == pytest.approx(want, abs=1e-6)
        assert result.main == "keypoints.map"
        assert result.map == pytest.approx(1)


def test_similarity_is_the_mean_of_the_labelled_keypoints() -> None:
    labelled = [[30, 30, 2], [40, 40, 1], [0, 0, 0], [0, 0, 0]]
    off = distance(2 * PASSING - 1, 1 / 4, 1000.0)
    rows = [[30, 30, 0.9], [40, 40 + off, 0.1], [7, 7, 0.9], [9, 9, 0.9]]
    result = accuracy(found(points((4, 3)), posed(rows)), truth([person(labelled)]))
    assert result.keypoints is not None
    assert result.keypoints.map == pytest.approx(HALF)


def test_similarity_is_relative_to_the_area() -> None:
    off = distance(PASSING, 1 / 4, 1000.0)
    rows = [[30 + off, 30, 1]] * 4
    for area, want in ((1000.0, HALF), (2000.0, 0.7), (500.0, 0.1)):  # 0.72, 0.849, 0.518
        entries = truth([person([[30, 30, 2]] * 4, area)])
        result = accuracy(found(points((4, 3)), posed(rows)), entries)
        assert result.keypoints is not None
        assert result.keypoints.map == pytest.approx(want)


def test_nothing_found_is_zero() -> None:
    nothing = posed([[30, 30, 1]] * 4).select(np.zeros(0, np.intp))
    result = accuracy(found(points((4, 3)), nothing), truth([person([[30, 30, 2]] * 4)]))
    assert result.keypoints is not None
    assert result.keypoints.map == 0


def test_an_object_without_labelled_keypoints_has_not_to_be_found() -> None:
    entries = truth([person([[30, 30, 2]] * 4), Object(0, (60, 60, 9, 9), 81.0)])
    result = accuracy(found(points((4, 3)), posed([[30, 30, 1]] * 4)), entries)
    assert result.keypoints is not None
    assert result.keypoints.map == pytest.approx(1)


# Oriented boxes --------------------------------------------------------------------------------

OBB = OutputForm("yolov8", 1, "obb")


def turned(box: Sequence[float]) -> Object:
    return Object(0, (0.0, 0.0, 1.0, 1.0), box[2] * box[3], rotated=tuple(map(float, box)))


def oriented(*boxes: Sequence[float], score: float = 0.9) -> Boxes:
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    half = rows[:, 2:4] / 2
    xyxy = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], 1)
    scores = np.full(len(rows), score, np.float32)
    return Boxes(xyxy, scores, np.zeros(len(rows), np.intp), rows[:, 4:])


def test_oriented_boxes_count_by_their_overlap() -> None:
    """Squares of side 20 shifted by d overlap by 1 - sqrt(1 - exp(-1.5 (d / 20)^2))."""
    shift = 20 * math.sqrt(-math.log(1 - (1 - PASSING) ** 2) / 1.5)
    entries = truth([turned((50, 40, 20, 20, 0.3))])
    result = accuracy(found(OBB, oriented((50 + shift, 40, 20, 20, 0.3))), entries)
    assert result.rotated is not None
    assert (result.rotated.map, result.rotated.map50) == pytest.approx((HALF, 1))
    assert (result.main, result.map) == ("rotated.map", None)


def test_the_best_box_comes_first_however_they_are_listed() -> None:
    entries = truth([turned((50, 40, 30, 10, 1.2))])
    good, bad = oriented((50, 40, 30, 10, 1.2), score=0.9), oriented((9, 9, 5, 5, 0), score=0.5)
    for first, second in ((good, bad), (bad, good)):
        xyxy, scores, classes, extra = (
            np.concatenate([getattr(one, name) for one in (first, second)]) for name in FIELDS
        )
        result = accuracy(found(OBB, Boxes(xyxy, scores, classes, extra)), entries)
        assert result.rotated is not None
        assert result.rotated.map == pytest.approx(1)


# Classes ---------------------------------------------------------------------------------------

CLASSIFY = OutputForm("classes", 8, "classify")


def ranked(*classes: int) -> Boxes:
    zeros = np.zeros((len(classes), 4), np.float32)
    scores = np.linspace(0.5, 0.1, len(classes), dtype=np.float32)
    return Boxes(zeros, scores, np.array(classes, np.intp), zeros[:, :0])


def labelled(cls: int) -> list[Object]:
    return [Object(cls, (0.0, 0.0, 0.0, 0.0), 0.0)]


def test_first_and_first_five_classes() -> None:
    images = (
        ranked(3, 1, 2, 0, 4),
        ranked(5, 3, 1, 0, 2),
        ranked(0, 1, 2, 4, 5),
        ranked(7, 6, 5, 4, 3),
    )
    entries = truth(labelled(3), labelled(3), labelled(7), labelled(7), nc=8)
    result = accuracy(found(CLASSIFY, *images), entries)
    assert (result.top1, result.top5, result.main) == (0.5, 0.75, "top1")
    assert (result.map, result.images) == (None, 4)
    assert result.by_class == (None, None, None, 0.5, None, None, None, 0.5)


def test_probabilities_that_are_no_numbers_are_no_class() -> None:
    entries = truth(labelled(0), labelled(0), nc=8)
    result = accuracy(found(CLASSIFY, ranked(0, 1, 2, 3, 4), ranked()), entries)
    assert (result.top1, result.top5) == (0.5, 0.5)


def test_an_image_that_was_not_read_does_not_count() -> None:
    entries = truth(labelled(0), labelled(1), nc=8)
    boxes = found(CLASSIFY, ranked(0), ranked(5))
    del boxes.boxes[1]
    assert accuracy(boxes, entries).top1 == 1


# Agreement -------------------------------------------------------------------------------------

ONE = {
    "segment": (SEGMENT, masked((mask(10, 10, 50, 40), 0.9))),
    "pose": (points((4, 3)), posed([[30, 30, 0.9]] * 4)),
    "pose without visibility": (points((4, 2)), posed([[30, 30]] * 4)),
    "obb": (OBB, oriented((50, 40, 20, 20, 0.3))),
    "classify": (CLASSIFY, ranked(3, 1)),
}
OFF = distance(PASSING, 1 / 4, KEYPOINT_AREA * BOX[2] * BOX[3])
SHIFT = 20 * math.sqrt(-math.log(1 - (1 - PASSING) ** 2) / 1.5)
NEAR = {
    "segment": masked((mask(10, 10, 36, 40), 0.4)),
    "pose": posed([[30 + OFF, 30, 0.9]] * 4),
    "pose without visibility": posed([[30, 30 + OFF]] * 4),
    "obb": oriented((50, 40 - SHIFT, 20, 20, 0.3)),
}
FAR = {
    "segment": masked((mask(10, 10, 20, 40), 0.9)),
    "pose": posed([[30 + 2 * OFF, 30, 0.9]] * 4),
    "pose without visibility": posed([[30, 30 + 2 * OFF]] * 4),
    "obb": oriented((60, 40, 20, 20, 0.3)),
    "classify": ranked(1, 3),
}


@pytest.mark.parametrize("task", ONE)
def test_a_model_agrees_with_itself(task: str) -> None:
    form, boxes = ONE[task]
    both = found(form, boxes)
    result = agreement(both, both)
    figure = result.top1 if task == "classify" else result.map
    assert (figure, agreement50(both, both)) == pytest.approx((1, 1))


@pytest.mark.parametrize("task", NEAR)
def test_a_model_that_is_near_agrees_at_half(task: str) -> None:
    form, boxes = ONE[task]
    result = agreement(found(form, boxes), found(form, NEAR[task]))
    assert (result.ap50, result.map) == pytest.approx((1, HALF))


@pytest.mark.parametrize("task", FAR)
def test_a_model_that_is_far_does_not_agree(task: str) -> None:
    form, boxes = ONE[task]
    first, second = found(form, boxes), found(form, FAR[task])
    assert agreement50(first, second) == 0
    result = agreement(first, second)
    assert (result.top1 if task == "classify" else result.ap50) == 0


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_what_the_reference_is_not_sure_of_does_not_count(task: str) -> None:
    form, boxes = ONE[task]
    unsure = Boxes(
        boxes.xyxy, boxes.scores * 0.2, boxes.classes, boxes.extra, boxes.masks, boxes.size
    )
    assert agreement50(found(form, unsure), found(form, boxes)) is None


def test_a_mask_without_pixels_is_no_object() -> None:
    some, empty = mask(10, 10, 50, 40), mask(0, 0, 0, 0)
    reference = found(SEGMENT, masked((empty, 0.95), (some, 0.9)))
    assert agreement50(reference, reference) == pytest.approx(1)
    assert agreement50(reference, found(SEGMENT, masked((some, 0.5)))) == pytest.approx(1)
    assert agreement50(reference, found(SEGMENT, masked((empty, 0.9)))) == 0
    assert agreement50(found(SEGMENT, masked((empty, 0.9))), reference) is None


def test_a_hidden_keypoint_of_the_reference_does_not_count() -> None:
    form = points((4, 3))
    reference = posed([[30, 30, 0.9], [30, 30, 0.9], [30, 30, 0.9], [90, 70, 0.2]])
    other = posed([[30, 30, 0.9]] * 4)
    assert agreement50(found(form, reference), found(form, other)) == pytest.approx(1)
    assert agreement(found(form, reference), found(form, other)).map == pytest.approx(1)


def test_changed_classes_are_counted() -> None:
    first = found(CLASSIFY, ranked(0), ranked(1), ranked(2), ranked())
    second = found(CLASSIFY, ranked(0), ranked(1), ranked(3), ranked())
    assert agreement(first, second).top1 == 0.75
    assert agreement(found(CLASSIFY), found(CLASSIFY)).top1 is None
