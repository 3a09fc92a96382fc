"""Masks and keypoints of COCO files: each form, turned pictures, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as rle

from yqc.data import Data, Labelling, load_data, mask_pixels
from yqc.data.outlines import compress_runs, draw_rectangle, read_runs, transpose_mask
from yqc.data.sets import BoxEntry
from yqc.errors import DataError

Write = Callable[..., Path]
SEGMENT, POSE = Labelling("segment"), Labelling("pose", 2)
WIDTH, HEIGHT = 40, 30
PIXELS = np.zeros((HEIGHT, WIDTH), np.uint8)
PIXELS[6:18, 10:30] = 1
PIXELS[10:12, 15:20] = 0
LEAF = [10.0, 6.0, 30.0, 6.0, 30.0, 18.0, 10.0, 18.0]


def runs_of(pixels: Any) -> list[int]:
    """Lengths of runs down the columns, outside first, counted one by one."""
    found, value = [0], 0
    for one in pixels.T.ravel().tolist():
        if one != value:
            found.append(0)
            value = one
        found[-1] += 1
    return found


@pytest.fixture
def coco(tmp_path: Path, picture: Write) -> Write:
    """Writes a data set of two pictures, 40 x 30; annotations are of the second, to evaluate on."""

    def write(*annotations: dict[str, Any], orientation: int = 0, **stated: int) -> Path:
        for i in (1, 2):
            picture(f"{i}.png")
        if orientation:
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "2.png", exif=exif)
        path = tmp_path / "instances.json"
        usual = {"image_id": 2, "category_id": 5, "bbox": [10, 6, 20, 12], "area": 200}
        tables = {
            "images": [{"id": i, "file_name": f"{i}.png", **stated} for i in (1, 2)],
            "annotations": [usual | {"id": i} | one for i, one in enumerate(annotations)],
            "categories": [{"id": 5, "name": "leaf"}],
        }
        path.write_text(json.dumps(tables))
        return path

    return write


def entries(data: Data) -> list[BoxEntry]:
    assert data.val.annotations is not None
    return data.val.annotations["annotations"]


def compressed(pixels: Any) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(pixels))
    return {"size": code["size"], "counts": code["counts"].decode()}


FORMS = [
    compressed(PIXELS),
    {"size": [HEIGHT, WIDTH], "counts": runs_of(PIXELS)},
]


@pytest.mark.parametrize("form", FORMS, ids=["compressed", "plain"])
def test_run_lengths_are_masks(coco: Write, form: dict[str, Any]) -> None:
    (entry,) = entries(load_data(coco({"segmentation": form}), labelling=SEGMENT))
    np.testing.assert_array_equal(mask_pixels(entry["segmentation"]), PIXELS)
    assert (entry["area"], entry["bbox"]) == (200, [10, 6, 20, 12])


def test_polygons_are_one_mask_of_all_parts(coco: Write) -> None:
    other = [32.0, 20.0, 36.0, 20.0, 36.0, 26.0, 32.0, 26.0]
    (entry,) = entries(load_data(coco({"segmentation": [LEAF, other]}), labelling=SEGMENT))
    want = np.zeros((HEIGHT, WIDTH), np.uint8)
    want[6:18, 10:30] = want[20:26, 32:36] = 1
    np.testing.assert_array_equal(mask_pixels(entry["segmentation"]), want)


def test_a_polygon_is_cut_at_the_edge_of_its_picture(coco: Write) -> None:
    beyond = [30.0, 20.0, 60.0, 20.0, 60.0, 50.0, 30.0, 50.0]
    (entry,) = entries(load_data(coco({"segmentation": [beyond]}), labelling=SEGMENT))
    pixels = mask_pixels(entry["segmentation"])
    assert pixels[20:, 30:].all()
    assert pixels.sum() == 100


def test_an_object_without_outline_is_a_mask_of_its_box(coco: Write) -> None:
    spec = coco({"segmentation": [LEAF]}, {"segmentation": [], "bbox": [1, 2, 3, 4]})
    data = load_data(spec, labelling=SEGMENT)
    pixels = mask_pixels(entries(data)[1]["segmentation"])
    assert pixels[2:6, 1:4].all()
    assert pixels.sum() == 12
    (said,) = data.warnings
    assert f"1 of the 2 annotations of {spec} are boxes without outlines" in said


@pytest.mark.parametrize("found", [None, [], {}])
def test_boxes_alone_are_boxes_and_it_is_said(coco: Write, found: Any) -> None:
    spec = coco({"segmentation": found})
    data = load_data(spec, labelling=SEGMENT)
    assert "segmentation" not in entries(data)[0]
    (said,) = data.warnings
    assert said == (
        f"the annotations of {spec} are boxes without outlines: the boxes of this model are "
        "measured on them, and its masks are not"
    )


def test_a_detector_reads_no_masks(coco: Write) -> None:
    (entry,) = entries(load_data(coco({"segmentation": "mask.png"})))
    assert "segmentation" not in entry


def test_keypoints_are_read_and_counted(coco: Write) -> None:
    data = load_data(
        coco({"keypoints": [1, 2, 2, 3, 4, 0]}, {"bbox": [1, 1, 2, 2]}), labelling=POSE
    )
    first, second = entries(data)
    assert (first["keypoints"], first["num_keypoints"]) == ([1, 2, 2, 3, 4, 0], 1)
    assert first["area"] == 200
    assert "keypoints" not in second


SWAPPED: dict[int, Callable[[Any], Any]] = {
    5: lambda stored: stored.T,
    6: lambda stored: stored[::-1].T,
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: stored[:, ::-1].T,
}
"""EXIF orientation -> upright pixels, where width and height show which pixels are described."""


@pytest.mark.parametrize("orientation", SWAPPED)
@pytest.mark.parametrize("form", [[LEAF], FORMS[0]], ids=["polygon", "runs"])
def test_masks_turn_with_the_picture(coco: Write, orientation: int, form: Any) -> None:
    spec = coco({"segmentation": form}, orientation=orientation, width=WIDTH, height=HEIGHT)
    (entry,) = entries(load_data(spec, labelling=SEGMENT))
    stored = PIXELS.copy()
    stored[6:18, 10:30] |= isinstance(form, list)
    want = SWAPPED[orientation](stored)
    np.testing.assert_array_equal(mask_pixels(entry["segmentation"]), want)
    x, y, w, h = (round(v) for v in entry["bbox"])
    assert want[y : y + h, x : x + w].sum() == want.sum()


@pytest.mark.parametrize("orientation", SWAPPED)
def test_keypoints_turn_with_the_picture(coco: Write, orientation: int) -> None:
    points = [10.5, 6.5, 2, 0, 0, 0]
    spec = coco({"keypoints": points}, orientation=orientation, width=WIDTH, height=HEIGHT)
    (entry,) = entries(load_data(spec, labelling=POSE))
    stored = np.zeros_like(PIXELS)
    stored[6, 10] = 1
    ((row, column),) = np.argwhere(SWAPPED[orientation](stored))
    assert entry["keypoints"] == [column + 0.5, row + 0.5, 2, 0, 0, 0]


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_what_describes_the_upright_picture_stays(coco: Write, orientation: int) -> None:
    stated = (HEIGHT, WIDTH) if orientation in SWAPPED else (WIDTH, HEIGHT)
    spec = coco(
        {"segmentation": [LEAF]}, orientation=orientation, width=stated[0], height=stated[1]
    )
    (entry,) = entries(load_data(spec, labelling=SEGMENT))
    assert entry["segmentation"]["size"] == [*stated[::-1]]
    assert mask_pixels(entry["segmentation"])[6:18, 10:30].all()


@pytest.mark.parametrize(
    ("labelling", "annotation", "complaint"),
    [
        (SEGMENT, {"segmentation": "a.png"}, "names a file; bitmaps are not read"),
        (SEGMENT, {"segmentation": 7}, "neither polygons nor run lengths"),
        (SEGMENT, {"segmentation": [[1, 1, 2, 2]]}, "has 4 numbers; it has x and y of three"),
        (SEGMENT, {"segmentation": [LEAF, []]}, "has 0 numbers"),
        (SEGMENT, {"segmentation": [[*LEAF, 1]]}, "has 9 numbers"),
        (SEGMENT, {"segmentation": LEAF}, "is no list of polygons"),
        (SEGMENT, {"segmentation": [[*LEAF, 1, "x"]]}, "is no list of polygons"),
        (SEGMENT, {"segmentation": [[*LEAF, 1, float("nan")]]}, "is no list of polygons"),
        (SEGMENT, {"segmentation": [[*LEAF, 1, 1e12]]}, "reaches 1e+12 pixels far"),
        (SEGMENT, {"segmentation": {"size": [30, 40], "counts": [1199]}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [30, 40], "counts": [1201, -1]}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [30, 40], "counts": [1200.0]}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [30], "counts": [1200]}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [30, 40]}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [30, 40], "counts": "0"}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [30, 40], "counts": ""}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [30, 40], "counts": "oooo"}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [30, 40], "counts": "\u00e9"}}, "are damaged"),
        (SEGMENT, {"segmentation": {"size": [10, 10], "counts": [100]}}, "of 10 x 10 pixels"),
        (POSE, {"keypoints": [1, 2, 2]}, "it has 1 keypoints, and the model predicts 2"),
        (POSE, {"keypoints": [1, 2, 2, 3]}, "no list of x, y, visibility"),
        (POSE, {"keypoints": [1, 2, 2, 3, float("nan"), 2]}, "no list of x, y, visibility"),
        (POSE, {"keypoints": "x"}, "no list of x, y, visibility"),
        (POSE, {"keypoints": {"0": 1}}, "no list of x, y, visibility"),
    ],
)
@pytest.mark.parametrize("stated", [{}, {"width": WIDTH, "height": HEIGHT}])
def test_what_is_malformed_is_one_line_that_says_where(
    coco: Write,
    labelling: Labelling,
    annotation: dict[str, Any],
    complaint: str,
    stated: dict[str, int],
) -> None:
    fine = {"segmentation": [LEAF], "keypoints": [1, 1, 2, 1, 1, 2]}
    spec = coco(fine, {"bbox": [1, 1, 2, 2]} | annotation, **stated)
    with pytest.raises(DataError) as e:
        load_data(spec, labelling=labelling)
    text = str(e.value)
    assert text.startswith((f"{spec}: annotation 1: ", f"{spec}: an annotation of 2.png: "))
    assert complaint in text
    assert "\n" not in text


def test_a_file_without_keypoints_is_refused_for_a_pose_model(coco: Write) -> None:
    spec = coco({"segmentation": [LEAF]})
    with pytest.raises(DataError) as e:
        load_data(spec, labelling=POSE)
    assert str(e.value) == f"{spec} has no keypoints, and this model predicts them."


def test_oriented_boxes_are_not_in_such_files(coco: Write) -> None:
    with pytest.raises(DataError, match=r"which has no oriented boxes; give a data YAML"):
        load_data(coco({}), labelling=Labelling("obb"))


# Run lengths -----------------------------------------------------------------------------------

masks = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)
)


@given(masks)
def test_pixels_survive_the_run_lengths(pixels: Any) -> None:
    code = rle.encode(np.asfortranarray(pixels))
    np.testing.assert_array_equal(mask_pixels(code), pixels)
    assert compress_runs(runs_of(pixels), pixels.shape)["counts"] == code["counts"]


LONGEST = 2**28
"""Of a run: Pillow opens no image of more pixels, and pycocotools writes beyond its memory from
2**29 on."""


@given(st.lists(st.integers(0, LONGEST), min_size=1))
def test_compressed_run_lengths_are_read(runs: list[int]) -> None:
    code = compress_runs(runs, (1, sum(runs)))
    found = read_runs(code["counts"])
    assert found is not None
    assert found.tolist() == runs


@given(st.binary())
def test_damaged_run_lengths_are_none_or_numbers(counts: bytes) -> None:
    found = read_runs(counts)
    assert found is None or len(found) > 0


@given(
    st.tuples(*[st.integers(-20, 60)] * 2, *[st.integers(0, 90)] * 2),
)
def test_a_box_is_drawn_where_it_lies_within_the_picture(box: tuple[int, int, int, int]) -> None:
    x, y, w, h = box
    want = np.zeros((HEIGHT, WIDTH), np.uint8)
    want[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = 1
    np.testing.assert_array_equal(mask_pixels(draw_rectangle(box, (WIDTH, HEIGHT))), want)


def test_a_box_of_any_size_is_drawn_at_once() -> None:
    mask = draw_rectangle((-1e15, -1e15, 3e15, 3e15), (WIDTH, HEIGHT))
    assert mask_pixels(mask).all()


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_masks_turn_as_pictures_do(turn: Image.Transpose) -> None:
    code = rle.encode(np.asfortranarray(PIXELS))
    want = np.asarray(Image.fromarray(PIXELS).transpose(turn))
    np.testing.assert_array_equal(mask_pixels(transpose_mask(code, turn)), want)
