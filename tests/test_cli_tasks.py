"""The command line on bad data of every task: one line that says where, and nothing is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.command import Run, here
from tests.tasks import LINES, NAMES, TASKS, write_checkpoint, write_data


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint of each task."""
    folder = tmp_path_factory.mktemp("models")
    return {task: write_checkpoint(folder / f"{task}.pt", task) for task in TASKS}


def rewrite(folder: Path, *lines: str, split: str = "val") -> None:
    """Put lines into every label file of a split."""
    for path in sorted((folder / "labels" / split).iterdir()):
        path.write_text("\n".join(lines) + "\n")


def no_shape(folder: Path) -> Path:
    return write_data(folder, "pose", 2, keypoints="")


def other_shape(folder: Path) -> Path:
    return write_data(folder, "pose", 2, keypoints="[17, 3]")


def outside(folder: Path) -> Path:
    spec = write_data(folder, "pose", 2)
    rewrite(folder, LINES["pose"].replace(" .6 ", " 1.6 "))
    return spec


def bitmaps(folder: Path) -> Path:
    spec = write_data(folder, "segment", 2)
    for path in (folder / "labels/val").iterdir():
        path.unlink()
        Image.new("L", (80, 60)).save(path.with_suffix(".png"))
    return spec


def odd(folder: Path) -> Path:
    spec = write_data(folder, "segment", 2)
    rewrite(folder, "", "0 .3 .3 .7 .3 .7")
    return spec


def crossing(folder: Path) -> Path:
    spec = write_data(folder, "obb", 2)
    rewrite(folder, LINES["obb"].splitlines()[1], "0 .3 .3 .7 .7 .7 .3 .3 .7")
    return spec


def upright(folder: Path) -> Path:
    spec = write_data(folder, "obb", 2)
    rewrite(folder, LINES["detect"].strip())
    return spec


def classes_apart(folder: Path) -> Path:
    data = write_data(folder, "classify", 2)
    (data / "val/bird").mkdir()
    return data


def no_val(folder: Path) -> Path:
    data = write_data(folder, "classify", 2)
    shutil.rmtree(data / "val")
    return data


def boxes(folder: Path) -> Path:
    return write_data(folder, "segment", 2)


def class_folders(folder: Path) -> Path:
    return write_data(folder, "classify", 2)


def instances(folder: Path, **annotation: Any) -> Path:
    folder = write_data(folder, "segment", 2).parent
    images = [{"id": i, "file_name": f"{i}.png", "width": 80, "height": 60} for i in (0, 1)]
    usual = {"image_id": 1, "category_id": 1, "bbox": [8, 6, 40, 30], "area": 900}
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    found = {"images": images, "annotations": [usual | annotation], "categories": categories}
    path = folder / "images" / "val" / "instances.json"
    path.write_text(json.dumps(found))
    return path


def no_keypoints(folder: Path) -> Path:
    return instances(folder)


def other_size(folder: Path) -> Path:
    return instances(folder, segmentation={"size": [8, 8], "counts": [64]})


LABEL = "labels/val/0.txt"
REFUSED: list[tuple[str, Callable[[Path], Path], str, str]] = [
    ("pose", no_shape, "data.yaml", "has no 'kpt_shape'"),
    (
        "pose",
        other_shape,
        "data.yaml",
        "17 keypoints an object (kpt_shape), and the model predicts 3",
    ),
    ("pose", outside, f"{LABEL}:1", "has a coordinate outside 0..1"),
    ("pose", no_keypoints, "instances.json", "has no keypoints, and this model predicts them"),
    ("pose", class_folders, "data", "holds folders of classes"),
    ("segment", bitmaps, "labels/val/0.png", "write outlines in their place"),
    ("segment", odd, f"{LABEL}:2", "has 6 numbers; a label is class and outline"),
    ("segment", other_size, "annotation 0", "are of 8 x 8 pixels, and its image has 80 x 60"),
    ("obb", crossing, f"{LABEL}:2", "has four corners that are no quadrilateral"),
    ("obb", upright, f"{LABEL}:1", "has 5 numbers; a label of an oriented box is class and four"),
    ("classify", classes_apart, "data", "'bird' is in val and not in train"),
    ("classify", no_val, "data", "folders of classes in train and no val"),
    ("classify", boxes, "data.yaml", "give the folder that holds train/CLASS and val/CLASS"),
]


@pytest.mark.parametrize(
    ("task", "make", "where", "complaint"),
    REFUSED,
    ids=[f"{r[0]}-{r[1].__name__}" for r in REFUSED],
)
def test_bad_data_is_one_line_before_any_work(
    models: dict[str, Path],
    run: Run,
    tmp_path: Path,
    task: str,
    make: Callable[[Path], Path],
    where: str,
    complaint: str,
) -> None:
    data = make(tmp_path / "data")
    done = run("compile", models[task], "--passes", "int8", "--data", data, "--strict", "-q")
    (line,) = done.err.splitlines()
    assert (done.code, done.out, here()) == (1, "", {})
    assert complaint in line
    assert f"{tmp_path}/" in line
    assert where in line


def test_a_bad_label_leaves_its_image_out_and_is_said(
    models: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    spec = write_data(tmp_path / "data", "segment", 2)
    (tmp_path / "data" / LABEL).write_text("0 .3 .3 .7 .3 .7")
    done = run("eval", models["segment"], "--data", spec, "--json", "-q")
    found = json.loads(done.out)
    assert (done.code, found["images"], found["main"]) == (0, 1, "mask.map")
    assert f"{LABEL}:1 has 6 numbers" in found["warnings"][0]


def test_boxes_given_to_a_segmentation_are_used_and_it_is_said(
    models: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    spec = write_data(tmp_path / "data", "segment", 2)
    rewrite(tmp_path / "data", LINES["detect"].strip())
    done = run("eval", models["segment"], "--data", spec, "--json", "-q")
    found = json.loads(done.out)
    assert (done.code, found["main"]) == (0, "map")
    assert "mask" not in {key for key, value in found["scores"].items() if value is not None}
    assert "the boxes of this model are measured on them, and its masks are not" in " ".join(
        found["warnings"]
    )


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_nothing_labelled_is_no_accuracy_and_it_is_said(
    models: dict[str, Path], run: Run, tmp_path: Path, task: str
) -> None:
    data = write_data(tmp_path / "data", task, 2)
    if task == "segment":
        rewrite(tmp_path / "data", "")
    else:
        shutil.rmtree(tmp_path / "data/train")
    done = run("eval", models[task], "--data", data, "--json", "-q")
    found = json.loads(done.out)
    assert done.code == 0
    if task == "segment":
        assert "nothing that this model finds is labelled" in found["warnings"][-1]
    else:
        assert found["scores"]["top1"] in (0.0, 0.5, 1.0)


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_of_images_gives_agreement(
    models: dict[str, Path], run: Run, tmp_path: Path, task: str
) -> None:
    data = write_data(tmp_path / "data", "detect", 4).parent / "images"
    done = run(
        "compile", models[task], "--passes", "fold-bn", "--data", data, "--json", "-q",
        "-o", "x.onnx", "--no-latency", "--no-html",
    )  # fmt: skip
    found = json.loads(done.out)["accuracy"]
    assert (done.code, found["kind"], found["task"], found["images"]) == (0, "agreement", task, 4)
    key = "top1" if task == "classify" else "ap50"
    assert found["agreement"][key] in (None, pytest.approx(1, abs=0.02))
