"""Classifiers see images as they were trained to: size and normalisation from their checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from yqc.errors import CheckpointError
from yqc.models.load import load
from yqc.models.pickles.read import Inert
from yqc.models.transforms import IMAGENET, ImageTransforms, read_transforms

HOME = "torchvision.transforms.transforms"


def steps(*given: tuple[str, dict[str, Any]]) -> Inert:
    return Inert(f"{HOME}.Compose", (), {"transforms": [Inert(p, (), s) for p, s in given]})


@pytest.mark.parametrize(
    ("stored", "want"),
    [
        (None, None),
        (steps((f"{HOME}.Resize", {"size": 96}), (f"{HOME}.ToTensor", {})), (96, 96)),
        (steps((f"{HOME}.CenterCrop", {"size": (64, 80)})), (64, 80)),
        (steps(("utils.augmentations.CenterCrop", {"h": 32, "w": 48})), (32, 48)),
        (steps((f"{HOME}.Resize", {"size": 70}), (f"{HOME}.CenterCrop", {"size": [64]})), (64, 64)),
        (steps((f"{HOME}.CenterCrop", {"size": 1 << 20})), None),
    ],
)
def test_the_size_is_that_of_the_crop(stored: Any, want: Any) -> None:
    found = read_transforms(stored)
    assert (found and found.size) == want
    assert found is None or not found.normalises


def test_a_normalisation_by_0_and_1_is_none() -> None:
    same = {"mean": torch.zeros(3), "std": torch.ones(3)}
    other = {"mean": [0.5, 0.5, 0.5], "std": (0.25, 0.25, 0.25)}
    found = [read_transforms(steps((f"{HOME}.Normalize", state))) for state in (same, other)]
    assert [each and each.normalises for each in found] == [False, True]
    assert found[1] == ImageTransforms(None, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("std", [None, [], [0.0, 1.0, 1.0], [1.0]])
def test_a_damaged_normalisation_is_refused(std: Any) -> None:
    stored = steps((f"{HOME}.Normalize", {"mean": [0.5, 0.5, 0.5], "std": std}))
    with pytest.raises(CheckpointError, match="normalisation of its images is damaged"):
        read_transforms(stored)


CLASSIFIER = {
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C3", [8]]],
    "head": [[-1, 1, "Classify", ["nc"]]],
}


@pytest.mark.parametrize("project", ["yolov5", "ultralytics"])
def test_yolov5_classifiers_normalise_as_imagenet(
    project: str, tmp_path: Path, checkpoints: ModuleType
) -> None:
    detector, x = checkpoints.make(CLASSIFIER), checkpoints.images()
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
    given = (x - mean) / std if project == "yolov5" else x
    with torch.no_grad():
        want = detector(given)
    path = checkpoints.save(tmp_path / "m.pt", detector, project, names=["a", "b", "c"])
    found = load(path)
    assert (found.family, found.task, found.facts.size) == (project, "classify", (224, 224))
    torch.testing.assert_close(found.module(x), want, rtol=1e-5, atol=1e-5)
    said = "the file records no normalisation; that of ImageNet is assumed"
    assert found.warnings == ((said,) if project == "yolov5" else ())


def test_heads_that_store_the_forward_of_their_base_load(
    tmp_path: Path, specs: Mapping[str, Any], checkpoints: ModuleType
) -> None:
    """Early heads of tasks hold `Detect.forward`, which pickles as an attribute of a class."""
    path, detector = tmp_path / "m.pt", checkpoints.make(specs["yolov8-obb"])
    with checkpoints.project_modules():
        model = checkpoints.pickled_model(detector, "ultralytics", names=["a", "b", "c"])
        base = checkpoints.stand_in("ultralytics.nn.modules.head.Detect")

        def forward(_: object) -> None: ...

        forward.__qualname__, forward.__module__ = "Detect.forward", base.__module__
        base.forward = forward
        model.model[-1].__dict__["detect"] = forward
        torch.save({"model": model}, path)
    assert b"getattr" in path.read_bytes()
    assert load(path).task == "obb"
