"""Lowerings of activations: modules, functions and tensor methods alike."""

# ruff: noqa: ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.emit.emitter import Constant, Emitter, Operand
from yqc.emit.table import LoweringTarget, lowering

GELU_OPSET = 20
"""From here on ONNX has Gelu."""


@lowering(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
@lowering(nn.FeatureAlphaDropout, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
@lowering(F.alpha_dropout, F.feature_alpha_dropout)
def dropout(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    p: float = 0.5,  # nothing is dropped at inference
    training: bool = False,
    inplace: bool = False,  # there is no place to write to in ONNX
) -> fx.Node:
    if training:
        e.refuse("it is in training mode; call eval() on the model")
    return x


PLAIN: dict[str, tuple[LoweringTarget, ...]] = {
    "Sigmoid": (nn.Sigmoid, torch.sigmoid, F.sigmoid, "sigmoid"),
    "Relu": (nn.ReLU, F.relu, torch.relu, "relu"),
    "HardSwish": (nn.Hardswish, F.hardswish),
    "Tanh": (nn.Tanh, torch.tanh, F.tanh, "tanh"),
    "Selu": (nn.SELU, F.selu, torch.selu),
    "Softsign": (nn.Softsign, F.softsign),
}
"""Activations with an ONNX operator of the same meaning and no settings."""


def _plain(op_type: str) -> Callable[..., str]:
    def lower(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:
        return e.op(op_type, x)

    return lower


for _op_type, _targets in PLAIN.items():
    lowering(*_targets)(_plain(_op_type))


@lowering(nn.LeakyReLU, F.leaky_relu)
def leaky_relu(
    e: Emitter, _: fx.Node, x: fx.Node, negative_slope: float = 0.01, inplace: bool = False
) -> str:
    return e.op("LeakyRelu", x, alpha=float(negative_slope))


@lowering(nn.ELU, F.elu)
def elu(e: Emitter, _: fx.Node, x: fx.Node, alpha: float = 1.0, inplace: bool = False) -> str:
    return e.op("Elu", x, alpha=float(alpha))


@lowering(nn.SiLU, F.silu)
def silu(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:
    return e.op("Mul", x, e.op("Sigmoid", x))


@lowering(nn.Hardtanh, F.hardtanh)
def hardtanh(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> str:
    dtype = e.spec(node).dtype
    return e.op("Clip", x, e.scalar(min_val, dtype), e.scalar(max_val, dtype))


@lowering(nn.ReLU6, F.relu6)
def relu6(e: Emitter, node: fx.Node, x: fx.Node, inplace: bool = False) -> str:
    return hardtanh(e, node, x, 0.0, 6.0)


@lowering(nn.Hardsigmoid, F.hardsigmoid)
def hardsigmoid(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:
    return e.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@lowering(nn.Mish, F.mish)
def mish(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:
    return e.op("Mul", x, e.op("Tanh", e.op("Softplus", x)))


@lowering(nn.GELU, F.gelu)
def gelu(e: Emitter, node: fx.Node, x: fx.Node, approximate: str = "none") -> str:
    """Lower GELU: x * (1 + erf(x / sqrt 2)) / 2, or its tanh form (Hendrycks and Gimpel 2016)."""
    if e.opset >= GELU_OPSET:
        return e.op("Gelu", x, approximate=approximate)
    dtype = e.spec(node).dtype

    def times(value: Operand, factor: float) -> str:
        return e.op("Mul", value, e.scalar(factor, dtype))

    if approximate == "tanh":
        cube = times(e.op("Mul", x, e.op("Mul", x, x)), 0.044715)
        bell = e.op("Tanh", times(e.op("Add", x, cube), math.sqrt(2 / math.pi)))
    else:
        bell = e.op("Erf", times(x, math.sqrt(0.5)))
    return e.op("Mul", times(x, 0.5), e.op("Add", bell, e.scalar(1.0, dtype)))


@lowering(nn.PReLU, F.prelu, torch.prelu)
def prelu(e: Emitter, _: fx.Node, x: fx.Node, weight: Operand) -> str:
    """Lower PReLU: one slope for all channels, or one a channel (axis 1)."""
    trailing = len(e.shape(x)) - 2
    if constant := e.constant(weight):
        shape = (-1, *[1] * trailing)
        return e.op("PRelu", x, Constant(constant.value.reshape(shape), constant.name))
    return e.op("PRelu", x, e.op("Unsqueeze", weight, list(range(1, 1 + trailing))))


@lowering(nn.Softplus, F.softplus)
def softplus(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    beta: float = 1.0,
    threshold: float = 20.0,  # where PyTorch's result is x in float32 anyway
) -> str:
    if beta != 1:
        e.refuse("only beta=1 has an ONNX form")
    return e.op("Softplus", x)


@lowering(nn.Softmax, torch.softmax, F.softmax, "softmax")
def softmax(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,  # it is the node's own dtype
) -> str:
    if dim is None:
        e.refuse("give its dim")
    return e.op("Softmax", e.number(x, e.spec(node).dtype), axis=e.axis(x, dim))


@lowering(nn.LogSoftmax, torch.log_softmax, F.log_softmax, "log_softmax")
def log_softmax(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,  # it is the node's own dtype
) -> str:
    if dim is None:
        e.refuse("give its dim")
    return e.op("LogSoftmax", e.number(x, e.spec(node).dtype), axis=e.axis(x, dim))


@lowering(nn.Softmin, F.softmin)
def softmin(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,  # it is the node's own dtype
) -> str:
    if dim is None:
        e.refuse("give its dim")
    return e.op("Softmax", e.op("Neg", x), axis=e.axis(x, dim))


@lowering(nn.Softmax2d)
def softmax_of_channels(e: Emitter, _: fx.Node, x: fx.Node) -> str:
    return e.op("Softmax", x, axis=e.axis(x, -3))


@lowering(nn.LogSigmoid, F.logsigmoid)
def log_sigmoid(e: Emitter, _: fx.Node, x: fx.Node) -> str:
    return e.op("Neg", e.op("Softplus", e.op("Neg", x)))


@lowering(nn.CELU, F.celu, torch.celu)
def celu(e: Emitter, _: fx.Node, x: fx.Node, alpha: float = 1.0, inplace: bool = False) -> str:
    return e.op("Celu", x, alpha=float(alpha))


@lowering(nn.Tanhshrink, F.tanhshrink)
def tanhshrink(e: Emitter, _: fx.Node, x: fx.Node) -> str:
    return e.op("Sub", x, e.op("Tanh", x))


@lowering(nn.Hardshrink, F.hardshrink, "hardshrink")
def hardshrink(e: Emitter, _: fx.Node, x: fx.Node, lambd: float = 0.5) -> str:
    return e.op("Shrink", x, lambd=float(lambd), bias=0.0)


@lowering(nn.Softshrink, F.softshrink)
def softshrink(e: Emitter, _: fx.Node, x: fx.Node, lambd: float = 0.5) -> str:
    return e.op("Shrink", x, lambd=float(lambd), bias=float(lambd))


@lowering(nn.Threshold, F.threshold)
def threshold(
    e: Emitter, node: fx.Node, x: fx.Node, threshold: float, value: float, inplace: bool = False
) -> str:
    dtype = e.spec(node).dtype
    above = e.op("Greater", x, e.scalar(threshold, dtype))
    return e.op("Where", above, x, e.scalar(value, dtype))


@lowering(nn.RReLU, F.rrelu)
def rrelu(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> str:
    """Lower the leaky ReLU whose slope is random in training, and its mean at inference."""
    if training:
        e.refuse("it is in training mode; call eval() on the model")
    return e.op("LeakyRelu", x, alpha=(lower + upper) / 2)


@lowering(nn.GLU, F.glu)
def glu(e: Emitter, _: fx.Node, x: fx.Node, dim: int = -1) -> str:
    axis = e.axis(x, dim)
    half = e.shape(x)[axis] // 2
    value, gate = e.ops("Split", 2, x, [half, half], axis=axis)
    return e.op("Mul", value, e.op("Sigmoid", gate))
