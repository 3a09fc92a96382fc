"""Labels of drawn pictures for every task, against the pixels that the objects cover."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from yqc.data import Data, Labelling, load_data, scene_labels, scenes, shapes
from yqc.data.outlines import Mask, draw_polygons
from yqc.data.sets import BoxEntry
from yqc.errors import OutputError

SCENES = [scenes.draw(4, "val", index) for index in range(12)]
MASKS = [scene.owner == i for scene in SCENES for i in range(len(scene.classes))]


def runs(mask: NDArray[np.bool_]) -> Mask:
    found: Mask = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return found


def filled(mask: NDArray[np.bool_]) -> Mask:
    return draw_polygons([scene_labels.trace_outline(mask).ravel().tolist()], mask.shape[::-1])


def test_an_outline_gives_exactly_the_pixels_of_its_object() -> None:
    assert len(MASKS) > 30
    for mask in MASKS:
        assert filled(mask) == runs(mask)


def test_holes_parts_and_corners_that_touch_are_one_outline() -> None:
    mask = np.zeros((12, 12), bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:6] = False  # a hole
    mask[8, 8] = True  # touches by a corner
    mask[10, 2:5] = True  # apart
    assert filled(mask) == runs(mask)


def test_extreme_points_by_hand() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2, 3:6] = mask[3, 1:8] = mask[4, 4] = True
    want = [[4.5, 2], [8, 3.5], [4.5, 5], [1, 3.5]]
    assert scene_labels.extreme_points(mask).tolist() == want


def test_the_tight_rectangle_is_turned_and_holds_the_object() -> None:
    rows, columns = np.mgrid[:60, :60]
    u, v = (columns - 30) + (rows - 30), (columns - 30) - (rows - 30)
    mask = (np.abs(u) < 40) & (np.abs(v) < 12)  # turned by 45 degrees, 57 x 17 pixels
    corners = scene_labels.tight_corners(mask)
    sides = np.hypot(*(np.roll(corners, -1, 0) - corners).T)
    assert sorted(sides) == pytest.approx([17, 17, 56, 56], abs=2)
    assert abs(np.diff(corners, axis=0)[0]).min() == pytest.approx(sides[0] / 2**0.5)


def test_rectangles_lie_in_the_picture_around_all_pixels() -> None:
    turned = 0
    for mask in MASKS:
        corners = scene_labels.tight_corners(mask)
        assert corners.min() > -1e-6
        assert corners.max() < scenes.SIZE + 1e-6
        sides = np.roll(corners, -1, 0) - corners
        rows, columns = np.nonzero(mask)
        middles = np.stack((columns + 0.5, rows + 0.5), 1)
        away = middles[:, None] - corners
        assert (sides[:, 0] * away[..., 1] - sides[:, 1] * away[..., 0] > 0).all()
        turned += bool((np.abs(sides).min(1) > 1).all())
    assert turned > len(MASKS) / 3


def test_crops_show_their_object_and_are_square() -> None:
    for scene in SCENES:
        for crop, (x0, y0, x1, y1) in zip(scene_labels.cut_crops(scene), scene.boxes, strict=True):
            side = crop.shape[0]
            assert crop.shape == (side, side, 3)
            assert max(x1 - x0, y1 - y0) <= side <= scenes.SIZE
            inner = scene.pixels[y0:y1, x0:x1]
            found = [
                np.array_equal(crop[y : y + len(inner), x : x + inner.shape[1]], inner)
                for y in range(side - len(inner) + 1)
                for x in range(side - inner.shape[1] + 1)
            ]
            assert any(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scenes") / "shapes"
    return shapes.write_shapes(place, train=2, val=3, seed=5, tasks=True).parent


def objects(data: Data) -> list[BoxEntry]:
    assert data.val.annotations is not None
    return [one for one in data.val.annotations["annotations"] if one["image_id"] == 1]


def test_each_task_has_its_data_set_of_the_same_pictures(folder: Path) -> None:
    first = (folder / "images" / "val" / "000000.png").read_bytes()
    scene = scenes.draw(5, "val", 0)
    masks = [scene.owner == i for i in range(len(scene.classes))]

    segment = load_data(folder / "segment.yaml", labelling=Labelling("segment"), strict=True)
    assert segment.val.images[0].read_bytes() == first
    for one, mask in zip(objects(segment), masks, strict=True):
        assert one["segmentation"] == runs(mask)

    pose = load_data(folder / "pose.yaml", labelling=Labelling("pose", 4), strict=True)
    for one, mask in zip(objects(pose), masks, strict=True):
        points = np.reshape(one["keypoints"], (4, 3))[:, :2]
        np.testing.assert_allclose(points, scene_labels.extreme_points(mask), atol=1e-3)

    obb = load_data(folder / "obb.yaml", labelling=Labelling("obb"), strict=True)
    for one, mask in zip(objects(obb), masks, strict=True):
        corners = scene_labels.tight_corners(mask)
        np.testing.assert_allclose(one["rotated"][:2], corners.mean(0), atol=1e-2)

    crops = load_data(folder / "classify", labelling=Labelling("classify"))
    assert crops.names == tuple(sorted(scenes.NAMES))
    counts = [len(scenes.draw(5, "val", i).classes) for i in range(3)]
    assert len(crops.val.images) == sum(counts)


def test_a_data_set_of_boxes_alone_is_not_taken_for_one_of_all_tasks(tmp_path: Path) -> None:
    place = tmp_path / "shapes"
    shapes.write_shapes(place, train=1, val=1)
    with pytest.raises(OutputError, match="holds 0 files of 1; remove"):
        shapes.write_shapes(place, train=1, val=1, tasks=True)


def test_a_copy_stands_in_for_a_hard_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    place = shapes.write_shapes(tmp_path / "shapes", train=1, val=1, tasks=True).parent
    with Image.open(place / "obb" / "images" / "val" / "000000.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), scenes.draw(0, "val", 0).pixels)
