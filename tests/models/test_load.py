"""What loading finds in a checkpoint, in whichever release's form it is."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from yqc.models.load import load

Specs = Mapping[str, Any]


def test_facts(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    path = checkpoints.save(
        tmp_path / "best.pt",
        v8,
        "ultralytics",
        names={0: "cat", 1: "dog", 2: "owl"},
        yaml={"yaml_file": "yolov8-p2.yaml", "scale": "s"},
        top={"train_args": {"imgsz": 320, "task": "detect"}},
    )
    model = load(str(path))
    assert (model.path, model.family, model.name) == (path, "ultralytics", "yolov8s-p2")
    assert (model.task, model.imgsz, model.layout) == ("detect", (320, 320), "yolov8")
    assert model.names == ("cat", "dog", "owl")
    assert len(model.sha256) == 64
    assert model.blocks["C2f"] == 2
    assert model.blocks["Conv"] > 20
    assert model.warnings == ()


@pytest.mark.parametrize(
    ("recorded", "size"),
    [
        ({"top": {"opt": {"imgsz": 512}}}, 512),
        ({"top": {"opt": argparse.Namespace(imgsz=416)}}, 416),
        ({"top": {"opt": {"img_size": [448, 640]}}}, 448),
        ({"args": {"imgsz": 256}}, 256),
        ({"top": {"train_args": {"imgsz": True}}}, None),
        ({}, None),
    ],
)
def test_training_size(
    recorded: Any, size: int | None, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics", **recorded)
    assert load(path).imgsz == (None if size is None else (size, size))


def test_averaged_weights_are_preferred_wherever_they_stand(
    tmp_path: Path, checkpoints: ModuleType, specs: Specs
) -> None:
    other, averaged = (checkpoints.make(specs["yolov5"], seed=seed) for seed in (1, 2))
    x = checkpoints.images(1)
    with torch.no_grad():
        want = averaged(x)
    with checkpoints.project_modules():
        model = checkpoints.pickled_model(other, "yolov5")
        ema = checkpoints.pickled_model(averaged, "yolov5")
        holder = checkpoints.stand_in("utils.torch_utils.ModelEMA")()
        holder.__dict__["ema"] = ema
        forms = {"plain": ema, "pair": (ema, 300), "holder": holder}
        for name, form in forms.items():
            torch.save({"model": model, "ema": form}, tmp_path / f"{name}.pt")
        torch.save(ema, tmp_path / "bare.pt")
    for name in (*forms, "bare"):
        torch.testing.assert_close(load(tmp_path / f"{name}.pt").module(x), want)


def test_the_form_before_zip_files_loads(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    x = checkpoints.images(1)
    with torch.no_grad():
        want = v8(x)
    path = checkpoints.save(tmp_path / "old.pt", v8, "ultralytics", zipped=False)
    torch.testing.assert_close(load(path).module(x), want)


def test_class_paths_of_the_first_ultralytics_release(
    tmp_path: Path, v8: Any, checkpoints: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = checkpoints.class_path
    monkeypatch.setattr(
        checkpoints,
        "class_path",
        lambda m, p: "ultralytics.nn.modules." + now(m, p).rpartition(".")[2],
    )
    assert load(checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")).blocks["C2f"] == 2


def test_a_grid_of_anchors_as_old_releases_store_it_is_ignored(
    tmp_path: Path, checkpoints: ModuleType, specs: Specs
) -> None:
    detector = checkpoints.make(specs["yolov5"])
    x = checkpoints.images(1)
    with torch.no_grad():
        want = detector(x)
    detector.head.register_buffer("anchor_grid", torch.rand(3, 1, 3, 1, 1, 2))
    path = checkpoints.save(tmp_path / "m.pt", detector, "yolov5")
    loaded: Any = load(path).module
    assert "anchor_grid" not in dict(loaded.model[-1].named_buffers())
    torch.testing.assert_close(loaded(x), want)


def test_batch_norm_keeps_its_own_epsilon(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    v8.model[0].bn.eps = 0.25
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")
    loaded: Any = load(path).module
    assert loaded.model[0].bn.eps == 0.25
    assert loaded.model[1].bn.eps == 1e-3


def test_a_shared_activation_becomes_one_a_use(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    v8.model[0].act = v8.model[1].act
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")
    loaded: Any = load(path).module
    assert loaded.model[0].act is not loaded.model[1].act


def test_a_layer_stored_twice_stays_one(
    tmp_path: Path, checkpoints: ModuleType, specs: Specs
) -> None:
    detector = checkpoints.make(specs["yolov8"], scale="s")
    steps = detector.model[2].m
    steps[1] = steps[0]
    loaded: Any = load(checkpoints.save(tmp_path / "m.pt", detector, "ultralytics")).module
    assert loaded.model[2].m[0] is loaded.model[2].m[1]


def test_names_that_do_not_fit_are_reported(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics", names={0: "cat", 5: "dog"})
    model = load(path)
    assert model.names == ("cat", "1", "2")
    assert model.warnings == ("the file names 2 classes, but its head has 3",)


def test_batch_norms_of_distributed_training(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    x = checkpoints.images(1)
    with torch.no_grad():
        want = v8(x)
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    synced = convert(v8)
    loaded = load(checkpoints.save(tmp_path / "m.pt", synced, "ultralytics"))
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in loaded.module.modules())
    torch.testing.assert_close(loaded.module(x), want)
