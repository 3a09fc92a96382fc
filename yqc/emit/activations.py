"""Lowerings of activations: modules, functions and tensor methods alike."""

import math

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.emit.emitter import Emitter, Operand
from yqc.emit.table import lowering

ERF_OPSET = 20
"""From here on ONNX has Gelu."""


@lowering(nn.Identity, nn.Dropout, nn.Dropout2d, F.dropout, torch.dropout)
@lowering("contiguous", "clone", "detach", "cpu", "cuda", torch.clone)
def same(e: Emitter, node: fx.Node, x: fx.Node, *_: object, **__: object) -> fx.Node:
    """Pass a value through: dropout at inference, memory formats, copies."""
    if getattr(_module(e, node), "training", False) or __.get("training") is True:
        e.refuse("it is in training mode; call eval() before tracing")
    return x


def _module(e: Emitter, node: fx.Node) -> nn.Module | None:
    return e.gm.get_submodule(str(node.target)) if node.op == "call_module" else None


@lowering(nn.Sigmoid, torch.sigmoid, F.sigmoid, "sigmoid")
def sigmoid(e: Emitter, _: fx.Node, x: fx.Node) -> str:
    return e.op("Sigmoid", x)


@lowering(nn.SiLU, F.silu)
def silu(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:  # noqa: ARG001
    return e.op("Mul", x, e.op("Sigmoid", x))


@lowering(nn.ReLU, F.relu, torch.relu, "relu")
def relu(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:  # noqa: ARG001
    return e.op("Relu", x)


@lowering(nn.ReLU6, F.relu6)
def relu6(e: Emitter, node: fx.Node, x: fx.Node, inplace: bool = False) -> str:  # noqa: ARG001
    return _clip(e, node, x, 0.0, 6.0)


@lowering(nn.Hardtanh)
def hardtanh_module(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    module = e.module(node, nn.Hardtanh)
    return _clip(e, node, x, module.min_val, module.max_val)


@lowering(F.hardtanh)
def hardtanh(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,  # noqa: ARG001
) -> str:
    return _clip(e, node, x, min_val, max_val)


def _clip(e: Emitter, node: fx.Node, x: fx.Node, low: float, high: float) -> str:
    dtype = e.spec(node).dtype
    return e.op("Clip", x, e.scalar(low, dtype), e.scalar(high, dtype))


@lowering(nn.LeakyReLU)
def leaky_relu_module(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    return e.op("LeakyRelu", x, alpha=float(e.module(node, nn.LeakyReLU).negative_slope))


@lowering(F.leaky_relu)
def leaky_relu(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    negative_slope: float = 0.01,
    inplace: bool = False,  # noqa: ARG001
) -> str:
    return e.op("LeakyRelu", x, alpha=float(negative_slope))


@lowering(nn.Hardswish, F.hardswish)
def hardswish(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:  # noqa: ARG001
    return e.op("HardSwish", x)


@lowering(nn.Hardsigmoid, F.hardsigmoid)
def hardsigmoid(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:  # noqa: ARG001
    return e.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@lowering(nn.Mish, F.mish)
def mish(e: Emitter, _: fx.Node, x: fx.Node, inplace: bool = False) -> str:  # noqa: ARG001
    return e.op("Mul", x, e.op("Tanh", e.op("Softplus", x)))


@lowering(nn.GELU)
def gelu_module(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    return gelu(e, node, x, approximate=e.module(node, nn.GELU).approximate)


@lowering(F.gelu)
def gelu(e: Emitter, node: fx.Node, x: fx.Node, approximate: str = "none") -> str:
    """Lower GELU: x * (1 + erf(x / sqrt 2)) / 2, or its tanh form (Hendrycks and Gimpel 2016)."""
    if e.opset >= ERF_OPSET:
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


@lowering(nn.ELU)
def elu_module(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    return e.op("Elu", x, alpha=float(e.module(node, nn.ELU).alpha))


@lowering(F.elu)
def elu(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    alpha: float = 1.0,
    inplace: bool = False,  # noqa: ARG001
) -> str:
    return e.op("Elu", x, alpha=float(alpha))


@lowering(nn.PReLU)
def prelu(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    """Lower PReLU: one slope for all channels, or one a channel (axis 1)."""
    slope = e.module(node, nn.PReLU).weight
    trailing = len(e.shape(x)) - 2
    return e.op("PRelu", x, e.tensor(slope.reshape(-1, *[1] * trailing), f"{node.target}.weight"))


@lowering(nn.Tanh, torch.tanh, F.tanh, "tanh")
def tanh(e: Emitter, _: fx.Node, x: fx.Node) -> str:
    return e.op("Tanh", x)


@lowering(nn.Softplus)
def softplus(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    module = e.module(node, nn.Softplus)
    if module.beta != 1:
        e.refuse("only beta=1 has an ONNX form")
    return e.op("Softplus", x)


@lowering(nn.Softmax)
def softmax_module(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    dim = e.module(node, nn.Softmax).dim
    if dim is None:
        e.refuse("give its dim")
    return e.op("Softmax", x, axis=e.axis(x, dim))


@lowering(torch.softmax, F.softmax, "softmax")
def softmax(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    dim: int,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,  # noqa: ARG001  # seen in the node's own dtype
) -> str:
    x32 = e.cast(x, e.spec(x).dtype, e.spec(node).dtype)
    return e.op("Softmax", x32, axis=e.axis(x, dim))
