"""Train through quantizers: rounding with straight-through gradients and trained scales.

    forward    y = (clamp(round(x / s), low - z, high - z)) * s        as the ONNX pair computes
    backward   dy/dx = 1 where nothing saturates, else 0
               dy/ds = round(x / s) - x / s there, else the bound that x was clamped to

The gradient of a scale is divided by sqrt(values * high), so that it is as large as that of a
weight (Esser et al., Learned Step Size Quantization, 2020). A scale is trained as a factor, s = s0
exp(p), so it stays positive and its steps are relative.

Only the trainable copy of a graph is changed. Weights that the graph stores as integers, or in any
packed form, become a `Latent`: a float weight that is quantized when it is used, and that is packed
again after the training. A pass that introduces a new form registers it with `@latent(op)`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import is_function
from yqc.graph.calls import get_attribute
from yqc.graph.edit import drop_unread
from yqc.quant import quantize_linear as _registers_the_ops  # noqa: F401
from yqc.quant.ops import broadcast_along
from yqc.quant.qparams import REDUCED_RANGE, integer_limits

QUANTIZE = torch.ops.yqc.quantize_linear
DEQUANTIZE = torch.ops.yqc.dequantize_linear


class _Round(torch.autograd.Function):
    """Quantize and dequantize with the gradients above."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # autograd's
        x: Tensor,
        scale: Tensor,
        low: Tensor,
        high: Tensor,
        share: float,
    ) -> Tensor:
        """Quantize `x` by a scale that broadcasts to it, and dequantize it again."""
        steps = x / scale
        rounded = steps.round().clamp(low, high)
        ctx.save_for_backward(steps, rounded, scale, low, high)
        ctx.share = share
        return rounded * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Pass gradients around the rounding."""
        (grad,) = grads
        steps, rounded, scale, low, high = ctx.saved_tensors
        inside = (steps >= low) & (steps <= high)
        slope = torch.where(inside, rounded - steps, rounded) * grad
        return grad * inside, slope.sum_to_size(scale.shape) * ctx.share, None, None, None


def round_to_steps(x: Tensor, scale: Tensor, low: Tensor, high: Tensor, share: float) -> Tensor:
    """Round float32 to whole steps of a scale, from `low` to `high`, with the gradients above.

    All of them broadcast to x. The gradient of the scale is multiplied by `share`.
    """
    y: Tensor = _Round.apply(x, scale, low, high, share)  # type: ignore[no-untyped-call]
    return y


class Scale(nn.Module):
    """A trained scale: the one that the graph stores at `path`, float32, times exp(p)."""

    def __init__(self, stored: Tensor, path: str) -> None:
        super().__init__()
        self.path = path
        self.register_buffer("stored", stored.detach().clone())
        self.log_factor = nn.Parameter(torch.zeros_like(stored))

    def forward(self) -> Tensor:
        """Return the scale, of the stored one's shape."""
        return cast("Tensor", self.stored) * self.log_factor.exp()

    def store(self, gm: fx.GraphModule) -> None:
        """Write the scale into the graph."""
        write_tensor(gm, self.path, self.forward())


class FakeQuantize(nn.Module):
    """A quantizer and the dequantizer behind it, differentiable; see `quantize_linear`.

    The scale is shared by all quantizers that read one tensor of the graph. Zero points stay as
    they are. With `symmetric` the lowest integer is left out, as in weights.
    """

    def __init__(
        self,
        scale: Scale,
        zero_point: Tensor | None,
        dtype: torch.dtype,
        axis: int = 1,
        block_size: int = 0,
        *,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.scale, self.dtype, self.axis, self.block_size = scale, dtype, axis, block_size
        self.low, self.high = integer_limits(dtype, symmetric=symmetric)
        zero = torch.zeros(()) if zero_point is None else zero_point.detach().float()
        self.register_buffer("zero_point", zero)

    def forward(self, x: Tensor) -> Tensor:
        """Round float32 `x`, of any shape, to the values that the integers stand for."""
        scale, zero = self._wide(x)
        share = 1 / math.sqrt(max(1, x.numel() // self.scale.log_factor.numel()) * self.high)
        return round_to_steps(x, scale, self.low - zero, self.high - zero, share)

    def _wide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and zero point in shapes that broadcast to `x`."""
        both = (self.scale(), cast("Tensor", self.zero_point))
        scale, zero = (broadcast_along(v, x, self.axis, self.block_size) for v in both)
        return scale, zero

    @torch.no_grad()
    def integers(self, x: Tensor) -> Tensor:
        """Return the integers that `forward` rounds to, of x's shape."""
        scale, zero = self._wide(x)
        return ((x / scale).round() + zero).clamp(self.low, self.high).to(self.dtype)


class Latent(nn.Module, ABC):
    """A weight in training that the graph stores in some packed form.

    `forward()` returns the weight as the packed form will hold it, with gradients to the latent
    parameters; `store(gm)` packs them and writes the graph's tensors.
    """

    @abstractmethod
    def forward(self) -> Tensor:
        """Return the weight, float32, as the graph would unpack it."""

    @abstractmethod
    def store(self, gm: fx.GraphModule) -> None:
        """Write the trained weight into the tensors of `gm`, in their form."""


Maker = Callable[[fx.GraphModule, fx.Node], Latent | None]
MAKERS: dict[object, Maker] = {}


def latent(op: object) -> Callable[[Maker], Maker]:
    """Register a function that makes constants trainable which `op` unpacks.

    It takes the graph and a node that calls `op` on stored tensors alone, and returns None for a
    constant that must stay as it is.
    """

    def register(maker: Maker) -> Maker:
        MAKERS[op] = maker
        return maker

    return register


class IntegerWeight(Latent):
    """A weight stored as integers with scales."""

    def __init__(self, path: str, quantize: FakeQuantize, value: Tensor) -> None:
        super().__init__()
        self.path, self.quantize = path, quantize
        self.value = nn.Parameter(value)

    def forward(self) -> Tensor:
        """Return the rounded weight."""
        y: Tensor = self.quantize(self.value)
        return y

    def store(self, gm: fx.GraphModule) -> None:
        """Write integers and scale."""
        write_tensor(gm, self.path, self.quantize.integers(self.value))
        self.quantize.scale.store(gm)


@latent(DEQUANTIZE)
def integer_weight(gm: fx.GraphModule, node: fx.Node) -> Latent | None:
    """Make an integer weight trainable; one with a zero point keeps it."""
    stored, scale, zero, axis, block = _arguments(node)
    tensor = cast("Tensor", get_attribute(gm, str(stored.target)))
    if tensor.dtype not in {torch.int8, torch.uint8, torch.int16}:
        return None
    point = None if zero is None else cast("Tensor", get_attribute(gm, str(zero.target)))
    factor = Scale(cast("Tensor", get_attribute(gm, str(scale.target))), str(scale.target))
    quantize = FakeQuantize(factor, point, tensor.dtype, axis, block, symmetric=zero is None)
    if tensor.dtype == torch.int8 and zero is None and int(tensor.abs().max()) <= REDUCED_RANGE:
        quantize.low, quantize.high = -REDUCED_RANGE, REDUCED_RANGE  # seven bits stay seven bits
    value = DEQUANTIZE(tensor, cast("Tensor", factor.stored), point, axis, block)
    return IntegerWeight(str(stored.target), quantize, value.detach().clone())


def make_trainable(gm: fx.GraphModule) -> list[Latent | Scale]:
    """Replace the quantizers of a graph by trainable ones, in place.

    Returns:
        Weights and scales to store into the original graph after the training.

    Raises:
        PassError: the integers of a quantizer are not read by a dequantizer of the same scale.
    """
    scales: dict[str, Scale] = {}
    made: list[Latent | Scale] = []
    for node in list(gm.graph.nodes):
        if node.op != "call_function":
            continue
        if is_function(node, DEQUANTIZE) and is_function(node.args[0], QUANTIZE):
            _swap_activation(gm, node, scales)
        elif (weight := _constant(gm, node)) is not None:
            _swap(gm, node, weight, ())
            made.append(weight)
    gm.graph.eliminate_dead_code()
    for node in gm.graph.nodes:
        if is_function(node, QUANTIZE):
            raise PassError(
                f"node {node.name} makes integers that are not dequantized by the same scale; "
                "training cannot go through it"
            )
    drop_unread(gm)
    gm.recompile()
    return [*made, *scales.values()]


def _constant(gm: fx.GraphModule, node: fx.Node) -> Latent | None:
    """Make the latent weight of a node that unpacks stored tensors, if there is one."""
    maker = MAKERS.get(node.target)
    stored = all(n.op == "get_attr" for n in node.all_input_nodes)
    return maker(gm, node) if maker is not None and stored else None


def _swap_activation(gm: fx.GraphModule, node: fx.Node, scales: dict[str, Scale]) -> None:
    """Put one module in the place of a quantizer and the dequantizer behind it."""
    q = cast("fx.Node", node.args[0])
    source, scale, zero, axis, block = _arguments(q)
    _, other, other_zero, *rest = _arguments(node)
    if zero is None or other_zero is None or rest != [axis, block]:
        return
    if (other.target, other_zero.target) != (scale.target, zero.target):
        return
    path = str(scale.target)
    if path not in scales:
        scales[path] = Scale(cast("Tensor", get_attribute(gm, path)), path)
    point = cast("Tensor", get_attribute(gm, str(zero.target)))
    _swap(gm, node, FakeQuantize(scales[path], point, point.dtype, axis, block), (source,))


def _swap(gm: fx.GraphModule, node: fx.Node, module: nn.Module, args: Sequence[fx.Node]) -> None:
    name = f"{node.name}_trained"
    gm.add_submodule(name, module)
    with gm.graph.inserting_before(node):
        new = gm.graph.create_node("call_module", name, tuple(args), name=name)
    node.replace_all_uses_with(new)
    gm.graph.erase_node(node)


def _arguments(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node | None, int, int]:
    """Return x, scale, zero point, axis and block size of one of the pair's nodes."""
    names = ("x", "scale", "zero_point", "axis", "block_size")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    x, scale, zero = given["x"], given["scale"], given.get("zero_point")
    axis, block = given.get("axis", 1), given.get("block_size", 0)
    return cast("tuple[fx.Node, fx.Node, fx.Node | None, int, int]", (x, scale, zero, axis, block))


@torch.no_grad()
def write_tensor(gm: fx.GraphModule, path: str, value: Tensor) -> None:
    """Write a value into the tensor at a path of a graph."""
    cast("Tensor", get_attribute(gm, path)).copy_(value.to("cpu"))
