"""Lowerings of element-wise arithmetic, comparisons, type conversions and matrix products.

Both sides of an operation are brought to the dtype that PyTorch promotes them to; a Python number
becomes a constant of that dtype.
"""

# ruff: noqa: A002, ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

import operator
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import fx

from yqc.emit.emitter import Emitter
from yqc.emit.table import LoweringTarget, lowering

Number: TypeAlias = fx.Node | float

UNARY: dict[str, tuple[LoweringTarget, ...]] = {
    "Neg": (operator.neg, torch.neg, "neg"),
    "Abs": (operator.abs, torch.abs, "abs"),
    "Exp": (torch.exp, "exp"),
    "Log": (torch.log, "log"),
    "Sqrt": (torch.sqrt, "sqrt"),
    "Reciprocal": (torch.reciprocal, "reciprocal"),
    "Floor": (torch.floor, "floor"),
    "Ceil": (torch.ceil, "ceil"),
    "Round": (torch.round, "round"),
    "Sign": (torch.sign, "sign"),
    "Erf": (torch.erf, "erf"),
    "Sin": (torch.sin, "sin"),
    "Cos": (torch.cos, "cos"),
    "Not": (operator.invert, torch.logical_not, "logical_not"),
}
"""Operations of one operand with an ONNX operator of the same meaning."""

BINARY: dict[str, tuple[LoweringTarget, ...]] = {
    "Mul": (operator.mul, torch.mul, "mul", torch.multiply, "multiply"),
    "Pow": (operator.pow, torch.pow, "pow"),
    "Max": (torch.maximum, "maximum"),
    "Min": (torch.minimum, "minimum"),
    "Equal": (operator.eq, torch.eq, "eq"),
    "Less": (operator.lt, torch.lt, "lt"),
    "LessOrEqual": (operator.le, torch.le, "le"),
    "Greater": (operator.gt, torch.gt, "gt"),
    "GreaterOrEqual": (operator.ge, torch.ge, "ge"),
    "And": (operator.and_, torch.logical_and, "logical_and"),
    "Or": (operator.or_, torch.logical_or, "logical_or"),
}
"""Operations of two operands with an ONNX operator of the same meaning."""

Unary: TypeAlias = Callable[[Emitter, fx.Node, fx.Node], str]
Binary: TypeAlias = Callable[[Emitter, fx.Node, Number, Number], str]


def _unary(op_type: str) -> Unary:
    def lower(e: Emitter, node: fx.Node, x: fx.Node) -> str:
        return e.op(op_type, e.number(x, e.spec(node).dtype))

    return lower


def _binary(op_type: str) -> Binary:
    def lower(e: Emitter, _: fx.Node, x: Number, other: Number) -> str:
        return e.op(op_type, *operands(e, x, other))

    return lower


for _op_type, _targets in UNARY.items():
    lowering(*_targets)(_unary(_op_type))
for _op_type, _targets in BINARY.items():
    lowering(*_targets)(_binary(_op_type))


def promoted(e: Emitter, x: Number, other: Number) -> torch.dtype:
    """Return the dtype in which PyTorch computes with two operands."""

    def stand_in(value: Number) -> torch.Tensor | float:
        if not isinstance(value, fx.Node):
            return value
        spec = e.spec(value)
        # Dimensions matter: a tensor without any yields to one that has some.
        return torch.empty([1] * len(spec.shape), dtype=spec.dtype, device="meta")

    return torch.result_type(stand_in(x), stand_in(other))


def operands(e: Emitter, x: Number, other: Number) -> tuple[str, str]:
    """Return two operands in their common dtype."""
    dtype = promoted(e, x, other)
    return e.number(x, dtype), e.number(other, dtype)


@lowering(operator.add, torch.add, "add")
def add(e: Emitter, _: fx.Node, x: Number, other: Number, *, alpha: float = 1) -> str:
    return e.op("Add", *_scaled(e, x, other, alpha))


@lowering(operator.sub, torch.sub, "sub")
def sub(e: Emitter, _: fx.Node, x: Number, other: Number, *, alpha: float = 1) -> str:
    return e.op("Sub", *_scaled(e, x, other, alpha))


@lowering(torch.rsub, "rsub")
def rsub(e: Emitter, _: fx.Node, x: Number, other: Number, *, alpha: float = 1) -> str:
    return e.op("Sub", *_scaled(e, other, x, alpha))


def _scaled(e: Emitter, x: Number, other: Number, alpha: float) -> tuple[str, str]:
    """Return two operands in their common dtype, the second one times `alpha`."""
    a, b = operands(e, x, other)
    return a, b if alpha == 1 else e.op("Mul", b, e.scalar(alpha, promoted(e, x, other)))


@lowering(operator.truediv, torch.div, "div", torch.true_divide)
def div(
    e: Emitter, node: fx.Node, x: Number, other: Number, *, rounding_mode: str | None = None
) -> str:
    if rounding_mode == "floor":
        return floor_divide(e, node, x, other)
    dtype = e.spec(node).dtype
    quotient = e.op("Div", e.number(x, dtype), e.number(other, dtype))
    if rounding_mode is None or not dtype.is_floating_point:
        return quotient  # ONNX divides integers towards zero.
    return e.op("Mul", e.op("Sign", quotient), e.op("Floor", e.op("Abs", quotient)))


@lowering(operator.floordiv, torch.floor_divide, "floor_divide")
def floor_divide(e: Emitter, node: fx.Node, x: Number, other: Number) -> str:
    """Lower the rounding down of a quotient: of integers, (x - x mod y) / y."""
    a, b = operands(e, x, other)
    if e.spec(node).dtype.is_floating_point:
        return e.op("Floor", e.op("Div", a, b))
    return e.op("Div", e.op("Sub", a, e.op("Mod", a, b)), b)


@lowering(operator.mod, torch.remainder, "remainder")
def remainder(e: Emitter, node: fx.Node, x: Number, other: Number) -> str:
    """Lower the remainder that has the divisor's sign.

    ONNX's Mod has it for integers. For floats it has the dividend's, as C's fmod: the divisor is
    added where the signs differ.
    """
    a, b = operands(e, x, other)
    dtype = e.spec(node).dtype
    if not dtype.is_floating_point:
        return e.op("Mod", a, b)
    rest = e.op("Mod", a, b, fmod=1)
    zero = e.scalar(0, dtype)
    differs = e.op("Less", e.op("Mul", e.op("Sign", rest), e.op("Sign", b)), zero)
    return e.op("Add", rest, e.op("Where", differs, b, zero))


@lowering(torch.rsqrt, "rsqrt")
def rsqrt(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    return e.op("Reciprocal", e.op("Sqrt", e.number(x, e.spec(node).dtype)))


@lowering(torch.square, "square")
def square(e: Emitter, _: fx.Node, x: fx.Node) -> str:
    return e.op("Mul", x, x)


@lowering(operator.ne, torch.ne, "ne")
def not_equal(e: Emitter, _: fx.Node, x: Number, other: Number) -> str:
    return e.op("Not", e.op("Equal", *operands(e, x, other)))


@lowering(torch.where)
def where(e: Emitter, node: fx.Node, condition: fx.Node, x: Number, other: Number) -> str:
    dtype = e.spec(node).dtype
    return e.op("Where", condition, e.number(x, dtype), e.number(other, dtype))


@lowering("where")
def where_method(e: Emitter, node: fx.Node, x: Number, condition: fx.Node, other: Number) -> str:
    return where(e, node, condition, x, other)


@lowering(torch.masked_fill, "masked_fill")
def masked_fill(e: Emitter, node: fx.Node, x: fx.Node, mask: fx.Node, value: Number) -> str:
    return e.op("Where", mask, e.number(value, e.spec(node).dtype), x)


@lowering(torch.clamp, "clamp", torch.clip, "clip")
def clamp(
    e: Emitter, node: fx.Node, x: fx.Node, min: Number | None = None, max: Number | None = None
) -> str:
    """Lower a clamp; bounds that are tensors may have any shape, so they become Max and Min."""
    dtype = e.spec(node).dtype
    value = e.number(x, dtype)
    if isinstance(min, fx.Node) or isinstance(max, fx.Node):
        value = value if min is None else e.op("Max", value, e.number(min, dtype))
        return value if max is None else e.op("Min", value, e.number(max, dtype))
    low, high = (None if v is None else e.scalar(v, dtype) for v in (min, max))
    return e.op("Clip", value, low, high)


@lowering("clamp_min", torch.clamp_min)
def clamp_min(e: Emitter, node: fx.Node, x: fx.Node, min: Number) -> str:
    return clamp(e, node, x, min=min)


@lowering("clamp_max", torch.clamp_max)
def clamp_max(e: Emitter, node: fx.Node, x: fx.Node, max: Number) -> str:
    return clamp(e, node, x, max=max)


@lowering("to", "type", "type_as", "float", "double", "half", "int", "long", "bool")
def convert(e: Emitter, node: fx.Node, x: fx.Node, *_: object, **__: object) -> fx.Node | str:
    """Lower every conversion by the dtype that came out of it; devices mean nothing in ONNX."""
    have, want = e.spec(x).dtype, e.spec(node).dtype
    if (constant := e.constant(x)) and (have, want) == (torch.float16, torch.float32):
        return e.tensor(constant.value.float(), constant.name)  # see `yqc.emit.halves`
    return x if have == want else e.number(x, want)


@lowering("contiguous", "detach", torch.detach, "cpu", "cuda")
def same(e: Emitter, _: fx.Node, x: fx.Node, **__: object) -> fx.Node:
    """Pass a value through: memory layouts and devices mean nothing in ONNX."""
    return x


@lowering(torch.clone, "clone")
def clone(e: Emitter, _: fx.Node, x: fx.Node, **__: object) -> str:
    """Lower a copy; what is written over the copy later leaves `x` as it is."""
    return e.op("Identity", x)


@lowering(operator.matmul, torch.matmul, "matmul", torch.bmm, "bmm")
@lowering(torch.mm, "mm")
def matmul(e: Emitter, _: fx.Node, x: fx.Node, other: fx.Node) -> str:
    return e.op("MatMul", x, other)


@lowering(torch.einsum)
def einsum(e: Emitter, _: fx.Node, equation: str, *operands: fx.Node) -> str:
    return e.op("Einsum", *operands, equation=equation.replace(" ", ""))


@lowering(torch.addmm, "addmm", torch.baddbmm, "baddbmm")
def add_product(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    first: fx.Node,
    second: fx.Node,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> str:
    if (beta, alpha) != (1, 1):
        e.refuse("only beta=1 and alpha=1 have an ONNX form here")
    return e.op("Add", x, e.op("MatMul", first, second))
