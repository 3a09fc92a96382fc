"""The lowering table: what is missing is said, what is added works, what cannot be is refused."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor, fx, nn

from yqc.emit import TABLE, Emitter, emit, lowering, roundtrip, weight_bytes
from yqc.errors import EmitError, LoweringError
from yqc.graph import propagate
from yqc.models.trace import trace

Agrees: TypeAlias = Callable[..., onnx.ModelProto]
X = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))


class Frequencies(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x).abs()  # type: ignore[no-any-return]


def test_a_missing_lowering_says_where_and_how_to_add_one() -> None:
    gm = trace(nn.Sequential(nn.SiLU(), Frequencies()), X)
    with pytest.raises(LoweringError) as error:
        emit(gm)
    message = str(error.value)
    assert (
        "no ONNX lowering for torch.fft.rfft2 at node fft_rfft2 in module 1 (Frequencies" in message
    )
    assert "test_table.py:" in message
    assert "@lowering(torch.fft.rfft2)\n    def lower(e, node, x):" in message


def test_a_module_without_a_lowering_is_named() -> None:
    with pytest.raises(
        LoweringError, match=r"no ONNX lowering for nn.LPPool3d at node _1 in module 1"
    ):
        emit(trace(nn.Sequential(nn.SiLU(), nn.LPPool3d(2, 1)), X[None]))


class Clipped(nn.Hardtanh):
    """A subclass with a forward of its own is not what its base class is."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Renamed(nn.Conv2d):
    """A subclass with the forward of its base class is."""


class Leaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def leaf_graph(module: nn.Module) -> fx.GraphModule:
    root = nn.Sequential(module)
    gm = fx.GraphModule(root, Leaves().trace(root))
    propagate(gm, (X,))
    return gm


def test_subclasses_are_told_apart_by_their_forward() -> None:
    assert emit(leaf_graph(Renamed(3, 4, 1))).graph.node[0].op_type == "Conv"
    with pytest.raises(LoweringError, match="Clipped"):
        emit(leaf_graph(Clipped(-0.5, 0.5)))


REFUSALS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "area": (lambda x: F.interpolate(x, (5, 7), mode="area"), "mode area has no ONNX form"),
    "antialias": (
        lambda x: F.interpolate(x, (5, 7), mode="bilinear", antialias=True),
        "mode bilinear with antialias has no ONNX form",
    ),
    "view-dtype": (lambda x: x.view(torch.int32), "a view in another dtype"),
    "index-pair": (
        lambda x: x[torch.tensor([0, 0]), torch.tensor([1, 2])],
        "use torch.gather",
    ),
    "softplus-beta": (lambda x: F.softplus(x, beta=2.0), "only beta=1"),
    "argmax-flat": (torch.argmax, "give its dim"),
    "training-dropout": (lambda x: F.dropout(x, 0.5, training=True), "training mode"),
    "batch-statistics": (
        lambda x: F.batch_norm(x, None, None, training=True),
        "statistics of the batch",
    ),
    "unknown-argument": (
        lambda x: torch.clamp(x, min=0, out=torch.empty(0)),
        "does not take these arguments",
    ),
}


def test_the_indices_of_a_pool_are_refused(agrees: Agrees) -> None:
    with pytest.raises(LoweringError, match=r"cannot emit nn.MaxPool2d at node _0.*indices"):
        agrees(nn.Sequential(nn.MaxPool2d(2, return_indices=True)), X)


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_node_and_the_reason(name: str, agrees: Agrees) -> None:
    function, reason = REFUSALS[name]
    with pytest.raises(LoweringError, match=rf"cannot emit .* at node \w+.*: .*{reason}"):
        agrees(function, X)


def test_a_node_without_a_shape_is_the_fault_of_a_pass() -> None:
    gm = trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), X)
    del gm.graph.find_nodes(op="call_module", target="0")[0].meta["yqc.value"]
    with pytest.raises(LoweringError, match=r'node _0 has no tensor shape; .*meta\["yqc.value"\]'):
        emit(gm)


class Packed(nn.Module):
    """A convolution with weights of four bits and a scale a channel."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.codes = nn.Buffer(torch.randint(-8, 8, (5, 3, 3, 3), generator=generator))
        self.scale = nn.Buffer(torch.rand(5, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.codes * self.scale.reshape(5, 1, 1, 1), padding=1)


@pytest.fixture
def packed() -> Iterator[fx.GraphModule]:
    """A graph with a packed convolution, while the table holds its lowering."""

    @lowering(Packed)
    def lower(e: Emitter, node: fx.Node, x: fx.Node) -> str:
        module = e.module(node, Packed)
        codes = e.tensor(module.codes, f"{node.target}.codes", TensorProto.INT4)
        scale = e.tensor(module.scale, f"{node.target}.scale")
        weight = e.op("DequantizeLinear", codes, scale, axis=0)
        return e.op("Conv", x, weight, pads=[1, 1, 1, 1])

    yield leaf_graph(Packed())
    del TABLE[Packed]


def test_four_bit_weights_stay_and_raise_the_opset(packed: fx.GraphModule) -> None:
    model = emit(packed, target="portable")
    assert model.opset_import[0].version == 21
    assert model.ir_version == 10
    stored = {t.name: t for t in model.graph.initializer}
    assert stored["0.codes"].data_type == TensorProto.INT4
    assert len(stored["0.codes"].raw_data) == (5 * 3 * 3 * 3 + 1) // 2
    assert weight_bytes(model) == 68 + 5 * 4
    assert roundtrip(packed, model, X).within(values=1e-5)


def test_a_fixed_opset_below_what_four_bits_need_is_an_error(packed: fx.GraphModule) -> None:
    with pytest.raises(EmitError, match=r"opset 17 is too low \(node _0: four-bit.*21 or above"):
        emit(packed, opset=17, target="portable")


class Swish(nn.Module):
    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


def test_a_lowering_that_returns_nothing_is_refused() -> None:
    @lowering(Swish)  # type: ignore[type-var]  # the type checker sees it too
    def lower(e: Emitter, _: fx.Node, x: fx.Node) -> None:
        e.op("Sigmoid", x)

    try:
        with pytest.raises(LoweringError, match=r"at node _0.*: its lowering returned nothing"):
            emit(leaf_graph(Swish(1.7)))
    finally:
        del TABLE[Swish]


def test_a_lowering_finds_the_settings_of_its_module_by_name() -> None:
    @lowering(Swish)
    def lower(e: Emitter, _: fx.Node, x: fx.Node, beta: float) -> str:
        return e.op("Mul", x, e.op("Sigmoid", e.op("Mul", x, e.scalar(beta))))

    try:
        gm = leaf_graph(Swish(1.7))
        assert roundtrip(gm, emit(gm), X).within(values=1e-5)
    finally:
        del TABLE[Swish]
