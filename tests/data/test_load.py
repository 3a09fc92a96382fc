"""Kinds of data, folders, copies, and the hash of a data set."""

from collections.abc import Callable
from pathlib import Path

import pytest

from yqc.data import load_data
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


def test_copies_by_content_are_named(picture: Write, tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        picture(name)
    (tmp_path / "b/4.png").write_bytes((tmp_path / "a/1.png").read_bytes())
    data = load_data(tmp_path)
    assert [p.name for p in data.common] == ["4.png"]
    assert "1 of the 2 images of 'val'" in data.warnings[0]


def test_the_hash_is_of_names_and_contents(yolo: Write, tmp_path: Path) -> None:
    spec = yolo()
    first = load_data(spec).sha256
    assert (load_data(spec).sha256, len(first)) == (first, 64)
    changes: list[tuple[Path, bytes]] = [
        (tmp_path / "labels/val/a.txt", b"0 0.5 0.5 0.5 0.25\n"),
        (tmp_path / "labels/train/t1.txt", b""),
        (tmp_path / "images/train/t3.png", b"no picture"),
        (spec, spec.read_bytes() + b"# note\n"),
    ]
    seen = {first}
    for path, data in changes:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        seen.add(load_data(spec).sha256)
    assert len(seen) == 5
    (tmp_path / "images/train/t4.png").rename(tmp_path / "images/train/t44.png")
    assert load_data(spec).sha256 not in seen
