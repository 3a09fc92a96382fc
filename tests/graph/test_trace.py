"""The tracer answers for shapes, and refuses what depends on the contents of a tensor."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import TensorSpec, text, trace
from yqc.errors import TraceError
from yqc.graph.values import KEY

X = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))


def lines(gm: fx.GraphModule) -> list[str]:
    return text(gm).splitlines()


class Questions(nn.Module):
    """What the forward of a head asks: each answer is a plain Python value."""

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, fx.Proxy), "this is a tracer's test"
        answers = {
            "shape": tuple(x.shape),
            "size": x.size(),
            "width": x.size(-1),
            "ndim": (x.ndim, x.dim()),
            "numel": x.numel(),
            "len": len(x),
            "dtype": x.dtype,
            "device": x.device,
            "last": x[..., 0].shape[-1],
        }
        assert answers == {
            "shape": (2, 4, 6, 8),
            "size": torch.Size((2, 4, 6, 8)),
            "width": 8,
            "ndim": (4, 4),
            "numel": 384,
            "len": 2,
            "dtype": torch.float32,
            "device": torch.device("cpu"),
            "last": 6,
        }
        high, wide = x.shape[-2:]
        return F.interpolate(x, (2 * high, 2 * wide)) if x.shape[1] == 4 else x


def test_questions_about_shape_have_plain_answers() -> None:
    gm = trace(Questions(), X)
    assert lines(gm)[-2].startswith("%interpolate: f32[2,4,12,16] = interpolate(%x, size=(12, 16)")
    assert gm(X).shape == (2, 4, 12, 16)


class Iteration(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, *rest = torch.split(x, [1, 2, 1], 1)
        total = first
        for part in rest:
            total = total + part.mean(1, keepdim=True)
        a, b = x.chunk(2, 1)
        assert len(x.chunk(3, 1)) == 2, "four channels in chunks of two"
        return total * sum(a.unbind(1)) + b.amax()


def test_chunks_and_splits_can_be_unpacked() -> None:
    gm = trace(Iteration(), X)
    torch.testing.assert_close(gm(X), Iteration()(X))


class Grid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        high, wide = x.shape[-2:]
        row, column = torch.arange(high).float(), torch.arange(wide).float()
        return x * (column + 0.5) + row.view(-1, 1)


def test_what_is_made_from_sizes_becomes_constants() -> None:
    gm = trace(Grid(), X)
    assert lines(gm) == [
        "%x: f32[2,4,6,8] = input",
        "%_tensor_constant0: f32[8] = attr(_tensor_constant0)",
        "%mul: f32[2,4,6,8] = mul(%x, %_tensor_constant0)",
        "%_tensor_constant1: f32[6,1] = attr(_tensor_constant1)",
        "%add: f32[2,4,6,8] = add(%mul, %_tensor_constant1)",
        "return %add",
    ]
    assert torch.equal(gm(X), Grid()(X))
    assert set(gm.state_dict()) == {"_tensor_constant0", "_tensor_constant1"}, "they can be saved"


def test_looks_into_everything_but_torchs_own_modules() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Sequential(nn.SiLU(), nn.SiLU())])

        def forward(self, x: Tensor) -> Tensor:
            for step in self.steps:
                x = step(x)
            return x

    gm = trace(nn.Sequential(Block(), Block()), X)
    kinds = [n.target for n in gm.graph.nodes if n.op == "call_module"]
    assert kinds == [f"{b}.steps.{s}" for b in (0, 1) for s in ("0", "1.0", "1.1")]


def test_parameters_are_shared_and_the_module_is_put_into_eval_mode() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.9)).train()
    gm = trace(net, X)
    conv = gm.get_submodule("0")
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight is net[0].weight
    assert not any(m.training for m in (*net.modules(), *gm.modules()))
    assert torch.equal(gm(X), gm(X))


def test_the_batch_is_not_baked_in() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.unflatten(x.flatten(2), 1, (2, 2)).softmax(-1)

    assert trace(Flat(), X[:1])(X).shape == (2, 2, 2, 48)


def test_every_node_knows_shape_and_dtype() -> None:
    gm = trace(Grid(), X)
    values = {n.name: n.meta[KEY] for n in gm.graph.nodes}
    assert values["mul"] == TensorSpec((2, 4, 6, 8), torch.float32)
    assert values.keys() == {n.name for n in gm.graph.nodes}
    assert not any("yqc.meta" in n.meta for n in gm.graph.nodes)


def test_several_inputs() -> None:
    class Add(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    gm = trace(Add(), (X, X[:1]))
    assert lines(gm)[:2] == ["%a: f32[2,4,6,8] = input", "%b: f32[1,4,6,8] = input"]
    with pytest.raises(TraceError, match="input b needs an example tensor"):
        trace(Add(), X)


class Inner(nn.Module):
    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        self.conv = nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.mistake == "contents" and x.mean() > 0:
            return x + 1
        if self.mistake == "loop":
            for _ in range(int(x.sum())):
                x = x + 1
        if self.mistake == "numpy":
            return torch.as_tensor(x.numpy())
        return self.conv(x) if self.mistake == "channels" else x


class Outer(nn.Module):
    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.SiLU(), Inner(mistake))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("contents", "control flow"),
        ("loop", "int"),
        ("channels", "to have 5 channels, but got 4 channels"),
        ("numpy", "numpy"),
    ],
)
def test_refusals_name_the_place(mistake: str, message: str) -> None:
    with pytest.raises(TraceError) as caught:
        trace(Outer(mistake), X)
    assert str(caught.value).startswith("cannot trace layers.1")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_output_does_not_need_is_not_in_the_graph() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            self.b(y) * self.scale
            return y  # type: ignore[no-any-return]

    net = Auxiliary()
    gm = trace(net, X)
    assert [n.name for n in gm.graph.nodes] == ["x", "a", "output"]
    assert set(gm.state_dict()) == {"a.weight", "a.bias"}
    assert "scale" in net.state_dict(), "the module itself is as it was"


def test_a_module_is_left_as_it_was_and_traces_to_the_same_again() -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(4.0)

    module = Shifted()
    before = {*vars(module)}
    first, second = (trace(module, torch.zeros(1, 4)) for _ in range(2))
    assert {*vars(module)} == before
    assert text(first) == text(second)
    assert torch.equal(second(torch.zeros(1, 4))[0], torch.arange(4.0))
