"""Folders of classes for classifiers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from yqc.data import Labelling, load_data
from yqc.errors import DataError

Write = Callable[..., Path]
CLASSIFY = Labelling("classify")


@pytest.fixture
def folders(picture: Write, tmp_path: Path) -> Path:
    for name in ("train/dog/a.png", "train/cat/b.png", "train/cat/deep/c.png"):
        picture(name)
    for name in ("val/cat/d.png", "val/dog/e.png", "val/dog/f.png", "test/bird/g.png"):
        picture(name)
    return tmp_path


def test_classes_are_folders_in_the_order_of_their_names(folders: Path) -> None:
    data = load_data(folders, labelling=CLASSIFY)
    assert (data.kind, data.names, data.warnings) == ("classes", ("cat", "dog"), ())
    assert [p.name for p in data.train.images] == ["b.png", "c.png", "a.png"]
    assert [p.name for p in data.val.images] == ["d.png", "e.png", "f.png"]
    assert data.val.annotations is not None
    labels = [(o["image_id"], o["category_id"]) for o in data.val.annotations["annotations"]]
    assert labels == [(1, 1), (2, 2), (3, 2)]
    assert [c["name"] for c in data.val.annotations["categories"]] == ["cat", "dog"]


def test_hidden_folders_and_other_files_are_no_classes(folders: Path) -> None:
    (folders / "val/.cache").mkdir()
    (folders / "train.cache").write_text("x")
    (folders / "train/notes.txt").write_text("x")
    assert load_data(folders, labelling=CLASSIFY).names == ("cat", "dog")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("train/bird", "the class folder 'bird' is in train and not in val"),
        ("val/bird", "the class folder 'bird' is in val and not in train"),
    ],
)
def test_classes_must_be_the_same_in_both(folders: Path, extra: str, said: str) -> None:
    (folders / extra).mkdir()
    with pytest.raises(DataError) as e:
        load_data(folders, labelling=CLASSIFY)
    assert str(e.value) == f"{folders}: {said}; both must have the same classes."


def test_an_empty_class_folder_is_a_class_without_images(folders: Path) -> None:
    for split in ("train", "val"):
        (folders / split / "ant").mkdir()
    data = load_data(folders, labelling=CLASSIFY)
    assert data.names == ("ant", "cat", "dog")
    assert data.val.annotations is not None
    assert {o["category_id"] for o in data.val.annotations["annotations"]} == {2, 3}


def test_folders_without_any_image_are_refused(folders: Path) -> None:
    for path in (folders / "val").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"there is no image in the class folders of .*/val"):
        load_data(folders, labelling=CLASSIFY)


def test_nothing_to_calibrate_on_is_said_where_it_is_needed(folders: Path) -> None:
    for path in (folders / "train").rglob("*.png"):
        path.unlink()
    data = load_data(folders, labelling=CLASSIFY)
    assert data.train.absent == f"there is no image in the class folders of {folders / 'train'}"


def test_evaluation_needs_no_train(folders: Path) -> None:
    shutil.rmtree(folders / "train")
    data = load_data(folders, labelling=CLASSIFY)
    assert (data.kind, data.names, len(data.val.images)) == ("classes", ("cat", "dog"), 3)
    assert data.train.images == ()
    assert data.train.absent == f"there is no folder {folders / 'train'}"


def test_evaluation_needs_val(folders: Path) -> None:
    shutil.rmtree(folders / "val")
    with pytest.raises(DataError, match=r"folders of classes in train and no val") as e:
        load_data(folders, labelling=CLASSIFY)
    assert str(e.value).startswith(str(folders))


def test_images_that_lie_beside_classes_make_it_a_folder_of_images(
    folders: Path, picture: Write
) -> None:
    picture("train/loose.png")
    picture("val/loose.png")
    assert load_data(folders, labelling=CLASSIFY).kind == "folder"


def test_one_class_is_enough_for_a_classifier(picture: Write, tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "val/cat/b.png"):
        picture(name)
    assert load_data(tmp_path, labelling=CLASSIFY).names == ("cat",)


def test_images_without_classes_are_compared_only(picture: Write, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(name)
    data = load_data(tmp_path, labelling=CLASSIFY)
    assert (data.kind, data.names) == ("folder", None)


def test_class_folders_are_not_for_a_detector(folders: Path) -> None:
    with pytest.raises(DataError, match=r"folders of classes .* and the task here is detect"):
        load_data(folders)
    shutil.rmtree(folders / "val")
    assert load_data(folders).kind == "folder"


def test_boxes_are_not_for_a_classifier(yolo: Write) -> None:
    spec = yolo()
    with pytest.raises(DataError, match=r"this model is a classifier: give the folder"):
        load_data(spec, labelling=CLASSIFY)
