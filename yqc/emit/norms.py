"""Lowerings of normalisations."""

# ruff: noqa: ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.emit.emitter import Constant, Emitter, Operand
from yqc.emit.reductions import reduce_axes
from yqc.emit.table import lowering


@lowering(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, F.batch_norm)
def batch_norm(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    running_mean: Operand,
    running_var: Operand,
    weight: Operand = None,
    bias: Operand = None,
    training: bool = False,
    momentum: float | None = 0.1,  # of training
    eps: float = 1e-5,
) -> str:
    if training or running_mean is None or running_var is None:
        e.refuse("it normalises by the statistics of the batch; call eval() on the model")
    channels, dtype = e.shape(x)[1], e.spec(x).dtype
    scale = torch.ones(channels, dtype=dtype) if weight is None else weight
    shift = torch.zeros(channels, dtype=dtype) if bias is None else bias
    inputs = (x, scale, shift, running_mean, running_var)
    return e.op("BatchNormalization", *inputs, epsilon=float(eps))


@lowering(nn.LayerNorm, F.layer_norm)
def layer_norm(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    normalized_shape: Sequence[int],
    weight: Operand = None,
    bias: Operand = None,
    eps: float = 1e-5,
) -> str:
    dtype = e.spec(node).dtype
    scale = torch.ones(*normalized_shape, dtype=dtype) if weight is None else weight
    axis = -len(normalized_shape)
    return e.op("LayerNormalization", x, scale, bias, axis=axis, epsilon=float(eps))


@lowering(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, F.instance_norm)
def instance_norm(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    running_mean: Operand = None,
    running_var: Operand = None,
    weight: Operand = None,
    bias: Operand = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,  # of training
    eps: float = 1e-5,
    track_running_stats: bool = False,
) -> str:
    if running_mean is not None and (track_running_stats or not use_input_stats):
        return batch_norm(e, node, x, running_mean, running_var, weight, bias, eps=eps)
    channels, dtype = e.shape(x)[1], e.spec(x).dtype
    scale = torch.ones(channels, dtype=dtype) if weight is None else weight
    shift = torch.zeros(channels, dtype=dtype) if bias is None else bias
    return e.op("InstanceNormalization", x, scale, shift, epsilon=float(eps))


@lowering(nn.GroupNorm, F.group_norm)
def group_norm(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    num_groups: int,
    weight: Operand = None,
    bias: Operand = None,
    eps: float = 1e-5,
) -> str:
    """Lower by an instance norm of the groups' values, then a factor and a shift a channel."""
    dtype = e.spec(x).dtype
    ones, zeros = torch.ones(num_groups, dtype=dtype), torch.zeros(num_groups, dtype=dtype)
    groups = e.op("Reshape", x, [0, num_groups, -1])
    normal = e.op("InstanceNormalization", groups, ones, zeros, epsilon=float(eps))
    y = e.op("Reshape", normal, e.op("Shape", x))
    trailing = len(e.shape(x)) - 2
    y = y if weight is None else e.op("Mul", y, _beside(e, weight, trailing))
    return y if bias is None else e.op("Add", y, _beside(e, bias, trailing))


def _beside(e: Emitter, vector: Operand, trailing: int) -> Operand:
    """Return a value a channel as a tensor that stands beside `trailing` further axes."""
    if constant := e.constant(vector):
        return Constant(constant.value.reshape(-1, *[1] * trailing), constant.name)
    return e.op("Unsqueeze", vector, list(range(1, 1 + trailing)))


@lowering(nn.RMSNorm, F.rms_norm)
def rms_norm(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    normalized_shape: Sequence[int],
    weight: Operand = None,
    eps: float | None = None,
) -> str:
    dtype, rank = e.spec(node).dtype, len(e.shape(x))
    axes = list(range(rank - len(normalized_shape), rank))
    mean = reduce_axes(e, "ReduceMean", e.op("Mul", x, x), axes, True)
    least = e.scalar(torch.finfo(dtype).eps if eps is None else eps, dtype)
    y = e.op("Div", x, e.op("Sqrt", e.op("Add", mean, least)))
    return y if weight is None else e.op("Mul", y, weight)


@lowering(nn.LocalResponseNorm, F.local_response_norm)
def local_response_norm(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> str:
    if size % 2 == 0:
        e.refuse("an even size has no ONNX form: the window would not be centred as there")
    return e.op("LRN", x, size=size, alpha=float(alpha), beta=float(beta), bias=float(k))


@lowering(F.normalize)
def normalize(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    p: float = 2.0,
    dim: int | Sequence[int] = 1,
    eps: float = 1e-12,
    out: None = None,
) -> str:
    if p != 2:  # noqa: PLR2004
        e.refuse(f"only norm 2 has an ONNX form here, not {p}")
    return e.op("Div", x, _length(e, x, dim, eps))


def _length(e: Emitter, x: fx.Node, dim: int | Sequence[int], eps: float) -> str:
    """Return the length of vectors along axes, at least `eps`, axes kept."""
    axes = [e.axis(x, d) for d in ([dim] if isinstance(dim, int) else dim)]
    square = reduce_axes(e, "ReduceSum", e.op("Mul", x, x), axes, True)
    return e.op("Max", e.op("Sqrt", square), e.scalar(eps, e.spec(x).dtype))


@lowering(nn.CosineSimilarity, F.cosine_similarity)
def cosine_similarity(
    e: Emitter, _: fx.Node, x: fx.Node, other: fx.Node, dim: int = 1, eps: float = 1e-8
) -> str:
    lengths = e.op("Mul", _length(e, x, dim, eps), _length(e, other, dim, eps))
    quotient = e.op("Div", e.op("Mul", x, other), lengths)
    return reduce_axes(e, "ReduceSum", quotient, [e.axis(x, dim)], False)
