"""YOLO labels of every task: what a line becomes in the picture, and what is refused."""

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from yqc.data import Data, Labelling, load_data, mask_pixels
from yqc.data.label_lines import LabelKind
from yqc.data.labels import KEYPOINT_AREA
from yqc.data.outlines import draw_polygons, is_quadrilateral, mask_area, smallest_rectangle
from yqc.data.sets import BoxEntry
from yqc.errors import DataError

Write = Callable[..., Path]
SEGMENT, OBB = Labelling("segment"), Labelling("obb")


def pose(count: int) -> Labelling:
    return Labelling("pose", count)


def entries(data: Data) -> list[BoxEntry]:
    assert data.val.annotations is not None
    return data.val.annotations["annotations"]


def pixels_of(entry: BoxEntry) -> Any:
    return mask_pixels(entry["segmentation"])


# Segmentation: an outline is a mask at the size of the picture ---------------------------------


def test_an_outline_is_a_mask_of_the_picture(yolo: Write) -> None:
    data = load_data(
        yolo({"a": "1 0.25 0.2 0.75 0.2 0.75 0.6 0.25 0.6\n", "b": ""}), labelling=SEGMENT
    )
    (entry,) = entries(data)
    want = np.zeros((30, 40), np.uint8)
    want[6:18, 10:30] = 1
    np.testing.assert_array_equal(pixels_of(entry), want)
    assert (entry["category_id"], entry["area"]) == (2, 240)
    assert entry["bbox"] == pytest.approx([10, 6, 20, 12])
    assert data.warnings == ()


def test_a_mask_is_what_pycocotools_draws(yolo: Write) -> None:
    outline = [0.1, 0.1, 0.9, 0.3, 0.6, 0.9, 0.2, 0.6]
    line = " ".join(map(str, outline))
    (entry,) = entries(load_data(yolo({"a": f"0 {line}\n", "b": ""}), labelling=SEGMENT))
    corners = (np.reshape(outline, (-1, 2)) * (40, 30)).ravel().tolist()
    (want,) = rle.frPyObjects([corners], 30, 40)
    assert entry["segmentation"]["counts"] == want["counts"]
    assert entry["area"] == rle.area(want)


@pytest.mark.parametrize(
    "text", ["0 0.5 0.5 0.5 0.2\n", "0 0.2 0.4 0.8 0.4 0.8 0.6\n0 .5 .5 .5 .2\n"]
)
def test_a_box_among_outlines_counts_as_a_mask_of_itself(yolo: Write, text: str) -> None:
    spec = yolo({"a": text, "b": "0 0.2 0.4 0.8 0.4 0.8 0.6 0.2 0.6\n"})
    data = load_data(spec, labelling=SEGMENT)
    boxed = entries(data)[text.count("\n") - 1]
    want = np.zeros((30, 40), np.uint8)
    want[12:18, 10:30] = 1
    np.testing.assert_array_equal(pixels_of(boxed), want)
    (said,) = data.warnings
    count = text.count("\n") + 1
    assert f"1 of the {count} labels of 'val' of {spec} are boxes without outlines" in said


def test_boxes_alone_are_boxes_and_it_is_said(yolo: Write) -> None:
    spec = yolo({"a": "0 0.5 0.5 0.5 0.2\n", "b": "1 0.5 0.5 0.2 0.2\n"})
    data = load_data(spec, labelling=SEGMENT)
    assert not any("segmentation" in one for one in entries(data))
    (said,) = data.warnings
    assert said == (
        f"the labels of 'val' of {spec} are boxes without outlines: the boxes of this model are "
        "measured on them, and its masks are not"
    )


def test_pictures_without_objects_need_no_outline(yolo: Write) -> None:
    data = load_data(yolo({"a": "", "b": "\n"}), labelling=SEGMENT)
    assert (entries(data), data.warnings) == ([], ())


def test_an_outline_is_relative_to_the_upright_picture(yolo: Write, tmp_path: Path) -> None:
    spec = yolo({"a": "0 0.25 0.2 0.75 0.2 0.75 0.6 0.25 0.6\n", "b": ""})
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 40)).save(tmp_path / "images/val/a.png", exif=exif)
    (entry,) = entries(load_data(spec, labelling=SEGMENT))
    assert entry["segmentation"]["size"] == [30, 40]
    assert pixels_of(entry)[6:18, 10:30].all()


def test_an_outline_of_many_points_takes_no_time(yolo: Write) -> None:
    turns = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    points = np.stack([0.5 + 0.4 * np.cos(turns), 0.5 + 0.4 * np.sin(turns)], 1)
    line = " ".join(f"{v:.6f}" for v in points.ravel())
    (entry,) = entries(load_data(yolo({"a": f"0 {line}\n", "b": ""}), labelling=SEGMENT))
    assert entry["area"] == pytest.approx(math.pi * 16 * 12, rel=0.01)


# Keypoints -------------------------------------------------------------------------------------


def test_keypoints_of_three_numbers(yolo: Write) -> None:
    line = "1 0.5 0.5 0.5 0.4  0.25 0.5 2  0.5 0.1 1  0 0 0\n"
    data = load_data(yolo({"a": line, "b": ""}, kpt_shape="[3, 3]"), labelling=pose(3))
    (entry,) = entries(data)
    assert entry["keypoints"] == pytest.approx([10, 15, 2, 20, 3, 1, 0, 0, 0])
    assert entry["num_keypoints"] == 2
    assert entry["bbox"] == pytest.approx([10, 9, 20, 12])
    assert entry["area"] == pytest.approx(KEYPOINT_AREA * 240)


def test_keypoints_of_two_numbers_are_seen_unless_they_are_zero(yolo: Write) -> None:
    line = "0 0.5 0.5 0.5 0.4  0.25 0.5  0 0  0 0.5\n"
    data = load_data(yolo({"a": line, "b": ""}, kpt_shape="[3, 2]"), labelling=pose(3))
    (entry,) = entries(data)
    assert entry["keypoints"] == pytest.approx([10, 15, 2, 0, 0, 0, 0, 15, 2])
    assert entry["num_keypoints"] == 2


def test_a_keypoint_that_is_not_labelled_may_lie_anywhere(yolo: Write) -> None:
    line = "0 0.5 0.5 0.5 0.4  0.25 0.5 2  9 9 0\n"
    data = load_data(yolo({"a": line, "b": ""}, kpt_shape="[2, 3]"), labelling=pose(2))
    assert entries(data)[0]["keypoints"] == pytest.approx([10, 15, 2, 0, 0, 0])


def test_a_detector_takes_the_boxes_of_keypoint_labels(yolo: Write) -> None:
    line = "0 0.5 0.5 0.5 0.4  0.25 0.5 2  0.5 0.1 1\n"
    data = load_data(yolo({"a": line, "b": ""}, kpt_shape="[2, 3]"))
    (entry,) = entries(data)
    assert "keypoints" not in entry
    assert entry["bbox"] == pytest.approx([10, 9, 20, 12])
    assert entry["area"] == pytest.approx(240)


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ("", "has no 'kpt_shape': a data set of keypoints says kpt_shape: [K, 2] or [K, 3]"),
        ("[4, 3]", "has 4 keypoints an object (kpt_shape), and the model predicts 2"),
        ("[2]", "'kpt_shape' must be [K, 2] or [K, 3], not [2]"),
        ("[2, 4]", "'kpt_shape' must be"),
        ("[0, 3]", "'kpt_shape' must be"),
        ("[2.5, 3]", "'kpt_shape' must be"),
        ("[true, 3]", "'kpt_shape' must be"),
        ("two", "'kpt_shape' must be"),
    ],
)
def test_the_keypoints_must_be_those_of_the_model(yolo: Write, shape: str, complaint: str) -> None:
    spec = yolo({"a": "0 .5 .5 .5 .4 .2 .5 2 .5 .1 1\n", "b": ""}, kpt_shape=shape)
    with pytest.raises(DataError) as e:
        load_data(spec, labelling=pose(2))
    assert str(e.value).startswith(str(spec))
    assert complaint in str(e.value)


# Oriented boxes --------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, math.pi / 4])
def test_four_corners_are_a_turned_rectangle(yolo: Write, angle: float) -> None:
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [
        (20 + x * cos - y * sin, 15 + x * sin + y * cos)
        for x, y in ((-8, -3), (8, -3), (8, 3), (-8, 3))
    ]
    line = " ".join(f"{x / 40} {y / 30}" for x, y in corners)
    (entry,) = entries(load_data(yolo({"a": f"1 {line}\n", "b": ""}), labelling=OBB))
    x, y, width, height, turn = entry["rotated"]
    assert (x, y) == pytest.approx((20, 15))
    assert sorted((width, height)) == pytest.approx([6, 16])
    long = turn if width > height else turn + math.pi / 2
    assert math.sin(long - angle) == pytest.approx(0, abs=1e-6)
    assert entry["area"] == pytest.approx(entry["bbox"][2] * entry["bbox"][3])


def test_corners_of_no_rectangle_become_the_smallest_around_them() -> None:
    points = np.array([[0.0, 0.0], [10.0, 0.0], [9.0, 4.0], [0.0, 4.0]])
    x, y, width, height, turn = smallest_rectangle(points)
    assert (x, y) == pytest.approx((5, 2))
    assert width * height == pytest.approx(40)
    assert math.sin(2 * turn) == pytest.approx(0)


numbers = st.floats(-100, 100)


@given(st.lists(st.tuples(numbers, numbers), min_size=4, max_size=4))
def test_the_rectangle_holds_its_points(points: list[tuple[float, float]]) -> None:
    at = np.array(points)
    x, y, width, height, turn = smallest_rectangle(at)
    cos, sin = math.cos(turn), math.sin(turn)
    shift = at - (x, y)
    along, across = shift @ (cos, sin), shift @ (-sin, cos)
    assert np.abs(along).max() <= width / 2 + 1e-6
    assert np.abs(across).max() <= height / 2 + 1e-6
    assert width * height <= np.prod(np.ptp(at, 0)) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("corners", "fits"),
    [
        ([(0, 0), (4, 0), (4, 2), (0, 2)], True),
        ([(0, 2), (4, 2), (4, 0), (0, 0)], True),
        ([(0, 0), (4, 1), (5, 4), (1, 2)], True),
        ([(0, 0), (4, 2), (4, 0), (0, 2)], False),  # crossing
        ([(0, 0), (4, 0), (1, 1), (0, 4)], False),  # an arrow
        ([(0, 0), (1, 1), (2, 2), (3, 3)], False),
        ([(0, 0), (4, 0), (4, 0), (0, 2)], False),
        ([(0, 0)] * 4, False),
    ],
)
def test_a_quadrilateral_goes_around_an_area(
    corners: list[tuple[float, float]], fits: bool
) -> None:
    assert is_quadrilateral(np.array(corners, float)) is fits


# Lines that are refused ------------------------------------------------------------------------

REFUSED = [
    (SEGMENT, "0 .1 .1 .9 .1 .5", "6 numbers; a label is class and outline"),
    (SEGMENT, "0 .1 .1 .9 .1 .5 .9 .2", "8 numbers; a label is class and outline"),
    (SEGMENT, "0 .1 .1", "3 numbers; a label is class and outline"),
    (SEGMENT, "0 .1 .1 .9 .1 .5 1.2", "a coordinate outside 0..1"),
    (SEGMENT, "0 .1 .1 .9 .1 .5 nan", "a coordinate outside 0..1"),
    (SEGMENT, "0 .1 .1 .9 .1 .5 inf", "a coordinate outside 0..1"),
    (SEGMENT, "0 12 10 90 10 50 90", "a coordinate outside 0..1"),
    (SEGMENT, "0 .1 .1 .9 .1 .5 x", "is no label"),
    (SEGMENT, "9 .1 .1 .9 .1 .5 .9", "class 9, and the classes are 0 to 1"),
    (pose(2), "0 .5 .5 .5 .5", "5 numbers; a label here is class, x, y, width, height and 2 key"),
    (pose(2), "0 .5 .5 .5 .5 .1 .1 2", "8 numbers"),
    (pose(2), "0 .5 .5 .5 .5 .1 .1 .2 .2", "9 numbers"),
    (pose(2), "0 .5 .5 .5 .5 .1 .1 2 .2 1.3 2", "a coordinate outside 0..1"),
    (pose(2), "0 .5 .5 .5 .5 .1 -.3 2 .2 .2 2", "a coordinate outside 0..1"),
    (pose(2), "0 .5 .5 .5 .5 .1 nan 2 .2 .2 2", "a number that is not finite"),
    (pose(2), "0 .5 .5 .5 .5 .1 nan 0 .2 .2 2", "a number that is not finite"),
    (pose(2), "0 .5 .5 .5 .5 .1 .1 nan .2 .2 2", "a number that is not finite"),
    (pose(2), "0 .5 .5 -.005 .5 .1 .1 2 .2 .2 2", "a negative width or height"),
    (OBB, "0 .5 .5 .5 .5", "5 numbers; a label of an oriented box is class and four corners"),
    (OBB, "0 .5 .5 .5 .5 .3", "6 numbers; a label of an oriented box"),
    (OBB, "0 .1 .1 .5 .1 .5 .5", "7 numbers; a label of an oriented box"),
    (OBB, "0 .1 .1 .5 .5 .5 .1 .1 .5", "four corners that are no quadrilateral"),
    (OBB, "0 .1 .1 .1 .1 .1 .1 .1 .1", "four corners that are no quadrilateral"),
    (OBB, "0 .1 .1 .5 .1 .5 .5 .1 7", "a coordinate outside 0..1"),
]


@pytest.mark.parametrize(("labelling", "line", "complaint"), REFUSED)
def test_a_malformed_line_is_named_by_file_and_line(
    yolo: Write, tmp_path: Path, labelling: Labelling, line: str, complaint: str
) -> None:
    shape = "[2, 3]" if labelling.task == "pose" else ""
    spec = yolo({"a": "", "b": f"\n{line}\n"}, kpt_shape=shape)
    with pytest.raises(DataError) as e:
        load_data(spec, strict=True, labelling=labelling)
    assert str(e.value).startswith(f"{tmp_path / 'labels/val/b.txt'}:2 ")
    assert complaint in str(e.value)
    assert "\n" not in str(e.value)
    data = load_data(spec, labelling=labelling)
    assert [path.name for path in data.val.images] == ["a.png"]
    assert str(e.value).rstrip(".") in data.warnings[0]


@pytest.mark.parametrize(
    "line",
    ["0 .5 .5 .5 .5 -.3 .2 .2 .2", "0 .5 .5 .5 .5 nan .2 .2 .2", "0 .5 .5 .5 .5 0 1.2 .2 .2"],
)
def test_keypoints_of_two_numbers_outside_are_refused(yolo: Write, line: str) -> None:
    spec = yolo({"a": "", "b": line}, kpt_shape="[2, 2]")
    with pytest.raises(DataError, match=r"b\.txt:1 has a (coordinate outside|number that is not)"):
        load_data(spec, strict=True, labelling=pose(2))


def test_corners_are_read_where_the_yaml_speaks_of_keypoints(yolo: Write) -> None:
    line = "0 .25 .2 .75 .2 .75 .6 .25 .6\n"
    spec = yolo({"a": line, "b": ""}, kpt_shape="[2, 2]")
    (entry,) = entries(load_data(spec, labelling=OBB))
    assert entry["rotated"][:2] == pytest.approx([20, 12])


@given(
    st.sampled_from([SEGMENT, OBB, pose(2), Labelling()]),
    st.lists(st.sampled_from(["0", "1", ".5", "-.2", "nan", "inf", "1e999", "2", "x", "\u0661"])),
)
def test_any_words_are_finite_numbers_or_an_error(labelling: Labelling, words: list[str]) -> None:
    kind = LabelKind(2, labelling.task, (2, 3) if labelling.keypoints else None)
    with suppress(DataError):
        label = kind.parse("f.txt:1", words)
        assert all(map(math.isfinite, (*label.box, *label.outline, *label.keypoints)))


@pytest.mark.parametrize("place", ["labels/val/a.png", "masks/val/a.png"])
def test_bitmaps_are_refused_and_what_to_write_is_said(
    yolo: Write, tmp_path: Path, place: str
) -> None:
    spec = yolo({"a": ""})
    (tmp_path / "labels/val/a.txt").unlink()
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 30)).save(path)
    with pytest.raises(DataError, match=r"are bitmaps, such as .*cv2.findContours") as e:
        load_data(spec, labelling=SEGMENT)
    assert str(path) in str(e.value)


def test_what_the_page_says_of_bitmaps_makes_labels(
    yolo: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines, run: the outline goes through the outermost pixels' centres."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    pixels = np.zeros((30, 40), np.uint8)
    pixels[6:18, 10:30] = pixels[20:26, 32:38] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    spec = yolo()
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102  # our own page
    (tmp_path / "labels/image.txt").rename(tmp_path / "labels/val/a.txt")
    found = sorted(entry["area"] for entry in entries(load_data(spec, labelling=SEGMENT)))
    assert found == [5 * 5, 11 * 19]


# Arithmetic of outlines ------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(0, 0, 4, 3), (2, 1, 5, 6), (0, 0, 12, 10)])
def test_the_area_of_a_mask_is_its_pixels(box: tuple[int, int, int, int]) -> None:
    x, y, w, h = box
    mask = draw_polygons([(x, y, x + w, y, x + w, y + h, x, y + h)], (12, 10))
    assert mask_area(mask) == w * h == mask_pixels(mask).sum()
    assert mask["size"] == [10, 12]


def test_parts_of_an_object_are_one_mask() -> None:
    parts = [(0, 0, 4, 0, 4, 4, 0, 4), (2, 2, 6, 2, 6, 6, 2, 6)]
    assert mask_area(draw_polygons(parts, (12, 10))) == 16 + 16 - 4
