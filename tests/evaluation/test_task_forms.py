"""From outputs of every task to what is in the picture: forms, places, masks, and their storing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from yqc.data import Letterboxed, mask_pixels
from yqc.data.sets import Labelling
from yqc.errors import CheckpointError
from yqc.evaluation import (
    Boxes,
    OutputForm,
    Place,
    find_form,
    find_objects,
    stack_boxes,
    unstack_boxes,
)
from yqc.evaluation.decode import detections
from yqc.evaluation.forms import Hints, guess_task, sort_outputs

Floats = NDArray[np.float32]


def zeros(*shape: int) -> Floats:
    return np.zeros(shape, np.float32)


# Forms -----------------------------------------------------------------------------------------


def ranked(*shape: int) -> Floats:
    """End-to-end rows by falling score."""
    rows = zeros(*shape)
    rows[..., 4] = np.linspace(1, 0, shape[1])
    return rows


@pytest.mark.parametrize(
    ("outputs", "hints", "want"),
    [
        ([zeros(1, 3)], Hints(), OutputForm("classes", 3, "classify")),
        ([zeros(1, 3)], Hints("classify", 3), OutputForm("classes", 3, "classify")),
        (
            [zeros(1, 4 + 2 + 32, 84), zeros(1, 32, 16, 16)],
            Hints(),
            OutputForm("yolov8", 2, "segment", 32),
        ),
        (
            [zeros(1, 84, 5 + 2 + 8), zeros(1, 8, 16, 16)],
            Hints("segment", 2),
            OutputForm("yolov5", 2, "segment", 8),
        ),
        (
            [ranked(1, 30, 6 + 8), zeros(1, 8, 16, 16)],
            Hints("segment", 2),
            OutputForm("end2end", 2, "segment", 8),
        ),
        (
            [zeros(1, 4 + 1 + 12, 84)],
            Hints("pose", 1, (4, 3)),
            OutputForm("yolov8", 1, "pose", 0, (4, 3)),
        ),
        (
            [ranked(1, 30, 6 + 8)],
            Hints("pose", 1, (4, 2)),
            OutputForm("end2end", 1, "pose", 0, (4, 2)),
        ),
        ([zeros(1, 4 + 15 + 1, 84)], Hints("obb", 15), OutputForm("yolov8", 15, "obb")),
        ([ranked(1, 30, 7)], Hints("obb", 15), OutputForm("end2end", 15, "obb")),
    ],
)
def test_the_form_of_outputs(outputs: list[Floats], hints: Hints, want: OutputForm) -> None:
    assert find_form(sort_outputs(outputs), hints=hints) == want
    assert find_form(sort_outputs(outputs[::-1]), hints=hints) == want
    assert find_form(outputs, want) == want


@pytest.mark.parametrize(
    ("outputs", "hints", "complaint"),
    [
        ([zeros(1, 38, 84)], Hints("segment"), "it has one output, and segmentation has two"),
        ([zeros(1, 38, 84)], Hints("pose"), "its metadata lack kpt_shape"),
        ([zeros(1, 38, 84)], Hints("classify"), "is not that of a classifier"),
        ([zeros(1, 10, 84)], Hints("pose", 1, (4, 3)), r"\[N, 4\+classes\+12, anchors\]"),
        ([zeros(1, 5, 84)], Hints("obb"), "is not that of a decoded YOLO detector"),
        ([zeros(1, 3, 8, 8)], Hints(), "is not that of a decoded YOLO detector"),
    ],
)
def test_outputs_of_no_form(outputs: list[Floats], hints: Hints, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        find_form(sort_outputs(outputs), hints=hints)


def test_further_outputs_of_five_dimensions_are_left_out() -> None:
    first, proto = zeros(1, 84, 15), zeros(1, 8, 16, 16)
    levels = [zeros(1, 3, s, s, 15) for s in (8, 4)]
    assert [o.shape for o in sort_outputs([first, proto, *levels])] == [first.shape, proto.shape]
    assert guess_task([3, 4]) == "segment"
    assert guess_task([3]) is None


def test_labels_that_a_form_needs() -> None:
    assert Labelling.of(None) == Labelling("detect", None)
    assert Labelling.of(OutputForm("yolov8", 1, "pose", 0, (5, 2))) == Labelling("pose", 5)


# Places ----------------------------------------------------------------------------------------

# A picture of 120 x 60 in an input of 64 x 64: halved, and 17 grey rows above it.
PLACE = Place(Letterboxed(0.5, 2, 17), (120, 60), (64, 64))


def column(*numbers: float) -> Floats:
    return np.array(numbers, np.float32)[:, None]


def test_boxes_are_moved_to_the_picture_and_cut_at_its_edge() -> None:
    form = OutputForm("yolov8", 1, "detect")
    found = find_objects([column(12, 22, 30, 6, 0.9)], form, PLACE)
    np.testing.assert_allclose(found.xyxy, [[0, 4, 50, 16]])


@pytest.mark.parametrize("shape", [(2, 2), (2, 3)])
def test_keypoints_are_moved_and_not_cut(shape: tuple[int, int]) -> None:
    form = OutputForm("yolov8", 1, "pose", kpt_shape=shape)
    flags = [0.8] * (shape[1] - 2)
    output = column(22, 27, 20, 10, 0.9, 12, 27, *flags, 1, 16, *flags)
    found = find_objects([output], form, PLACE)
    points = found.extra.reshape(1, *shape)
    np.testing.assert_allclose(points[0, :, :2], [[20, 20], [-2, -2]])
    np.testing.assert_allclose(points[0, :, 2:], np.float32(0.8))


@pytest.mark.parametrize("layout", ["yolov8", "end2end"])
def test_oriented_boxes_are_moved_and_keep_their_angle(layout: Any) -> None:
    form = OutputForm(layout, 1, "obb")
    rows = {
        "yolov8": column(22, 27, 20, 10, 0.9, 0.7),
        "end2end": column(22, 27, 20, 10, 0.9, 0, 0.7).T,
    }
    found = find_objects([rows[layout]], form, PLACE)
    np.testing.assert_allclose(found.rotated, [[40, 20, 40, 20, 0.7]], rtol=1e-6)


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb"])
@pytest.mark.parametrize("layout", ["yolov8", "end2end"])
def test_nothing_is_found_in_nothing(task: Any, layout: Any) -> None:
    form = OutputForm(
        layout, 1, task, 8 if task == "segment" else 0, (2, 3) if task == "pose" else None
    )
    shape = (5 + form.extra, 84) if layout == "yolov8" else (30, 6 + form.extra)
    found = find_objects([zeros(*shape), zeros(8, 16, 16)], form, PLACE)
    assert len(found) == len(found.masks) == len(found.rotated if task == "obb" else ()) == 0


def test_numbers_that_are_not_finite_are_no_detections() -> None:
    form = OutputForm("yolov8", 1, "pose", kpt_shape=(1, 2))
    fine = column(22, 27, 20, 10, 0.9, 1, 1)
    for i in range(7):
        broken = fine.copy()
        broken[i] = np.nan
        assert len(detections(np.concatenate([broken, fine], 1), form)) == 1


def test_the_likeliest_classes() -> None:
    form = OutputForm("classes", 7, "classify")
    output = np.array([0.1, 0.3, 0.05, 0.3, 0.02, 0.2, 0.03], np.float32)
    found = find_objects([output], form, PLACE)
    assert found.classes.tolist() == [1, 3, 5, 0, 2]
    output[4] = np.nan
    assert len(find_objects([output], form, PLACE)) == 0


# Masks -----------------------------------------------------------------------------------------


def edge_at(position: float, axis: int) -> Floats:
    """Prototypes [1, 16, 16] over 64 pixels that are above zero behind a place in the input."""
    centres = (np.arange(16) + 0.5) * 4 - position
    plane = centres[None, :] if axis else centres[:, None]
    return np.broadcast_to(plane, (16, 16))[None].astype(np.float32)


def pixels_of(found: Boxes) -> list[NDArray[np.bool_]]:
    width, height = found.size
    return [
        mask_pixels({"size": [height, width], "counts": one}).astype(np.bool_)
        for one in found.masks
    ]


SEGMENT = OutputForm("yolov8", 1, "segment", coefficients=1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("axis", [0, 1])
def test_masks_have_the_resolution_of_the_picture(axis: int, sign: int) -> None:
    """An edge at a quarter of a cell lies between the right two pixels of the picture."""
    edge = 33 + 2 * axis if axis else 33  # in the input: 66 in x, 32 in y of the picture
    output = column(32, 32, 60, 30, 0.9, sign)
    found = find_objects([output, edge_at(edge, axis)], SEGMENT, PLACE)
    (mask,) = pixels_of(found)
    assert mask.shape == (60, 120)
    rows, columns = np.mgrid[:60, :120]
    behind = (columns if axis else rows) >= (66 if axis else 32)
    box = (columns < 120) & (rows < 60)
    np.testing.assert_array_equal(mask, box & (behind if sign > 0 else ~behind))


def test_a_mask_ends_at_its_box() -> None:
    """Pixel u is inside where left <= u < right; the box here is 10.5 to 31, 20 to 39.2."""
    left, top, right, bottom = 10.5, 20.0, 31.0, 39.2
    scaled = [v * 0.5 + d for v, d in zip((left, top, right, bottom), (2, 17, 2, 17), strict=True)]
    x, y = (scaled[0] + scaled[2]) / 2, (scaled[1] + scaled[3]) / 2
    output = column(x, y, scaled[2] - scaled[0], scaled[3] - scaled[1], 0.9, 1)
    found = find_objects([output, np.ones((1, 16, 16), np.float32)], SEGMENT, PLACE)
    (mask,) = pixels_of(found)
    want = np.zeros((60, 120), np.bool_)
    want[20:40, 11:31] = True
    np.testing.assert_array_equal(mask, want)


def test_each_object_has_the_sum_of_its_own_coefficients() -> None:
    form = OutputForm("yolov8", 1, "segment", coefficients=2)
    first, second = column(16, 32, 20, 20, 0.9, 1, 0), column(48, 32, 20, 20, 0.8, -1, 2)
    prototypes = np.ones((2, 16, 16), np.float32)
    prototypes[1, :8] = -1
    found = find_objects([np.concatenate([second, first], 1), prototypes], form, PLACE)
    one, other = pixels_of(found)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert one[12:48, 10:40].all()
    assert other.any()
    assert not other[:28].any()  # -1 - 2 above the middle, -1 + 2 below
    assert other[32:48, 76:104].all()


# Storing ---------------------------------------------------------------------------------------


@st.composite
def findings(draw: Any) -> list[Boxes]:
    """Findings of some images as one model gives them: with or without more numbers and masks."""
    extra, drawn = draw(st.integers(0, 4)), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    counts: Sequence[int] = draw(st.lists(st.integers(0, 3), max_size=4))
    texts = st.binary(min_size=1, max_size=5).map(lambda one: bytes(48 + b % 64 for b in one))
    found = []
    for n in counts:
        masks = [draw(texts) for _ in range(n)] if drawn else []
        found.append(
            Boxes(
                rng.random((n, 4), np.float32),
                rng.random(n, np.float32),
                rng.integers(0, 9, n),
                rng.random((n, extra), np.float32),
                np.array([None, *masks], np.object_)[1:],
                draw(st.tuples(st.integers(0, 99), st.integers(0, 99))),
            )
        )
    return found


@given(findings())
def test_what_is_stored_comes_back(found: list[Boxes]) -> None:
    arrays = stack_boxes(found)
    assert all(array.dtype != np.object_ for array in arrays.values())
    back = unstack_boxes(arrays)
    assert len(back) == len(found)
    for a, b in zip(found, back, strict=True):
        np.testing.assert_array_equal(a.xyxy, b.xyxy)
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.classes, b.classes)
        assert a.extra.tobytes() == b.extra.tobytes()
        assert (a.masks.tolist(), a.size) == (b.masks.tolist(), b.size)
