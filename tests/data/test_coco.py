"""COCO instances files: ids with gaps, crowds, halves, and malformed ones."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from yqc.data import Data, load_data
from yqc.errors import DataError

Write = Callable[..., Path]


def instances() -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in (40, 7, 90, 3)],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 1, "name": "person"},
            {"id": 18, "name": "dog"},
        ],
        "annotations": [
            {"id": 0, "image_id": 40, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 7.5},
            {"id": 0, "image_id": 3, "category_id": 1, "bbox": [5, 6, 7, 8], "iscrowd": 0},
            {"id": 5, "image_id": 90, "category_id": 18, "bbox": [1, 1, 9, 9], "iscrowd": 1},
            {"id": 6, "image_id": 1234, "category_id": 18, "bbox": [1, 1, 9, 9]},
        ],
    }


@pytest.fixture
def spec(tmp_path: Path, picture: Write) -> Path:
    for i in (3, 7, 40, 90):
        picture(f"{i}.png")
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(instances()))
    return path


def test_halves_by_rising_id_and_classes_by_rising_category(spec: Path) -> None:
    data = load_data(spec)
    assert (data.kind, data.names) == ("coco", ("person", "dog", "toothbrush"))
    assert [p.name for p in data.train.images] == ["3.png", "7.png"]
    assert [p.name for p in data.val.images] == ["40.png", "90.png"]
    assert data.val.annotations == {
        "images": [{"id": 1, "file_name": "40.png"}, {"id": 2, "file_name": "90.png"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 3,
                "bbox": [1.0, 2.0, 3.0, 4.0],
                "area": 7.5,
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 2,
                "category_id": 2,
                "bbox": [1.0, 1.0, 9.0, 9.0],
                "area": 81.0,
                "iscrowd": 1,
            },
        ],
        "categories": [
            {"id": 1, "name": "person"},
            {"id": 2, "name": "dog"},
            {"id": 3, "name": "toothbrush"},
        ],
    }
    assert data.train.annotations is not None
    assert [o["bbox"] for o in data.train.annotations["annotations"]] == [[5.0, 6.0, 7.0, 8.0]]
    assert data.warnings == (
        f"1 annotations of {spec} are of images that it does not list: they are left out",
    )


def change(spec: Path, **tables: Any) -> Path:
    """Replace tables of the file."""
    spec.write_text(json.dumps(instances() | tables))
    return spec


def boxes(data: Data) -> list[list[float]]:
    assert data.val.annotations is not None
    return [entry["bbox"] for entry in data.val.annotations["annotations"]]


@pytest.mark.parametrize("kind", [str, float])
def test_ids_as_text_and_as_numbers_are_the_same(spec: Path, kind: type) -> None:
    before = load_data(spec)
    for table, key in (
        ("images", "id"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
    ):
        entries = [entry | {key: kind(entry[key])} for entry in instances()[table]]
        data = load_data(change(spec, **{table: entries}))
        assert data.val.annotations == before.val.annotations
        assert data.val.images == before.val.images
        assert data.warnings == before.warnings


def test_ids_of_text_stay_apart(spec: Path) -> None:
    images = [{"id": i, "file_name": "3.png"} for i in ("7", "07", "a", "\u0667", 3)]
    assert len(load_data(change(spec, images=images)).val.images) == 3


def test_a_box_that_is_written_twice_counts_once(spec: Path) -> None:
    first, *others = instances()["annotations"]
    entries = [first, *others[:2], first | {"id": 9}, first | {"id": 10, "category_id": 1}]
    data = load_data(change(spec, annotations=entries))
    assert sorted(boxes(data)) == [[1, 1, 9, 9], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert data.warnings == (f"1 boxes of {spec} are written twice and count once",)


@pytest.mark.parametrize(
    ("stated", "box", "said"),
    [
        ({}, [1, 2, 3, 4], ""),
        ({"width": 20, "height": 40}, [1, 2, 3, 4], ""),
        ({"width": 40, "height": 20}, [14, 1, 4, 3], "describes 1 images as they are before EXIF"),
        ({"width": 80, "height": 40}, [1, 2, 3, 4], "1 images have another size than"),
    ],
)
def test_width_and_height_say_which_frame_boxes_are_in(
    spec: Path, stated: dict[str, int], box: list[float], said: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(spec.parent / "40.png", exif=exif)
    images = [{"id": 40, "file_name": "40.png"} | stated]
    data = load_data(change(spec, images=images, annotations=instances()["annotations"][:1]))
    assert boxes(data) == [box]
    assert [said in one for one in data.warnings] == [True] * bool(said)


def test_leaves_out_images_that_are_not_there_and_says_so(spec: Path) -> None:
    (spec.parent / "7.png").unlink()
    data = load_data(spec)
    assert [p.name for p in (*data.train.images, *data.val.images)] == ["3.png", "40.png", "90.png"]
    assert data.warnings[0] == f"1 of 4 images of {spec} are not in {spec.parent}"


def test_takes_the_folder_it_is_given(spec: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "far"
    elsewhere.mkdir()
    for path in tmp_path.glob("*.png"):
        path.rename(elsewhere / path.name)
    assert load_data(spec, images=elsewhere).val.images[0] == elsewhere / "40.png"
    with pytest.raises(DataError, match="give their folder with --images"):
        load_data(spec)
    with pytest.raises(DataError, match="none of the 4 images"):
        load_data(spec, images=tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_data(spec, images=tmp_path / "nowhere")


def test_finds_images_laid_out_as_coco_is(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images/val2017").mkdir(parents=True)
    for path in tmp_path.glob("*.png"):
        path.rename(tmp_path / "images/val2017" / path.name)
    moved = spec.rename(tmp_path / "annotations/instances_val2017.json")
    assert len(load_data(moved).val.images) == 2


def broken(*path: str | int, value: object) -> dict[str, Any]:
    """The instances with one value replaced, or removed where it is `...`."""
    top = instances()
    at: Any = top
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return top


@pytest.mark.parametrize(
    ("top", "complaint"),
    [
        ([instances()], "its top is not an object"),
        (broken("images", value=...), "'images' is not a list of objects"),
        (broken("annotations", value={}), "'annotations' is not a list of objects"),
        (broken("categories", 0, value="cat"), "'categories' is not a list of objects"),
        (broken("images", value=[]), "has no images"),
        (broken("categories", value=[]), "has no categories"),
        (broken("images", 0, "id", value=7), "the image id 7 occurs twice"),
        (broken("images", 0, "id", value=[7]), "an image needs an 'id'"),
        (broken("images", 0, "file_name", value=None), "an image needs an 'id'"),
        (broken("categories", 0, "id", value=1), "the category id 1 occurs twice"),
        (broken("categories", 0, "id", value="1"), "the category id 1 occurs twice"),
        (broken("categories", 0, "id", value="one"), "a category needs an integer 'id'"),
        (broken("categories", 0, "id", value=True), "a category needs an integer 'id'"),
        (broken("categories", 0, "name", value=...), "a category needs an integer 'id'"),
        (broken("annotations", 1, "image_id", value=...), "annotation 1 has no 'image_id'"),
        (broken("annotations", 1, "category_id", value=2), "annotation 1 has an unknown category"),
        (broken("annotations", 1, "category_id", value=[]), "annotation 1 has an unknown category"),
        (broken("annotations", 1, "bbox", value=[1, 2, 3]), "'bbox' of annotation 1 is not four"),
        (broken("annotations", 1, "bbox", value="1234"), "'bbox' of annotation 1 is not four"),
        (broken("annotations", 1, "bbox", 0, value="1"), "'bbox' of annotation 1 is not four"),
        (broken("annotations", 1, "bbox", 0, value=float("nan")), "'bbox' of annotation 1"),
        (broken("annotations", 1, "bbox", 0, value=10**400), "'bbox' of annotation 1"),
        (broken("annotations", 1, "area", value="big"), "'area' of annotation 1"),
    ],
)
def test_a_malformed_file_is_named(spec: Path, top: object, complaint: str) -> None:
    spec.write_text(json.dumps(top))
    with pytest.raises(DataError, match=complaint) as e:
        load_data(spec)
    assert str(spec) in str(e.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff\xfe\xfd", b"1" * 5000])
def test_what_is_no_json_is_an_error(spec: Path, text: bytes) -> None:
    spec.write_bytes(text)
    with pytest.raises(DataError, match=r"instances\.json"):
        load_data(spec)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.data())
def test_any_change_is_read_or_refused(
    spec: Path, chance: random.Random, draw: st.DataObject
) -> None:
    top = instances()
    at: Any = top
    while isinstance(at, dict | list) and at:
        holder, key = at, chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
        at = at[key]
        if chance.random() < 0.3:
            break
    holder[key] = draw.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.just([])
        | st.just({})
    )
    spec.write_text(json.dumps(top))
    try:
        data = load_data(spec)
    except DataError:
        return
    assert data.train.annotations is not None
    assert data.val.annotations is not None
