"""YOLO data sets: where images and labels are, and what is wrong with the others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from yqc.data import Data, load_data
from yqc.data.labels import label_file
from yqc.errors import DataError

Write = Callable[..., Path]


def names_of(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def objects(data: Data) -> list[tuple[int, int, list[float]]]:
    assert data.val.annotations is not None
    return [
        (o["image_id"], o["category_id"], [round(v, 4) for v in o["bbox"]])
        for o in data.val.annotations["annotations"]
    ]


def test_reads_images_and_labels_in_pixels(yolo: Write) -> None:
    data = load_data(yolo({"a": "", "b": "1 0.5 0.5 0.5 0.2\n\n0 0.25 0.5 0.1 1\n"}))
    assert (data.kind, data.names, data.common, data.warnings) == ("yolo", ("cat", "dog"), (), ())
    assert names_of(data.train.images) == [f"t{i}.png" for i in range(10)]
    assert names_of(data.val.images) == ["a.png", "b.png"]
    assert objects(data) == [(2, 2, [10, 12, 20, 6]), (2, 1, [8, 0, 4, 30])]
    annotations = data.val.annotations
    assert annotations is not None
    assert annotations["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [o["id"] for o in annotations["annotations"]] == [1, 2]
    assert [o["area"] for o in annotations["annotations"]] == pytest.approx([120, 120])


def test_reads_an_outline_as_the_box_around_it(yolo: Write) -> None:
    data = load_data(yolo({"a": "0 0.25 0.1 0.75 0.2 0.5 0.6\n"}))
    assert objects(data) == [(1, 1, [10, 3, 20, 15])]


def test_counts_a_repeated_box_once_and_says_so(yolo: Write) -> None:
    data = load_data(yolo({"a": "0 0.5 0.5 0.5 0.2\n0 .50 0.5 0.5 0.2\n", "b": ""}))
    assert len(objects(data)) == 1
    assert data.warnings == (f"1 boxes of 'val' of {data.source} are written twice and count once",)


def test_says_how_many_images_have_no_label_file(yolo: Write, tmp_path: Path) -> None:
    data = load_data(yolo())
    (said,) = data.warnings
    assert said.startswith(f"1 of the 2 images of 'val' of {data.source} have no label file")
    assert str(tmp_path / "labels/val/b.txt") in said


def test_says_that_two_images_share_a_label_file(yolo: Write, picture: Write) -> None:
    picture("images/val/a.jpg")
    data = load_data(yolo({"a": "0 0.5 0.5 0.5 0.2\n", "b": ""}))
    assert data.warnings == (
        f"1 label files of 'val' of {data.source} belong to two images, such as a.jpg and a.png",
    )


def test_labels_are_relative_to_the_upright_image(yolo: Write, tmp_path: Path) -> None:
    spec = yolo({"a": "0 0.25 0.5 0.1 1\n"})
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 40)).save(tmp_path / "images/val/a.png", exif=exif)
    assert objects(load_data(spec)) == [(1, 1, [8, 0, 4, 30])]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/a/b.jpg", "/d/labels/a/b.txt"),
        ("/images/d/images/b.v2.jpg", "/images/d/labels/b.v2.txt"),
        ("/d/photos/b.jpg", "/d/photos/b.txt"),
        ("/d/my_images/b.jpg", "/d/my_images/b.txt"),
    ],
)
def test_labels_lie_where_the_images_would(image: str, label: str) -> None:
    assert label_file(Path(image)) == Path(label)


def test_path_is_relative_to_the_yaml_file(
    yolo: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = yolo().read_text()
    spec = tmp_path / "specs" / "d.yml"
    spec.parent.mkdir()
    spec.write_text(f"path: ..\n{text}")
    monkeypatch.chdir("/")
    assert len(load_data(spec).val.images) == 2


def test_train_and_val_may_be_lists_and_listings(
    yolo: Write, picture: Write, tmp_path: Path
) -> None:
    picture("images/more/c.png")
    (tmp_path / "list.txt").write_text("./images/more/c.png\n\nimages/val/b.png\n")
    data = load_data(yolo(val="[images/val, list.txt]"))
    assert names_of(data.val.images) == ["a.png", "b.png", "c.png"]


def test_a_listing_elsewhere_may_be_relative_to_the_root(yolo: Write, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "v.txt").write_text("images/val/a.png\n")
    assert names_of(load_data(yolo(val="lists/v.txt")).val.images) == ["a.png"]


def test_accepts_one_level_too_high(yolo: Write) -> None:
    assert len(load_data(yolo(val="../images/val")).val.images) == 2


@pytest.mark.parametrize("names", ["{0: cat, 1: dog}", "{1: dog, 0: cat}", "{'0': cat, '1': dog}"])
def test_names_may_be_a_map(yolo: Write, names: str) -> None:
    assert load_data(yolo(names=names, nc="2")).names == ("cat", "dog")


def test_reports_images_that_train_and_val_share(yolo: Write, tmp_path: Path) -> None:
    spec = yolo(train="[images/train, images/val/a.png, copies]")
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "b.png").write_bytes((tmp_path / "images/val/b.png").read_bytes())
    data = load_data(spec)
    assert names_of(data.common) == ["a.png", "b.png"]
    assert "2 of the 2 images of 'val'" in data.warnings[-1]


def test_reports_copies_under_another_name(yolo: Write, tmp_path: Path) -> None:
    spec = yolo()
    (tmp_path / "images/train/t3.png").write_bytes((tmp_path / "images/val/b.png").read_bytes())
    assert names_of(load_data(spec).common) == ["b.png"]


def test_does_not_report_other_images_of_the_same_name(yolo: Write, picture: Write) -> None:
    picture("images/train/a.png")
    assert load_data(yolo()).common == ()


def test_evaluation_needs_no_train(yolo: Write) -> None:
    data = load_data(yolo({"a": "", "b": ""}, train="images/gone"))
    assert data.train.images == ()
    assert "images/gone, which does not exist" in data.train.absent
    assert data.warnings == (data.train.absent,)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("0 0.5 0.5 0.5", "4 numbers"),
        ("0 0.5 0.5 0.5 0.5 0.9", "6 numbers"),
        ("0", "1 numbers"),
        ("cat 0.5 0.5 0.5 0.5", "is no label"),
        ("2 0.5 0.5 0.5 0.5", "class 2, and the classes are 0 to 1"),
        ("-1 0.5 0.5 0.5 0.5", "class -1"),
        ("0.5 0.5 0.5 0.5 0.5", "class 0.5"),
        ("nan 0.5 0.5 0.5 0.5", "class nan"),
        ("0 nan 0.5 0.5 0.5", "outside 0..1"),
        ("0 20 15 10 10", "outside 0..1"),
        ("0 0.5 0.5 -0.005 0.5", "negative"),
    ],
)
def test_a_malformed_label_is_named_by_file_and_line(
    yolo: Write, line: str, complaint: str
) -> None:
    spec = yolo({"a": "", "b": f"0 0.5 0.5 0.5 0.2\n\n0 0.5 0.5 0.5 0.2\n{line}\n"})
    with pytest.raises(DataError, match=complaint) as e:
        load_data(spec, strict=True)
    assert "labels/val/b.txt:4 " in str(e.value)
    data = load_data(spec)
    assert names_of(data.val.images) == ["a.png"]
    (said,) = data.warnings
    assert said.startswith(
        f"1 of the 2 images of 'val' of {spec} have a bad label and are left out"
    )
    assert str(e.value).rstrip(".") in said


def test_bad_labels_everywhere_are_an_error(yolo: Write) -> None:
    with pytest.raises(
        DataError, match=r"every image of 'val' .* has a bad label, such as: .*a\.txt:1"
    ):
        load_data(yolo({"a": "x", "b": "y"}))


def test_a_bad_training_label_leaves_its_image_out(yolo: Write, tmp_path: Path) -> None:
    spec = yolo()
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/t3.txt").write_text("7 0.5 0.5 0.5 0.5")
    annotations = load_data(spec).train.annotations
    assert annotations is not None
    assert [entry["id"] for entry in annotations["images"]] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    with pytest.raises(DataError, match=r"t3\.txt:1 names class 7"):
        _ = load_data(spec, strict=True).train.annotations


def test_an_unreadable_image_has_no_objects(yolo: Write, tmp_path: Path) -> None:
    spec = yolo()
    (tmp_path / "images/val/a.png").write_bytes(b"no picture")
    assert objects(load_data(spec)) == []


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"val": "images/gone"}, "'val' names .*images/gone, which does not exist"),
        ({"val": ""}, "'val' must be a folder"),
        ({"val": "{a: 1}"}, "'val' must be a folder"),
        ({"val": "[images/val, 3]"}, "'val' must be a folder"),
        ({"val": '"a\\0b"'}, "does not exist"),
        ({"val": "x" * 5000}, "does not exist"),
        ({"val": "labels"}, "'val' .* holds no images"),
        ({"val": "images/train"}, "no image of 'val' .* has a label file; .*labels/train/t0.txt"),
        ({"path": "7"}, "'path' must be a path, not 7"),
        ({"names": ""}, "'names' must be a list"),
        ({"names": "[]"}, "'names' must be a list"),
        ({"names": "cat"}, "'names' must be a list"),
        ({"names": "[cat, [dog]]"}, "a class name in 'names' is not text"),
        ({"names": "{0: cat, 2: dog}"}, "must count from 0"),
        ({"names": "{0: cat, a: dog}"}, "must count from 0"),
        ({"names": "{0: cat, '" + "9" * 900 + "': dog}"}, "must count from 0"),
        ({"nc": "3"}, "'nc' is 3 but 'names' has 2"),
        ({"nc": "many"}, "'nc' must be a positive whole number, not 'many'"),
        ({"nc": "0x" + "f" * 9000}, "'nc' is a huge int but"),
    ],
)
def test_a_wrong_key_is_named(yolo: Write, keys: dict[str, str], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as e:
        load_data(yolo(**keys))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"names: [cat\nval: 3\n", r"data\.yaml:\d is not valid YAML"),
        (b"- 1\n- 2\n", "is no data YAML"),
        (b"", "is no data YAML"),
        (b"a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        (b"a: !!timestamp soon", "is not valid YAML"),
        (b"a: !!bool maybe", "is not valid YAML"),
        (b"a: 2020-99-99", "is not valid YAML"),
        (b"a: " + b"[" * 5000, "is not valid YAML"),
        (b"a: " + b"9" * 5000, "is not valid YAML"),
        (b"\x80\x81\x82", "cannot be read as UTF-8"),
        (b"a: \x00", "is not valid YAML"),
        (b"&a [*a, *a]", "is no data YAML"),
        (
            b"a0: &a0 [x, x]\n"
            + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 60))
            + b"names: [x, *a59]",
            "not text",
        ),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else "",
)
def test_a_hostile_yaml_is_an_error(tmp_path: Path, text: bytes, complaint: str) -> None:
    spec = tmp_path / "data.yaml"
    spec.write_bytes(text)
    with pytest.raises(DataError, match=complaint) as e:
        load_data(spec)
    assert len(str(e.value)) < 400
    assert "\n" not in str(e.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.integers(0, 3) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["path", "train", "val", "names", "nc"]), anything))
def test_any_yaml_is_read_or_refused(tmp_path: Path, top: dict[str, object]) -> None:
    spec = tmp_path / "data.yaml"
    spec.write_text(yaml.safe_dump(top), encoding="utf-8")
    with pytest.raises(DataError):
        load_data(spec)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("01 .5-e\nnaif\t"), max_size=40))
def test_any_label_file_is_read_or_refused(yolo: Write, text: str) -> None:
    spec = yolo({"a": text, "b": ""})
    try:
        assert load_data(spec, strict=True).val.annotations is not None
    except DataError as e:
        assert "labels/val/a.txt:" in str(e)  # noqa: PT017  # either outcome is right
        assert names_of(load_data(spec).val.images) == ["b.png"]
