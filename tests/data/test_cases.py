"""Whole evaluations: pictures and labels in other forms score as the plain ones do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from yqc.job.files import evaluate_file
from yqc.progress import Silent
from yqc.report import EvalResult
from yqc.settings import choose

ORIENTATION = 0x0112
BACK = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90}
"""EXIF orientation -> what stores an upright picture so that it leads back to it."""


def evaluate(shared: Path, data: Path, **options: Any) -> EvalResult:
    model = shared / "models/yolov8n-bccd.pt"
    settings = choose(None, {"data": data, "imgsz": 320, **options})
    return evaluate_file(model, settings, progress=Silent())


def score(shared: Path, data: Path, **options: Any) -> float:
    found = evaluate(shared, data, **options).scores.map
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["perm.json", "roboroot.json"])
def test_classes_are_matched_by_name(shared: Path, name: str) -> None:
    result = evaluate(shared, shared / "cases" / name, images=shared / "data/bccd/images/val")
    assert result.scores.map == pytest.approx(0.5748, abs=5e-4)
    assert (result.images, result.warnings) == (6, ())


@pytest.fixture(scope="module")
def bccd(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes four pictures of bccd val, each changed and saved in some way, with their labels."""

    def write(save: Callable[[Image.Image, Path], None]) -> Path:
        folder = tmp_path_factory.mktemp("bccd")
        for part in ("images", "labels"):
            (folder / part).mkdir()
        for path in sorted((shared / "data/bccd/images/val").iterdir())[:4]:
            save(Image.open(path).convert("RGB"), folder / "images" / path.stem)
            label = shared / "data/bccd/labels/val" / f"{path.stem}.txt"
            shutil.copy(label, folder / "labels")
        data = folder / "data.yaml"
        data.write_text("train: none\nval: images\nnames: [Platelets, RBC, WBC]\n")
        return data

    return write


def plain(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".png"))


@pytest.mark.slow
@pytest.mark.parametrize(("orientation", "ending"), [(6, "png"), (5, "webp")])
def test_turned_pictures_score_as_upright_ones(
    shared: Path, bccd: Callable[..., Path], orientation: int, ending: str
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    more: dict[str, Any] = {"lossless": True} if ending == "webp" else {}

    def turned(image: Image.Image, path: Path) -> None:
        stored = image.transpose(BACK[orientation])
        stored.save(path.with_suffix(f".{ending}"), exif=exif, **more)

    assert score(shared, bccd(turned)) == score(shared, bccd(plain)) > 0.4


@pytest.mark.slow
def test_16_bits_of_grey_score_as_8(shared: Path, bccd: Callable[..., Path]) -> None:
    def grey(image: Image.Image, path: Path) -> None:
        image.convert("L").save(path.with_suffix(".png"))

    def wide(image: Image.Image, path: Path) -> None:
        values = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(values).save(path.with_suffix(".tif"))

    assert score(shared, bccd(wide)) == score(shared, bccd(grey)) > 0.05


@pytest.mark.slow
def test_boxes_of_stored_pixels_turn_with_their_picture(
    shared: Path, bccd: Callable[..., Path]
) -> None:
    """A JSON of the pictures as they are stored, as labelling tools without EXIF write it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6

    def turned(image: Image.Image, path: Path) -> None:
        image.transpose(BACK[6]).save(path.with_suffix(".png"), exif=exif)

    folder = bccd(turned).parent
    top = json.loads((shared / "data/bccd/annotations/instances_val.json").read_text())
    top["images"] = top["images"][:4]
    for entry in top["images"]:
        entry["file_name"] = f"{Path(entry['file_name']).stem}.png"
    sources = {"upright": json.loads(json.dumps(top)), "stored": top}
    widths = {entry["id"]: entry["width"] for entry in top["images"]}
    for entry in top["images"]:
        entry["width"], entry["height"] = entry["height"], entry["width"]
    for entry in top["annotations"]:
        if entry["image_id"] in widths:
            x, y, w, h = entry["bbox"]
            entry["bbox"] = [y, widths[entry["image_id"]] - x - w, h, w]
    scores = []
    for name, content in sources.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content))
        scores.append(score(shared, path, images=folder / "images"))
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[0] > 0.4


def files_of(folder: Path, picture: Callable[[Path], None]) -> Path:
    """A data set of ten pictures in both splits with one object each, of two classes."""
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for i in range(10):
        picture(folder / f"images/{i}.png")
        (folder / f"labels/{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.2 0.2\n")
    data = folder / "data.yaml"
    data.write_text("train: images\nval: images\nnames: [cat, dog]\n")
    return data


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)

    def picture(path: Path) -> None:
        Image.fromarray(noise.integers(0, 256, (64, 64, 3), np.uint8)).save(path)

    return files_of(tmp_path, picture)


SMALLEST = {
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], *([-1, 1, "Conv", [8, 3, 2]] for _ in range(4))],
    "head": [[[2, 3, 4], 1, "Detect", ["nc"]]],
}


@pytest.fixture
def one_class(tmp_path: Path, checkpoints: ModuleType) -> Path:
    path = tmp_path / "one.pt"
    detector = checkpoints.make(SMALLEST, nc=1)
    checkpoints.save(path, detector, "ultralytics", names=["animal"], args={"imgsz": 64})
    return path


def test_single_class_is_offered_and_taken(
    run: Callable[..., Any], one_class: Path, animals: Path
) -> None:
    for command in (["eval", one_class], ["compile", one_class, "--passes", "fuse", "--no-html"]):
        refused = run(*command, "--data", animals, "-q")
        assert refused.code == 1
        assert "has 2 classes but the model predicts 1; add --single-class" in refused.err
        assert run(*command, "--data", animals, "-q", "--single-class").code == 0
    recipe = next(Path.cwd().glob("*.recipe.toml")).read_text()
    assert "single_class = true" in recipe


def test_what_is_left_out_is_counted_and_strict_stops(
    run: Callable[..., Any], one_class: Path, animals: Path
) -> None:
    (animals.parent / "labels/3.txt").write_text("0 0.5 0.5 0.2\n")
    (animals.parent / "images/4.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    arguments = ["eval", one_class, "--data", animals, "--single-class"]
    found = json.loads(run(*arguments, "--json", "-q").out)
    assert (found["images"], found["unreadable"]) == (8, 1)
    said = "\n".join(found["warnings"])
    assert "1 of the 10 images of 'val' of" in said
    assert "3.txt:1 has 4 numbers" in said
    assert "1 evaluation images could not be read, the first was" in said
    assert "no image format that is read here" in said
    assert "warning" in run(*arguments, "-q").out
    stopped = run(*arguments, "--strict")
    assert (stopped.code, "3.txt:1 has 4 numbers" in stopped.err) == (1, True)
