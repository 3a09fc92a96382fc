"""Classes of data and model: by name, by order, and as one."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from yqc.data import Data, fit_classes, load_data
from yqc.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def coco(tmp_path: Path, picture: Write) -> Callable[..., Data]:
    """Writes a COCO JSON of two images, with one object of each of the given categories in both."""

    def write(names: Sequence[str], used: Sequence[int]) -> Data:
        top = {
            "images": [{"id": i, "file_name": picture(f"{i}.png").name} for i in (1, 2)],
            "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(names)],
            "annotations": [
                {"id": 1, "image_id": image, "category_id": 10 * i, "bbox": [i, 2, 3, 4]}
                for image in (1, 2)
                for i in used
            ],
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(top))
        return load_data(path)

    return write


def classes_of(data: Data) -> dict[int, int]:
    """Category that an object was written with -> its class; its box's left side tells it."""
    assert data.val.annotations is not None
    return {
        int(entry["bbox"][0]): entry["category_id"] - 1
        for entry in data.val.annotations["annotations"]
    }


def test_the_same_order_changes_nothing(coco: Callable[..., Data]) -> None:
    data = coco(["cat", "dog"], [0, 1])
    assert fit_classes(data, ["Cat ", "dog"]) is data


def test_another_order_is_matched_by_name(coco: Callable[..., Data]) -> None:
    data = fit_classes(coco(["wbc", "Platelets", "rbc"], [0, 1, 2]), ["platelets", "RBC", "WBC"])
    assert classes_of(data) == {0: 2, 1: 0, 2: 1}
    assert (data.names, data.warnings) == (("platelets", "RBC", "WBC"), ())
    assert data.val.annotations is not None
    assert [c["name"] for c in data.val.annotations["categories"]] == ["platelets", "RBC", "WBC"]


def test_an_empty_root_category_is_dropped(coco: Callable[..., Data]) -> None:
    data = fit_classes(coco(["cells", "rbc", "wbc"], [1, 2]), ["wbc", "rbc"])
    assert classes_of(data) == {1: 1, 2: 0}


def test_an_empty_root_of_a_classs_own_name_is_dropped(coco: Callable[..., Data]) -> None:
    data = fit_classes(coco(["rbc", "wbc", "rbc"], [1, 2]), ["wbc", "rbc"])
    assert classes_of(data) == {1: 0, 2: 1}


def test_a_class_that_no_object_has_still_matches_by_name(coco: Callable[..., Data]) -> None:
    data = fit_classes(coco(["cells", "wbc", "platelets", "rbc"], [1]), ["platelets", "rbc", "wbc"])
    assert classes_of(data) == {1: 2}


def test_a_used_category_is_not_dropped(coco: Callable[..., Data]) -> None:
    data = coco(["cells", "rbc", "wbc"], [0, 1, 2])
    with pytest.raises(DataError, match=r"has 3 classes but the model predicts 2; give the data"):
        fit_classes(data, ["wbc", "rbc"])


@pytest.mark.parametrize("names", [["cat", "wolf"], ["dog", "wolf"], ["cat", "cat"]])
def test_other_names_are_matched_by_order_and_said(
    coco: Callable[..., Data], names: list[str]
) -> None:
    data = fit_classes(coco(["cat", "dog"], [0, 1]), names)
    assert classes_of(data) == {0: 0, 1: 1}
    (said,) = data.warnings
    assert said.endswith("in the model: classes are matched by their order")


def test_without_names_only_the_number_counts(coco: Callable[..., Data]) -> None:
    data = coco(["cat", "dog"], [0, 1])
    assert fit_classes(data, None) is data
    assert fit_classes(data, None, nc=2) is data
    with pytest.raises(DataError, match="has 2 classes but the model predicts 80"):
        fit_classes(data, None, nc=80)


def test_a_model_of_one_class_takes_all_as_one_if_asked(coco: Callable[..., Data]) -> None:
    data = coco(["cat", "dog"], [0, 1])
    with pytest.raises(DataError, match="add --single-class to count every object"):
        fit_classes(data, ["animal"])
    one = fit_classes(data, ["animal"], single_class=True)
    assert (one.names, classes_of(one)) == (("animal",), {0: 0, 1: 0})
    assert classes_of(fit_classes(data, None, single_class=True)) == {0: 0, 1: 0}
    with pytest.raises(DataError, match="this one predicts 2; leave it out"):
        fit_classes(data, ["cat", "dog"], single_class=True)


def test_yolo_data_is_matched_by_name_too(yolo: Write) -> None:
    data = fit_classes(load_data(yolo({"a": "1 0.5 0.5 0.1 0.1\n"})), ["dog", "cat"])
    assert data.val.annotations is not None
    assert [o["category_id"] for o in data.val.annotations["annotations"]] == [1]
    unused = load_data(yolo({"a": "1 0.5 0.5 0.1 0.1\n"}, names="[none, dog]"))
    assert fit_classes(unused, ["dog"]).names == ("dog",)


def test_a_folder_fits_any_model(picture: Write, tmp_path: Path) -> None:
    picture("a.png")
    data = load_data(tmp_path)
    assert fit_classes(data, ["x"], single_class=True) is data
