"""Telling the kinds of data apart, folders, and the check of classes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from yqc.data import check_classes, load_data
from yqc.errors import DataError

Write = Callable[..., Path]


def test_a_folder_is_read_in_order_and_halved(picture: Write, tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a/9.png", "1.jpeg", "b/1.webp", "z.bmp"):
        picture(name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._1.jpg").write_text("no image either")
    data = load_data(tmp_path)
    assert (data.kind, data.names, data.val.annotations) == ("folder", None, None)
    assert [p.name for p in data.train.images] == ["1.jpeg", "9.png"]
    assert [p.name for p in data.val.images] == ["1.webp", "2.JPG", "z.bmp"]


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no image in"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("gone.yaml", "there is no data at"), ("x.txt", "is neither a data YAML")],
)
def test_what_is_no_data_is_an_error(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match=complaint):
        load_data(tmp_path / name)


def test_images_go_with_a_json_only(yolo: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--images goes with a COCO JSON"):
        load_data(yolo(), images=tmp_path)


def test_classes_must_be_as_many_as_the_models(yolo: Write) -> None:
    data = load_data(yolo())
    assert check_classes(data, 2, ["Cat ", "dog"]) is None
    assert check_classes(data, 2) is None
    assert check_classes(data, 2, ["cat", "wolf"]) == (
        "class 1 is 'dog' in data.yaml and 'wolf' in the model"
    )
    with pytest.raises(DataError, match=r"data\.yaml has 2 classes but the model predicts 80"):
        check_classes(data, 80)


def test_a_folder_fits_any_model(picture: Write, tmp_path: Path) -> None:
    picture("a.png")
    assert check_classes(load_data(tmp_path), 80, ["x"]) is None
