"""Trainable quantizers compute what the ops compute, and their gradients are those of LSQ."""

import math

import pytest
import torch
from torch import Tensor, fx, nn

import yqc
from yqc.errors import PassError
from yqc.graph import text
from yqc.quant import dequantize_linear, quantize_linear
from yqc.training.fake_quantize import FakeQuantize, Scale, make_trainable

GENERATOR = torch.Generator()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=GENERATOR.manual_seed(seed))


def pair(x: Tensor, scale: Tensor, zero: Tensor, axis: int, block: int) -> Tensor:
    integers = quantize_linear(x, scale, zero, axis, block)
    y: Tensor = dequantize_linear(integers, scale, zero, axis, block)
    return y


@pytest.mark.parametrize(
    ("scale", "axis", "block"),
    [
        (torch.tensor(0.03), 1, 0),
        (torch.tensor([0.01, 0.02, 0.05, 0.1]), 1, 0),
        (0.01 + random(2, 2, 5, 5).abs(), 1, 2),
    ],
    ids=["tensor", "channel", "block"],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_a_trainable_quantizer_computes_exactly_what_the_ops_do(
    scale: Tensor, axis: int, block: int, dtype: torch.dtype
) -> None:
    x = random(2, 4, 5, 5)
    zero = torch.full(scale.shape, 3, dtype=dtype)
    fake = FakeQuantize(Scale(scale, "s"), zero, dtype, axis, block)
    want = pair(x, scale, zero, axis, block)
    torch.testing.assert_close(fake(x).detach(), want, rtol=0, atol=0)
    integers = quantize_linear(x, scale, zero, axis, block)
    torch.testing.assert_close(fake.integers(x), integers, rtol=0, atol=0)


def test_gradients_pass_straight_through_where_nothing_saturates() -> None:
    scale, zero = Scale(torch.tensor(0.1), "s"), torch.tensor(0, dtype=torch.int8)
    fake = FakeQuantize(scale, zero, torch.int8)
    x = torch.tensor([0.234, 1.0, 50.0, -50.0], requires_grad=True)
    fake(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 0, 0]
    assert scale.log_factor.grad is not None
    slopes = (2 - 2.34) + (10 - 10.0) + 127 - 128
    share = 1 / math.sqrt(4 * 127)
    torch.testing.assert_close(scale.log_factor.grad, torch.tensor(0.1 * slopes * share))


def test_a_scale_stays_positive_and_is_exact_before_training() -> None:
    scale = Scale(torch.tensor([0.1234567, 3.3]), "s")
    assert torch.equal(scale(), torch.tensor([0.1234567, 3.3]))
    with torch.no_grad():
        scale.log_factor.sub_(50)
    assert (scale() > 0).all()


class Quantized(nn.Module):
    """One activation and one weight behind quantizers, as `quantize` leaves them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.02))
        self.register_buffer("zero", torch.tensor(7, dtype=torch.uint8))
        generator = torch.Generator().manual_seed(0)
        weight = torch.randint(-127, 128, (4, 3, 1, 1), generator=generator, dtype=torch.int8)
        self.weight_q = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("weight_scale", torch.tensor([0.01, 0.02, 0.03, 0.04]))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        ops = torch.ops.yqc
        x = ops.quantize_linear(x, self.scale, self.zero)
        x = ops.dequantize_linear(x, self.scale, self.zero)
        w = ops.dequantize_linear(self.weight_q, self.weight_scale, None, 0)
        return torch.nn.functional.conv2d(x, w, self.bias)


def copy_of(gm: fx.GraphModule) -> fx.GraphModule:
    """Copy the nodes of a graph; modules and tensors are shared."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(gm.graph, {}))
    return fx.GraphModule(gm, graph)


def test_a_graph_with_quantizers_becomes_trainable_and_computes_the_same() -> None:
    x = random(2, 3, 4, 4)
    gm = yqc.trace(Quantized(), x)
    want, before = gm(x), text(gm)
    student = copy_of(gm)
    learned = make_trainable(student)
    assert text(gm) == before
    assert not any("yqc" in str(n.target) for n in student.graph.nodes if n.op == "call_function")
    y = student(x)
    torch.testing.assert_close(y.detach(), want, rtol=1e-6, atol=1e-6)
    y.square().sum().backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert len(list(student.parameters())) == 4  # weight, bias, two scales
    assert len(learned) == 2


def test_what_was_learned_goes_back_as_integers() -> None:
    x = random(2, 3, 4, 4)
    gm = yqc.trace(Quantized(), x)
    student = copy_of(gm)
    learned = make_trainable(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * random(*parameter.shape, seed=2))
    want = student(x).detach()
    assert not torch.allclose(gm(x), want)
    for part in learned:
        part.store(gm)
    torch.testing.assert_close(gm(x), want, rtol=1e-6, atol=1e-6)
    weight = gm.get_parameter("weight_q")
    assert weight.dtype is torch.int8
    assert int(weight.min()) >= -127


class Loose(nn.Module):
    """Integers that are dequantized by another scale."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.tensor(0.1))
        self.register_buffer("two", torch.tensor(0.2))
        self.register_buffer("zero", torch.tensor(0, dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        q = torch.ops.yqc.quantize_linear(x, self.one, self.zero)
        y: Tensor = torch.ops.yqc.dequantize_linear(q, self.two, self.zero)
        return y


def test_a_quantizer_that_cannot_be_trained_through_is_named() -> None:
    gm = yqc.trace(Loose(), random(1, 3, 4, 4))
    with pytest.raises(PassError, match="node quantize_linear makes integers that are not"):
        make_trainable(copy_of(gm))
