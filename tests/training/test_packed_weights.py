"""Packed weights are trained as floats and go back as codes; nothing changes before training."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import yqc
from yqc.quant.weights.packing import pack, unpack
from yqc.training.fake_quantize import make_trainable
from yqc.training.packed_weights import TableWeight, UniformWeight, nearest_entries

SHAPE = (4, 3, 2, 3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(count: int, bits: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 1 << bits, (count,), generator=generator)


class Packed(nn.Module):
    """One convolution of packed weights."""

    def __init__(self, kind: str, bits: int, scales: tuple[int, ...], block: int) -> None:
        super().__init__()
        self.kind, self.bits, self.block = kind, bits, block
        stored = pack(codes(72, bits), bits)  # a parameter, since fx looks through buffers
        self.packed = nn.Parameter(stored, requires_grad=False)
        self.register_buffer("scale", (0.05 + random(*scales).abs()).half())
        count = max(1, torch.Size(scales).numel())
        self.register_buffer("zero", pack(codes(count, bits, 1), bits))
        self.register_buffer("table", random(2, 1 << bits).half())

    def forward(self, x: Tensor) -> Tensor:
        ops, rest = torch.ops.yqc, (list(SHAPE), self.bits, self.block)
        if self.kind == "table":
            w = ops.unpack_table(self.packed, self.table, self.scale, *rest)
        else:
            zero = self.zero if self.kind == "affine" else None
            w = ops.unpack_uniform(self.packed, self.scale, zero, *rest)
        return F.conv2d(x, w)


@pytest.fixture(params=["symmetric", "affine", "table"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[(4, (4,), 0), (3, (4, 3), 6), (4, (), 0)], ids=["row", "block", "tensor"])
def gm(kind: str, request: pytest.FixtureRequest) -> fx.GraphModule:
    bits, scales, block = request.param
    return yqc.trace(Packed(kind, bits, scales, block), random(1, 3, 5, 5))


def student_of(gm: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    graph.output(graph.graph_copy(gm.graph, {}))
    return fx.GraphModule(gm, graph)


def test_it_computes_the_same_before_training_and_has_gradients(gm: fx.GraphModule) -> None:
    x = random(2, 3, 5, 5)
    student = student_of(gm)
    (weight,) = make_trainable(student)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(student(x), gm(x), rtol=1e-3, atol=1e-3)
    student(x).square().sum().backward()
    assert all(p.grad is not None for p in student.parameters())
    assert isinstance(weight, UniformWeight | TableWeight)
    assert weight.value.grad is not None
    assert weight.value.grad.any()
    tensors = {name: t.clone() for name, t in gm.state_dict().items()}
    weight.store(gm)
    for name, tensor in gm.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name], rtol=1e-3, atol=0, msg=name)


def test_what_was_learned_is_what_the_graph_computes(gm: fx.GraphModule) -> None:
    x = random(2, 3, 5, 5)
    student = student_of(gm)
    (weight,) = make_trainable(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * random(*parameter.shape, seed=3))
    want, before = student(x).detach(), gm(x)
    weight.store(gm)
    assert not torch.allclose(gm(x), before)
    torch.testing.assert_close(gm(x), want, rtol=1e-3, atol=1e-3)


def test_gradients_pass_to_weights_that_do_not_saturate() -> None:
    gm = yqc.trace(Packed("symmetric", 4, (4,), 0), random(1, 3, 5, 5))
    (weight,) = make_trainable(student_of(gm))
    assert isinstance(weight, UniformWeight)
    value = weight.value
    with torch.no_grad():
        value.zero_()
        value[0, 0, 0, 0] = 100.0
    weight().sum().backward()
    assert value.grad is not None
    assert float(value.grad[0, 0, 0, 0]) == 0
    assert (value.grad.flatten()[1:] == 1).all()


def test_the_nearest_entry_of_an_unordered_table() -> None:
    table = torch.tensor([[3.0, -1.0, 0.5], [0.0, 10.0, 20.0]])
    x = torch.tensor([[2.0, -5.0, 0.0], [4.0, 6.0, 99.0]])
    assert nearest_entries(x, table).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_codes_stay_packed(gm: fx.GraphModule) -> None:
    student = student_of(gm)
    (weight,) = make_trainable(student)
    weight.store(gm)
    packed = gm.get_parameter("packed")
    bits = int(next(n for n in gm.graph.nodes if "unpack" in str(n.target)).args[4])
    assert packed.dtype is torch.uint8
    assert len(unpack(packed, 72, bits)) == 72
