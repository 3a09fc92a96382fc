"""Everything that a checkpoint stores is used, or the load is refused naming what is not."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from yqc.errors import UnknownBlockError
from yqc.models.load import load
from yqc.models.register import register_block

Edit = Callable[[Any], None]


def saved(path: Path, detector: Any, checkpoints: ModuleType, edit: Edit, **top: Any) -> Path:
    """Write a checkpoint whose pickled model `edit` has changed."""
    with checkpoints.project_modules():
        model = checkpoints.pickled_model(detector, "ultralytics", names=["a", "b", "c"])
        edit(model)
        torch.save({"model": model, **top}, path)
    return path


def child_of_a_block(model: Any) -> None:
    model.model[2].se = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid())


def activation_in_a_block(model: Any) -> None:
    model.model[2].gelu = nn.GELU()


def child_of_the_head(model: Any) -> None:
    model.model[-1].aux = nn.ModuleList([nn.Conv2d(4, 4, 1)])


def parameter_of_a_block(model: Any) -> None:
    model.model[0].gain = nn.Parameter(torch.ones(1))


def parameter_of_a_convolution(model: Any) -> None:
    model.model[0].conv.gain = nn.Parameter(torch.ones(1))


def buffer_of_a_batch_norm(model: Any) -> None:
    model.model[0].bn.register_buffer("shift", torch.zeros(3))


def scalar(model: Any) -> None:
    model.model[2].alpha = 0.5


def switch(model: Any) -> None:
    model.model[2].m[0].no_residual = True


def tensor(model: Any) -> None:
    model.model[2].alpha = torch.tensor(0.5)


def tensors_in_a_list(model: Any) -> None:
    model.model[-1].offsets = [torch.zeros(2)]


def hidden_modules(model: Any) -> None:
    model.model[2].__dict__["extra"] = [nn.Conv2d(4, 4, 1)]


def forward(model: Any) -> None:
    model.model[2].forward = functools.partial(torch.nn.SiLU)


def forward_of_a_convolution(model: Any) -> None:
    model.model[0].conv.forward = functools.partial(torch.nn.SiLU)


def beside_the_layers(model: Any) -> None:
    model.neck = nn.Conv2d(4, 4, 1)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (child_of_a_block, "model.2 (C2f) also holds se, which yqc's C2f does not use"),
        (activation_in_a_block, "model.2 (C2f) also holds gelu, which"),
        (child_of_the_head, "model.10 (Detect) also holds aux, which"),
        (parameter_of_a_block, "model.0 (Conv) also holds gain, which"),
        (parameter_of_a_convolution, "model.0.conv (Conv2d) also holds gain, which torch's Conv2d"),
        (buffer_of_a_batch_norm, "model.0.bn (BatchNorm2d) also holds shift, which"),
        (scalar, "model.2 (C2f) also holds alpha, which"),
        (switch, "model.2.m.0 (Bottleneck) also holds no_residual, which"),
        (tensor, "model.2 (C2f) also holds alpha, which"),
        (tensors_in_a_list, "model.10 (Detect) also holds offsets, which"),
        (hidden_modules, "model.2 (C2f) also holds extra, which"),
        (forward, "model.2 (C2f) also holds forward, which"),
        (forward_of_a_convolution, "model.0.conv (Conv2d) also holds forward, which"),
        (beside_the_layers, "the model (DetectionModel) also holds neck, which"),
    ],
)
def test_what_no_twin_uses_refuses_the_load(
    edit: Edit, said: str, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = saved(tmp_path / "m.pt", v8, checkpoints, edit)
    with pytest.raises(UnknownBlockError) as caught:
        load(path)
    message = str(caught.value)
    assert said in message
    assert "the block was edited; register a twin" in message
    assert "yqc.register_block(" in message


def test_what_never_reaches_a_forward_is_no_reason_to_refuse(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    def edit(model: Any) -> None:
        for module in model.modules():
            module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
            module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
        model.model[2].note, model.model[2].nothing = "from the paper", None
        model.model[-1].agnostic_nms, model.model[-1].format = False, "onnx"

    x = checkpoints.images(1)
    with torch.no_grad():
        want = v8(x)
    loaded = load(saved(tmp_path / "m.pt", v8, checkpoints, edit))
    torch.testing.assert_close(loaded.module(x), want)
    assert loaded.warnings == ()


def test_a_replaced_activation_is_used(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    v8.model[0].act = nn.LeakyReLU(0.3)
    x = checkpoints.images(1)
    with torch.no_grad():
        want = v8(x)
    loaded = load(checkpoints.save(tmp_path / "m.pt", v8, "ultralytics"))
    torch.testing.assert_close(loaded.module(x), want)


def test_a_registered_twin_of_an_edited_block_decides_and_what_it_leaves_out_is_said(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    class Scaled(nn.Module):
        def forward(self: Any, x: torch.Tensor) -> Any:
            parts = list(self.cv1(x).chunk(2, 1))
            for m in self.m:
                parts.append(m(parts[-1]))
            return self.alpha * self.cv2(torch.cat(parts, 1))

    def edit(model: Any) -> None:
        for i in (2, 9):
            model.model[i].alpha = 0.5
        child_of_a_block(model)

    path = saved(tmp_path / "m.pt", v8, checkpoints, edit)
    register_block("ultralytics.nn.modules.block.C2f", Scaled)
    loaded = load(path)
    assert loaded.warnings == (
        "model.2 (C2f) also holds se, which its registered twin Scaled does not use",
    )


@pytest.mark.parametrize("name", ["yolov5", "yolov7", "yolov10", "yolo26"])
def test_stale_parts_of_heads_are_known(
    name: str, tmp_path: Path, checkpoints: ModuleType, specs: Mapping[str, Any]
) -> None:
    detector = checkpoints.make(specs[name])
    load(checkpoints.save(tmp_path / "m.pt", detector, specs[name]["project"]))


def test_the_edited_block_of_the_cases(shared: Path) -> None:
    path = shared / "cases" / "inplace_C2f_se.pt"
    if not path.is_file():
        pytest.skip("needs the cases")
    with pytest.raises(UnknownBlockError, match=r"model\.2 \(C2f\) also holds se, which"):
        load(path)
