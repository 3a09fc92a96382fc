"""What loading refuses, each time in a sentence that says what and where."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
import torch
from torch import nn

from tests.models import checkpoints as helper
from yqc.errors import (
    CheckpointError,
    UnknownBlockError,
    UnsupportedTaskError,
)
from yqc.models.load import load
from yqc.models.register import find_twin, register_block

Specs = Mapping[str, Any]


def refusal(path: Path, error: type[CheckpointError] = CheckpointError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        load(path, **options)
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("class_path", "task"),
    [
        ("ultralytics.nn.tasks.SemanticSegmentationModel", "semantic segmentation"),
        ("ultralytics.nn.tasks.DepthModel", "depth estimation"),
        ("ultralytics.nn.tasks.WorldModel", "open-vocabulary detection"),
        ("ultralytics.nn.tasks.YOLOESegModel", "open-vocabulary detection"),
        ("ultralytics.nn.tasks.RTDETRDetectionModel", "RT-DETR"),
        ("models.experimental.Ensemble", "several models"),
    ],
)
def test_other_tasks(
    class_path: str, task: str, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics", class_path=class_path)
    message = refusal(path, UnsupportedTaskError)
    assert task in message
    assert message.endswith("which yqc does not compile")
    assert "\n" not in message


@pytest.mark.parametrize(
    "head", ["models.yolo.ISegment", "models.yolo.IKeypoint", "models.yolo.DualDSegment"]
)
def test_heads_of_other_tasks(head: str, tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    v8.head.pickle_as = head
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")
    assert head.rpartition(".")[2] in refusal(path, UnsupportedTaskError)


def test_an_unknown_block_is_named_with_the_lines_that_register_it(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    v8.model[2].pickle_as = "ultralytics.nn.modules.block.NewBlock"
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")
    message = refusal(path, UnknownBlockError)
    assert "model.2 is a ultralytics.nn.modules.block.NewBlock, for which yqc has no" in message
    _, *lines = message.splitlines()
    exec("\n".join(line.removeprefix("    ") for line in lines))  # noqa: S102  # it is runnable
    twin = find_twin("ultralytics.nn.modules.block.NewBlock")
    assert twin is not None
    assert twin.__name__ == "NewBlockTwin"


def test_all_unknown_classes_are_named_at_once_with_the_lines_that_register_them(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    v8.model[2].pickle_as = v8.model[6].pickle_as = "acme.blocks.Twist"
    v8.model[2].m[0].pickle_as = "ultralytics.nn.modules.block.Inner"
    v8.head.pickle_as = "ultralytics.nn.modules.head.Detect_Mine"
    v8.model[0].act = nn.FractionalMaxPool2d(2, 2)
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")
    message = refusal(path, UnknownBlockError)
    first, *lines = message.splitlines()
    assert first.startswith(
        "model.0.act is a torch.nn.modules.pooling.FractionalMaxPool2d, model.2 is a"
        " acme.blocks.Twist, model.2.m.0 is a ultralytics.nn.modules.block.Inner, model.10 is a"
        " ultralytics.nn.modules.head.Detect_Mine, for which yqc has no twin; nothing of it was run"
    )
    exec("\n".join(line.removeprefix("    ") for line in lines))  # noqa: S102
    head: Any = find_twin("ultralytics.nn.modules.head.Detect_Mine")
    assert head.layout == "yolov8"
    assert not hasattr(find_twin("acme.blocks.Twist"), "layout")


def test_a_users_own_block(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    v8.model[2].pickle_as = "acme.blocks.Twice"
    v8.model[2].factor, v8.model[2].forward_note = 2.0, "plain data"
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")
    with pytest.raises(UnknownBlockError, match=r"model\.2 is a acme\.blocks\.Twice, for which"):
        load(path)

    class Twice(nn.Module):
        def forward(self: Any, x: torch.Tensor) -> Any:
            y = self.cv1(x).chunk(2, 1)
            steps = [y[0], y[1]]
            for m in self.m:
                steps.append(m(steps[-1]))
            return self.factor * self.cv2(torch.cat(steps, 1))

    x = checkpoints.images(1)
    plain = v8.model[2]
    with torch.no_grad():
        before = plain(v8.model[1](v8.model[0](x)))
    register_block("acme.blocks.Twice", Twice)
    loaded = load(path)
    assert loaded.blocks["Twice"] == 1
    layers: Any = loaded.module.model
    torch.testing.assert_close(layers[2](layers[1](layers[0](x))), 2 * before)


@pytest.mark.parametrize("bad", ["Block", "a.1b", ""])
def test_registering_nonsense(bad: str) -> None:
    with pytest.raises(CheckpointError, match="is no class path"):
        register_block(bad, nn.Identity)
    with pytest.raises(CheckpointError, match=r"must be a class derived from nn\.Module"):
        register_block("acme.Block", dict)  # type: ignore[arg-type]


class NeedsArguments(nn.Module):
    def __new__(cls, _size: int) -> Self:
        return super().__new__(cls)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Empty(nn.Module):
    pass


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        (NeedsArguments, "NeedsArguments cannot be the twin of acme.Block: it cannot be made with"),
        (Empty, "it has no forward"),
        (nn.Transformer, "torch does not keep what it is made from"),
        (nn.LazyConv2d, "torch does not keep what it is made from"),
    ],
)
def test_a_class_that_cannot_be_rebuilt_is_no_twin(twin: type[nn.Module], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        register_block("acme.Block", twin)


def test_a_class_of_torch_is_a_twin_of_one_derived_from_it(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    v8.model[0].conv.pickle_as = "acme.blocks.MyConv"
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")
    register_block("acme.blocks.MyConv", nn.Conv2d)
    x = checkpoints.images(1)
    with torch.no_grad():
        torch.testing.assert_close(load(path).module(x), v8(x))


def test_files_that_hold_no_model(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for content in ({"epoch": 3}, [1, 2], {"model": None, "ema": None}, nn.Linear(2, 2)):
        torch.save(content, path)
        assert "holds no YOLO model" in refusal(path)


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_text("hello", encoding="utf-8")
    refusal(path)
    refusal(tmp_path / "absent.pt")


def damaged(path: Path, detector: Any, checkpoints: ModuleType, edit: Any) -> Path:
    """Write a checkpoint whose pickled model `edit` has spoilt."""
    with checkpoints.project_modules():
        model = checkpoints.pickled_model(detector, "ultralytics")
        edit(model.model)
        torch.save({"model": model}, path)
    return path


def drop_weight(layers: Any) -> None:
    layers[0].conv._parameters = {"bias": None}


def reshape_weight(layers: Any) -> None:
    layers[0].conv.weight = nn.Parameter(torch.rand(3, 3, 3, 3))


def text_for_tensor(layers: Any) -> None:
    layers[0].conv.__dict__["_parameters"] = {"weight": "w", "bias": None}


def look_ahead(layers: Any) -> None:
    layers[2].f = 7


def text_route(layers: Any) -> None:
    layers[2].f = "layer 1"


def wrong_route(layers: Any) -> None:
    layers[8].f = [-1, 1]


def other_strides(layers: Any) -> None:
    layers[-1].stride = torch.tensor([4.0, 8.0, 16.0])


def many_pools(layers: Any) -> None:
    layers[6].n = 10**9


def text_for_number(layers: Any) -> None:
    layers[-1].nc = "three"


def wrong_number(layers: Any) -> None:
    layers[-1].nc = 5


def no_number(layers: Any) -> None:
    del layers[-1].nc


def no_head(layers: Any) -> None:
    del layers[-1]


def bad_kernel(layers: Any) -> None:
    layers[0].conv.kernel_size = ("a", 3)


def bad_groups(layers: Any) -> None:
    layers[0].conv.groups = 5


def strange_module(layers: Any) -> None:
    layers[0].act = nn.FractionalMaxPool2d(2, 2)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (drop_weight, "model.0.conv.weight is missing"),
        (reshape_weight, "model.0.conv.weight has shape [3, 3, 3, 3], but its layer declares"),
        (text_for_tensor, "model.0.conv.weight is a str, not a tensor"),
        (look_ahead, "layer 2 takes its input from 7"),
        (text_route, "layer 2 takes its input from 'layer 1'"),
        (wrong_route, "layer 8, a Concat, does not work on its input"),
        (other_strides, "records strides [4.0, 8.0, 16.0], but its layers make [8.0, 16.0, 32.0]"),
        (many_pools, "model.6.n is 1000000000, so many pools in a row"),
        (text_for_number, "model.10.nc is 'three', not a"),
        (wrong_number, "not 5 on each of 3 levels"),
        (no_number, "model.10.nc is missing"),
        (no_head, "last layer is not a detection head"),
        (bad_kernel, "model.0.conv cannot be made"),
        (bad_groups, "model.0.conv cannot be made"),
    ],
)
def test_damage_is_named(
    edit: Any, said: str, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    message = refusal(damaged(tmp_path / "m.pt", v8, checkpoints, edit))
    assert said in message
    assert "\n" not in message


def test_a_module_of_torch_that_yqc_does_not_know(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = damaged(tmp_path / "m.pt", v8, checkpoints, strange_module)
    message = refusal(path, UnknownBlockError)
    assert "model.0.act is a torch.nn.modules.pooling.FractionalMaxPool2d" in message
    assert 'register_block("torch.nn.modules.pooling.FractionalMaxPool2d"' in message


def test_a_one_to_one_head_that_is_not_there(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = checkpoints.save(tmp_path / "m.pt", v8, "ultralytics")
    assert refusal(path, head="one2one") == "the model has no one-to-one head; leave --head out"


def no_branches(layers: Any) -> None:
    del layers[-1].cv2, layers[-1].cv3


def few_maps(layers: Any) -> None:
    layers[-1].f = [3, 9]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (no_branches, "the head has no branches cv2"),
        (few_maps, "the head takes 3 maps and is given 2"),
    ],
)
def test_deeper_damage_is_named(
    edit: Any, said: str, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    assert said in refusal(damaged(tmp_path / "m.pt", v8, checkpoints, edit))


def test_modules_that_unfold_without_end_are_refused(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    def unfold(layers: Any) -> None:
        block: nn.Module = nn.SiLU()
        for _ in range(15):
            block = nn.Sequential(block, block)
        layers[0].act = block

    message = refusal(damaged(tmp_path / "m.pt", v8, checkpoints, unfold))
    assert "runs more than 20,000 modules" in message


def escape_in_a_class(layers: Any) -> None:
    layers[2].__class__ = helper.stand_in("models.common.New\x1b[31mBlock")


def escape_in_a_child(layers: Any) -> None:
    layers[2]._modules["se\x1b]0;owned\x07"] = nn.Conv2d(4, 4, 1)


def escape_in_a_path(layers: Any) -> None:
    layers[2].m._modules["\x1b[2J"] = nn.FractionalMaxPool2d(2, 2)


@pytest.mark.parametrize("edit", [escape_in_a_class, escape_in_a_child, escape_in_a_path])
def test_names_out_of_a_file_hold_no_terminal_commands(
    edit: Any, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    message = refusal(damaged(tmp_path / "m.pt", v8, checkpoints, edit), UnknownBlockError)
    assert "\\x1b" in message
    assert message.replace("\n", "").isprintable()
