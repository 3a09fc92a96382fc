"""What a checkpoint with unknown blocks tells, and what is refused all the same."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from yqc.errors import CheckpointError, ForbiddenGlobalError, UnsupportedTaskError
from yqc.look.summary import summarize
from yqc.models.load import load
from yqc.models.survey import survey

Specs = Mapping[str, Any]


@pytest.mark.parametrize("zipped", [True, False])
def test_names_what_is_unknown_wherever_it_lives(
    zipped: bool, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    v8.model[2].m[0].pickle_as = "acme.blocks.Twist"
    v8.model[6].pickle_as = "ultralytics.nn.modules.block.NewBlock"
    v8.model[3].act = nn.FractionalMaxPool2d(2, 2)
    named: dict[str, Any] = {"names": {0: "cat", 1: "dog", 2: "fox"}}
    named |= {"yaml_file": "yolov8.yaml", "yaml": {"scale": "s"}}
    top = {"train_args": {"imgsz": 320}}
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics", zipped=zipped, top=top, **named)
    found = survey(path)
    assert found.unknown == (
        "acme.blocks.Twist",
        "torch.nn.modules.pooling.FractionalMaxPool2d",
        "ultralytics.nn.modules.block.NewBlock",
    )
    assert (found.family, found.name, found.imgsz) == ("ultralytics", "yolov8s", (320, 320))
    assert (found.names, found.strides) == (("cat", "dog", "fox"), (8, 16, 32))
    assert (found.blocks["Twist"], found.blocks["NewBlock"], found.blocks["Detect"]) == (1, 1, 1)
    assert found.blocks["FractionalMaxPool2d"] == 1
    for kind in found.unknown:
        assert f'    yqc.register_block("{kind}", {kind.rpartition(".")[2]}Twin)' in found.advice
    assert found.advice.count("import torch, yqc") == 1


@pytest.mark.parametrize("name", ["yolov5", "yolov7-e6e", "yolov8", "yolov10", "yolo12"])
def test_agrees_with_loading_where_nothing_is_unknown(
    name: str, tmp_path: Path, checkpoints: ModuleType, specs: Specs
) -> None:
    spec = specs[name]
    named = {"names": ["a", "b", "c"], "yaml_file": f"{name}.yaml"}
    path = checkpoints.save(tmp_path / "m.pt", checkpoints.make(spec), spec["project"], **named)
    found, loaded = survey(path), load(path)
    assert found.unknown == ()
    assert found.strides[: len(loaded.strides)] == loaded.strides
    for key in ("family", "name", "names", "imgsz"):
        assert getattr(found, key) == getattr(loaded, key)
    assert {k: v for k, v in found.blocks.items() if k != "MultiheadAttention"} == loaded.blocks


def test_an_object_beside_the_model_is_data(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    with checkpoints.project_modules():
        settings = checkpoints.stand_in("acme.config.Settings")()
        path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics", top={"opt": settings})
    assert load(path).nc == 3
    assert summarize(path).unknown == ()


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_what_no_module_needs_is_refused_all_the_same(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    v8.model[2].pickle_as = "acme.blocks.Twist"
    mark = tmp_path / "mark"
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics", top={"opt": Evil(mark)})
    with pytest.raises(ForbiddenGlobalError, match=r"posix\.system, which is not among"):
        summarize(path)
    assert not mark.exists()


def test_other_tasks_and_other_models_are_still_refused(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    v8.model[2].pickle_as = "acme.blocks.Twist"
    task = {"class_path": "ultralytics.nn.tasks.DepthModel"}
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics", **task)
    with pytest.raises(UnsupportedTaskError, match=r"m\.pt: the checkpoint is for depth"):
        summarize(path)
    with checkpoints.project_modules():
        model = checkpoints.stand_in("acme.nets.Net")()
        model.layer = nn.Linear(2, 2)
        torch.save({"model": model}, tmp_path / "n.pt")
    with pytest.raises(CheckpointError, match=r"n\.pt: the file holds no YOLO model"):
        summarize(tmp_path / "n.pt")


def test_an_unknown_row_of_a_model_yaml_is_no_matter_of_the_checkpoint(
    tmp_path: Path, v8: Any
) -> None:
    torch.save(v8.state_dict(), tmp_path / "w.pt")
    arch = tmp_path / "a.yaml"
    arch.write_text("backbone: [[-1, 1, Twist, [8]]]\nhead: [[[0], 1, Detect, [nc]]]\n")
    with pytest.raises(CheckpointError, match="Twist"):
        summarize(tmp_path / "w.pt", arch=arch)


def test_an_onnx_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x08\x08")
    with pytest.raises(CheckpointError) as caught:
        summarize(path)
    assert str(caught.value) == (
        f"{path} is an ONNX file; give the checkpoint it was made from (.pt): only "
        "`yqc eval` and `yqc bench` take ONNX files"
    )
