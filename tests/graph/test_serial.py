"""Graph files: what comes back is what was saved, and what could not be read is not saved."""

import errno
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from yqc import BatchNorm, role, text, trace
from yqc.errors import OutputError
from yqc.graph.compare import fingerprint, graph_bytes, macs, parameter_count
from yqc.graph.serial import load_graph, save_graph

X = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def there_and_back(gm: fx.GraphModule, path: Path) -> fx.GraphModule:
    """Save and load, and hold everything that a graph is against what came back."""
    save_graph(gm, path)
    back, _, _ = load_graph(path)
    assert text(back) == text(gm)
    assert fingerprint(back) == fingerprint(gm)
    assert parameter_count(back) == parameter_count(gm)
    assert graph_bytes(back) == graph_bytes(gm)
    assert macs(back) == macs(gm)
    assert [role(n) for n in back.graph.nodes] == [role(n) for n in gm.graph.nodes]
    assert not back.training
    return back


# There and back


@pytest.mark.parametrize("name", ["v8", "v5"])
def test_detectors_come_back(
    name: str, images: Tensor, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    gm: fx.GraphModule = request.getfixturevalue(name)
    back = there_and_back(gm, tmp_path / "a.yqc")
    assert torch.equal(back(images), gm(images))
    assert type(back).__name__ == type(gm).__name__


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.a(x))
            return y

    back = there_and_back(trace(Tied(), X), tmp_path / "a.yqc")
    assert back.get_parameter("b.weight") is back.get_parameter("a.weight")
    assert back.get_parameter("b.bias") is not back.get_parameter("a.bias")
    with zipfile.ZipFile(tmp_path / "a.yqc") as file:
        assert len(file.read("tensors.safetensors")) < 2 * 4 * 4 * 4 * 9


def test_a_disk_that_becomes_read_only_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **_more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"cannot write .*a\.yqc: Read-only file system"):
        save_graph(trace(nn.Conv2d(4, 4, 3), X), tmp_path / "a.yqc")


MODULES = [
    nn.Conv2d(4, 6, (3, 1), (1, 2), (1, 0), (2, 1), 2, bias=False, padding_mode="reflect"),
    nn.Conv2d(4, 6, 3, padding="same"),
    nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2),
    nn.BatchNorm2d(4, eps=0.1, momentum=0.03),
    nn.BatchNorm2d(4, affine=False),
    nn.Linear(8, 5, bias=False),
    nn.LayerNorm((8, 8), eps=0.1),
    nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    nn.MaxPool2d(2, dilation=2),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AdaptiveAvgPool2d((2, 3)),
    nn.AdaptiveAvgPool2d(1),
    nn.Upsample(scale_factor=2.0),
    nn.Upsample(scale_factor=(2.0, 3.0), mode="bilinear", align_corners=True),
    nn.Upsample(size=(9, 5)),
    nn.ZeroPad2d((0, 1, 0, 2)),
    nn.LeakyReLU(0.1),
    nn.ELU(0.5),
    nn.PReLU(4),
    nn.Softmax(1),
    nn.Dropout(0.3),
    nn.Flatten(2),
    nn.PixelShuffle(2),
    nn.PixelUnshuffle(2),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Sigmoid(),
    nn.Mish(),
    nn.Tanh(),
    nn.Identity(),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m)[:40])
def test_modules_come_back_with_their_settings(module: nn.Module, tmp_path: Path) -> None:
    gm = trace(nn.Sequential(module), X)
    for tensor in gm.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
    back = there_and_back(gm, tmp_path / "a.yqc")
    assert torch.equal(back(X), gm(X))
    assert str(back.get_submodule("0")) == str(gm.get_submodule("0"))


class Arguments(nn.Module):
    """Every kind of argument, a parameter that is read, a buffer, several inputs and outputs."""

    table: Tensor
    fleeting: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("table", torch.rand(4, 1, 1))
        self.register_buffer("fleeting", torch.rand(4, 1, 1), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor | list[Tensor]]:
        z = self.conv(x) * self.scale + self.table - self.fleeting
        a, b = torch.split(z, [1, 3], dim=1)
        z = torch.cat((a, b, y), 1)[:, 1:-1, ..., ::2]
        z = F.interpolate(z, size=(5, 6), mode="nearest").clamp(max=float("inf"))
        z = F.pad(z, (0, 1, 2, 0), value=-float("inf")).to(torch.float64)
        return {"z": z, "weight": [self.conv.weight.mean(), z.mean((2, 3), keepdim=True)]}


def test_every_kind_of_argument_comes_back(tmp_path: Path) -> None:
    gm = trace(Arguments(), (X, X))
    back = there_and_back(gm, tmp_path / "a.yqc")
    found, want = back(X, X), gm(X, X)
    assert found.keys() == want.keys()
    assert torch.equal(found["z"], want["z"])
    assert torch.equal(found["weight"][0], want["weight"][0])
    assert {n for n, _ in back.named_parameters()} == {n for n, _ in gm.named_parameters()}


def test_what_passes_left_on_nodes_comes_back(tmp_path: Path) -> None:
    gm = trace(nn.Sequential(nn.Conv2d(4, 2, 1)), X)
    conv = next(n for n in gm.graph.nodes if n.op == "call_module")
    known = BatchNorm(torch.rand(2), torch.rand(2), torch.rand(2), torch.rand(2), eps=0.5)
    conv.meta["yqc.bn"] = known
    back = there_and_back(gm, tmp_path / "a.yqc")
    meta = next(n for n in back.graph.nodes if n.op == "call_module").meta
    assert meta["yqc.bn"].eps == 0.5
    for field in ("mean", "variance", "scale", "shift"):
        assert torch.equal(getattr(meta["yqc.bn"], field), getattr(known, field))


def test_info_and_further_tensors_come_back(tmp_path: Path) -> None:
    info = {"kind": "reproducer", "seed": 3, "names": ["a", "ü"], "none": None}
    gm = trace(nn.Sequential(nn.SiLU()), X)
    save_graph(gm, tmp_path / "a.yqc", info, example=X, half=X.half())
    _, found, more = load_graph(tmp_path / "a.yqc")
    assert found == info
    assert more.keys() == {"example", "half"}
    assert torch.equal(more["example"], X)
    assert more["half"].dtype == torch.float16


def test_the_same_graph_makes_the_same_bytes(tmp_path: Path, v8: fx.GraphModule) -> None:
    save_graph(v8, tmp_path / "a.yqc")
    save_graph(load_graph(tmp_path / "a.yqc")[0], tmp_path / "b.yqc")
    assert (tmp_path / "a.yqc").read_bytes() == (tmp_path / "b.yqc").read_bytes()


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "depthwise": lambda: nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False),
    "bn": lambda: nn.BatchNorm2d(4),
    "silu": nn.SiLU,
    "pool": lambda: nn.MaxPool2d(3, 1, 1),
    "leaky": lambda: nn.LeakyReLU(0.1),
}
JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "mul": torch.mul,
    "cat": lambda a, b: torch.cat((a.chunk(2, 1)[0], b[:, 2:]), 1),
    "max": torch.maximum,
    "matmul": lambda a, b: a.softmax(-1).matmul(b.transpose(2, 3)),
    "where": lambda a, b: torch.where(a > b, a, b.sigmoid()),
}


class Random(nn.Module):
    """Steps of a layer, or a join of two earlier results."""

    def __init__(self, steps: Sequence[tuple[str, int, int]]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList(LAYERS.get(s, nn.Identity)() for s, _, _ in steps)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer, (name, a, b) in zip(self.layers, self.steps, strict=True):
            left, right = seen[a % len(seen)], seen[b % len(seen)]
            seen.append(JOINS[name](left, right) if name in JOINS else layer(left))
        return seen[-1]


STEP = st.tuples(st.sampled_from([*LAYERS, *JOINS]), st.integers(0, 9), st.integers(0, 9))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEP, min_size=1, max_size=8), seed=st.integers(0, 99))
def test_random_graphs_come_back(
    steps: list[tuple[str, int, int]], seed: int, tmp_path: Path
) -> None:
    torch.manual_seed(seed)
    gm = trace(Random(steps), X)
    back = there_and_back(gm, tmp_path / "a.yqc")
    assert torch.equal(back(X), gm(X))


# What is refused when saving


class Own(nn.Linear):
    """A module that is in no table, under a name that is in none either."""


def test_refuses_to_save_what_could_not_be_read(tmp_path: Path) -> None:
    class SiLU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    gm = trace(nn.Sequential(nn.SiLU()), X)
    for module in (Own(8, 8), SiLU()):
        gm.set_submodule("0", module)
        with pytest.raises(OutputError, match=f"it calls a {type(module).__name__}, which is not"):
            save_graph(gm, tmp_path / "a.yqc")
    gm.set_submodule("0", nn.SiLU())
    node = next(n for n in gm.graph.nodes if n.op == "call_module")
    with gm.graph.inserting_after(node):
        gm.graph.call_function(torch.linalg.inv, (node,))
    with pytest.raises(OutputError, match=r"linalg_inv calls .*, which has no name"):
        save_graph(gm, tmp_path / "a.yqc")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_older_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gm, path = trace(nn.Sequential(nn.SiLU()), X), tmp_path / "a.yqc"
    save_graph(gm, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OutputError, match=r"cannot write .*a\.yqc: No space left on device"):
        save_graph(gm, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
