"""The shapes data set: what is drawn, and its files."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from yqc.data import load_data, scenes, shapes
from yqc.errors import DataError, OutputError
from yqc.progress import Advance, Silent

GOLDEN = [
    ("star", 0, 0, 121, 97),
    ("square", 66, 102, 108, 142),
    ("star", 70, 7, 104, 36),
    ("cross", 33, 80, 88, 141),
    ("star", 107, 77, 157, 118),
    ("circle", 58, 109, 83, 132),
]
GOLDEN_HASH = "d00e326b95f529ff"


def test_draws_the_same_pictures_everywhere() -> None:
    scene = scenes.draw(0, "train", 3)
    objects = zip(scene.classes, scene.boxes, strict=True)
    assert [(scenes.NAMES[k], *map(int, b)) for k, b in objects] == GOLDEN
    assert hashlib.sha256(scene.pixels.tobytes()).hexdigest()[:16] == GOLDEN_HASH


def test_seed_split_and_index_each_change_the_picture() -> None:
    keys = [(0, "val", 0), (1, "val", 0), (0, "train", 0), (0, "val", 1)]
    assert len({scenes.draw(*key).pixels.tobytes() for key in keys}) == len(keys)


def test_boxes_are_tight_around_what_is_visible() -> None:
    seen = 0
    for index in range(40):
        scene = scenes.draw(7, "val", index)
        assert scene.owner.max() == len(scene.classes) - 1
        for number, (x0, y0, x1, y1) in enumerate(scene.boxes):
            rows, columns = np.nonzero(scene.owner == number)
            assert (columns.min(), rows.min()) == (x0, y0)
            assert (columns.max() + 1, rows.max() + 1) == (x1, y1)
            assert min(x1 - x0, y1 - y0) >= scenes.SHORTEST
            seen += 1
    assert seen > 100


def test_the_drawing_agrees_with_the_boxes() -> None:
    """Pixels that an object owns differ from what the same place looks like around the box."""
    contrast = []
    for index in range(40):
        scene = scenes.draw(3, "train", index)
        for number, (x0, y0, x1, y1) in enumerate(scene.boxes):
            mine = scene.owner == number
            near = np.zeros_like(mine)
            near[max(y0 - 3, 0) : y1 + 3, max(x0 - 3, 0) : x1 + 3] = True
            around = near & (scene.owner == -1)
            if around.any():
                apart = scene.pixels[mine].mean(0) - scene.pixels[around].mean(0)
                contrast.append(np.abs(apart).sum())
    assert np.percentile(contrast, 5) > 60


@pytest.mark.parametrize(("left", "fits"), [(0, False), (9, False), (10, True), (20, True)])
def test_half_of_an_object_must_stay_visible(left: int, fits: bool) -> None:
    owner = np.full((scenes.SIZE, scenes.SIZE), -1, np.int32)
    owner[:20, :20] = 0
    stamp = scenes._Stamp(0, 0, left, np.full((20, 20), 16, np.int32))
    assert stamp.fits(owner, [400]) == fits


def test_an_object_may_hang_over_the_edge_by_half() -> None:
    owner = np.full((scenes.SIZE, scenes.SIZE), -1, np.int32)
    cover = np.full((20, 20), 16, np.int32)
    assert scenes._Stamp(0, -10, 50, cover).fits(owner, [])
    assert not scenes._Stamp(0, -11, 50, cover).fits(owner, [])


def test_every_class_and_size_occurs() -> None:
    drawn = [scenes.draw(0, "train", i) for i in range(150)]
    classes = np.bincount(np.concatenate([s.classes for s in drawn]), minlength=len(scenes.NAMES))
    assert classes.min() > 0.6 * classes.mean()
    sides = np.concatenate([s.boxes[:, 2:] - s.boxes[:, :2] for s in drawn])
    area = sides.prod(1)
    assert (area < 20**2).sum() > 50
    assert (area > 96**2).sum() > 5


def test_writes_a_yolo_data_set_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "shapes"
    path = shapes.write_shapes(folder, train=3, val=2, seed=5)
    assert yaml.safe_load(path.read_text())["names"] == dict(enumerate(scenes.NAMES))
    data = load_data(path)
    assert (len(data.train.images), len(data.val.images)) == (3, 2)
    for index, image in enumerate(data.val.images):
        scene = scenes.draw(5, "val", index)
        with Image.open(image) as picture:
            np.testing.assert_array_equal(np.asarray(picture), scene.pixels)
        labels = image.parents[2] / "labels" / "val" / f"{image.stem}.txt"
        read = np.array([line.split() for line in labels.read_text().splitlines()], float)
        np.testing.assert_array_equal(read.reshape(-1, 5)[:, 0], scene.classes)
        centre, size = read[:, 1:3] * scenes.SIZE, read[:, 3:] * scenes.SIZE
        corners = np.hstack((centre - size / 2, centre + size / 2))
        np.testing.assert_allclose(corners, scene.boxes, atol=1e-9)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert shapes.write_shapes(folder, train=3, val=2, seed=5) == path
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_longer_data_set_begins_with_the_shorter_one(tmp_path: Path) -> None:
    short, long = (shapes.write_shapes(tmp_path / str(n), train=n, val=1).parent for n in (2, 4))
    for picture in (short / "images" / "train").iterdir():
        assert picture.read_bytes() == (long / "images" / "train" / picture.name).read_bytes()


def test_leaves_nothing_when_it_is_stopped(tmp_path: Path) -> None:
    class Stop(Silent):
        @contextmanager
        def task(self, label: str, total: int) -> Iterator[Advance]:
            def stop(_: int) -> None:
                raise KeyboardInterrupt

            yield stop

    with pytest.raises(KeyboardInterrupt):
        shapes.write_shapes(tmp_path / "shapes", train=2, val=2, progress=Stop())
    assert list(tmp_path.iterdir()) == []


def test_touches_no_folder_that_holds_something_else(tmp_path: Path) -> None:
    keep = tmp_path / "notes.txt"
    keep.write_text("mine")
    with pytest.raises(OutputError, match="holds other data; remove it, or name another folder"):
        shapes.write_shapes(tmp_path, train=1, val=1)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_notices_a_missing_file_and_other_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    shapes.write_shapes(folder, train=1, val=2)
    with pytest.raises(OutputError, match="holds other data"):
        shapes.write_shapes(folder, train=1, val=3)
    (folder / "labels" / "val" / "000001.txt").unlink()
    with pytest.raises(OutputError, match="holds 1 files of 2"):
        shapes.write_shapes(folder, train=1, val=2)


@pytest.mark.parametrize(("train", "val", "seed"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_refuses_numbers_that_make_no_data_set(
    tmp_path: Path, train: int, val: int, seed: int
) -> None:
    with pytest.raises(DataError, match="make no data set"):
        shapes.write_shapes(tmp_path / "shapes", train=train, val=val, seed=seed)
