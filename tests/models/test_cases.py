"""Checkpoints of users that once did not load: equal outputs from what their projects wrote."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from yqc.errors import CheckpointError, UnknownBlockError
from yqc.models.blocks.attention import AAttn
from yqc.models.blocks.conv import Conv
from yqc.models.load import load
from yqc.models.pickles.globals import BUILDERS
from yqc.models.pickles.read import Inert, Named
from yqc.models.pickles.values import Allowance, MalformedError

CASES = ("dill-ultralytics-8.0.145", "fused-then-saved", "t12_yolov12n")


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_the_projects_own(name: str, shared: Path) -> None:
    path = shared / "cases" / f"{name}.pt"
    if not path.is_file():
        pytest.skip("needs the cases")
    with np.load(path.with_suffix(".npz")) as arrays:
        x, want = (arrays[k] for k in (("x", "y") if "x" in arrays else ("input", "output")))
    with torch.no_grad():
        got = load(path).module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got[:, :4], want[:, :4], rtol=0, atol=0.02)
    np.testing.assert_allclose(got[:, 4:], want[:, 4:], rtol=0, atol=5e-5)


def test_a_torchscript_file_says_what_to_give_instead(shared: Path) -> None:
    path = shared / "cases" / "m.torchscript"
    if not path.is_file():
        pytest.skip("needs the cases")
    with pytest.raises(CheckpointError, match="TorchScript export; give the checkpoint it was"):
        load(path)


class Rebound:
    """Pickles as `getattr(owner, name)`."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.owner, self.name)


def fused(path: Path, detector: Any, checkpoints: ModuleType, name: str) -> Path:
    """Write a checkpoint whose convolutions run another forward than that of their class."""
    with checkpoints.project_modules():
        model = checkpoints.pickled_model(detector, "ultralytics", names=["a", "b", "c"])
        for module in model.modules():
            if type(module).__name__ == "Conv":
                setattr(type(module), name, None)
                module.forward = Rebound(module, name)
        torch.save({"model": model}, path)
    return path


def test_a_fused_forward_leaves_batch_norms_out(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = fused(tmp_path / "m.pt", v8, checkpoints, "forward_fuse")
    for module in v8.modules():
        if isinstance(module, Conv):
            module.bn = torch.nn.Identity()  # type: ignore[assignment]  # as after fusing
    x = checkpoints.images(1)
    with torch.no_grad():
        want = v8(x)
    torch.testing.assert_close(load(path).module(x), want)


def test_another_forward_is_refused(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    path = fused(tmp_path / "m.pt", v8, checkpoints, "forward_mine")
    with pytest.raises(UnknownBlockError, match=r"model\.0 \(Conv\) also holds forward, which"):
        load(path)


@pytest.mark.parametrize(
    ("path", "args"),
    [
        ("builtins.getattr", (Inert("a.B"), "__class__")),
        ("builtins.getattr", (Named("a.B"), "forward_fuse")),
        ("builtins.getattr", (Inert("a.B"), "forward_fuse", None)),
        ("dill._dill._load_type", (3,)),
        ("dill._dill._import_module", ()),
        ("dill._dill._get_attr", ({}, "keys")),
        ("dill._dill._create_type", ("type", "X")),
        ("types.MethodType", ("forward", Inert("a.B"))),
        ("dill._dill._load_type", ()),
    ],
)
def test_what_is_called_by_other_names_is_refused(path: str, args: tuple[object, ...]) -> None:
    with pytest.raises(MalformedError):
        BUILDERS[path](args, Allowance())


def test_attention_with_queries_and_keys_apart_from_values() -> None:
    torch.manual_seed(0)
    packed = AAttn(8, 2, 2).eval()
    apart = AAttn(8, 2, 2).eval()
    apart.load_state_dict(packed.state_dict())
    weight = packed.qkv.conv.weight.data.view(2, 3, 4, 8, 1, 1)  # heads, q k v, channels
    norm = packed.qkv.bn
    torch.nn.init.uniform_(norm.weight, 1.0, 1.0)
    del apart.qkv
    apart.qk, apart.v = Conv(8, 16, act=False).eval(), Conv(8, 8, act=False).eval()
    apart.qk.conv.weight.data = torch.cat(
        (weight[:, 0].reshape(8, 8, 1, 1), weight[:, 1].reshape(8, 8, 1, 1))
    )
    apart.v.conv.weight.data = weight[:, 2].reshape(8, 8, 1, 1)
    x = torch.rand(1, 8, 4, 6)
    torch.testing.assert_close(apart(x), packed(x))


def test_dill_names_a_container() -> None:
    assert BUILDERS["dill._dill._load_type"](("set",), Allowance()) == Named("builtins.set")
