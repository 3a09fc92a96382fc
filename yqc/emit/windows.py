"""Lowerings that move pixels: windows as columns and back, rolls, flips, sampling at positions."""

# ruff: noqa: ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc.emit.emitter import Constant, Emitter, Operand
from yqc.emit.geometry import Dims, each
from yqc.emit.table import lowering

LEAST = -(2**63) + 1
"""As the end of a slice that runs backwards: before the first element."""
SAMPLE_OPSET, RENAMED_OPSET = 16, 20
"""From the first on ONNX has GridSample; from the second on its modes have other names."""


def _one_hot(e: Emitter, channels: int, kernel: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Make the weights of a depthwise convolution that lays each window out as channels."""
    count = math.prod(kernel)
    rows = torch.eye(count, dtype=dtype).reshape(count, 1, *kernel)
    return rows.repeat(channels, *[1] * (1 + len(kernel)))


@lowering(nn.Unfold, F.unfold)
def unfold(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    kernel_size: Dims,
    dilation: Dims = 1,
    padding: Dims = 0,
    stride: Dims = 1,
) -> str:
    """Lower [N, C, H, W] to [N, C * kh * kw, windows] by a convolution of zeros and a one."""
    channels, kernel = e.shape(x)[1], each(kernel_size, 2)
    laid = e.op(
        "Conv",
        x,
        _one_hot(e, channels, kernel, e.spec(x).dtype),
        kernel_shape=kernel,
        strides=each(stride, 2),
        pads=each(padding, 2) * 2,
        dilations=each(dilation, 2),
        group=channels,
    )
    return e.op("Reshape", laid, [0, channels * math.prod(kernel), -1])


@lowering(nn.Fold, F.fold)
def fold(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    output_size: Dims,
    kernel_size: Dims,
    dilation: Dims = 1,
    padding: Dims = 0,
    stride: Dims = 1,
) -> str:
    """Lower [N, C * kh * kw, windows] to [N, C, H, W], windows added, as `unfold` transposed."""
    kernel, gaps, pads = each(kernel_size, 2), each(dilation, 2), each(padding, 2)
    size, steps = each(output_size, 2), each(stride, 2)
    reach = [size[i] + 2 * pads[i] - gaps[i] * (kernel[i] - 1) - 1 for i in (0, 1)]
    rows = [reach[i] // steps[i] + 1 for i in (0, 1)]
    channels = e.shape(x)[1] // math.prod(kernel)
    return e.op(
        "ConvTranspose",
        e.op("Reshape", x, [0, e.shape(x)[1], *rows]),
        _one_hot(e, channels, kernel, e.spec(x).dtype),
        kernel_shape=kernel,
        strides=steps,
        pads=pads * 2,
        dilations=gaps,
        output_padding=[reach[i] % steps[i] for i in (0, 1)],
        group=channels,
    )


@lowering(torch.roll, "roll")
def roll(
    e: Emitter, _: fx.Node, x: fx.Node, shifts: Dims, dims: Dims | None = None
) -> fx.Node | str:
    """Lower each shift by a cut in two parts that are joined the other way round."""
    if dims is None or dims == ():
        e.refuse("give its dims")
    pairs = zip(
        [shifts] if isinstance(shifts, int) else shifts,
        [dims] if isinstance(dims, int) else dims,
        strict=True,
    )
    value: fx.Node | str = x
    for shift, dim in pairs:
        axis, size = e.axis(x, dim), e.shape(x)[dim]
        if cut := -shift % size:
            last = e.op("Slice", value, [cut], [2**63 - 1], [axis])
            value = e.op("Concat", last, e.op("Slice", value, [0], [cut], [axis]), axis=axis)
    return value


@lowering(torch.flip, "flip")
def flip(e: Emitter, _: fx.Node, x: fx.Node, *dims: int | Sequence[int]) -> str:
    given = [d for dim in dims for d in ([dim] if isinstance(dim, int) else dim)]
    axes = [e.axis(x, d) for d in given]
    backwards = [-1] * len(axes)
    return e.op("Slice", x, backwards, [LEAST] * len(axes), axes, backwards)


@lowering(nn.ChannelShuffle, torch.channel_shuffle)
def channel_shuffle(e: Emitter, _: fx.Node, x: fx.Node, groups: int) -> str:
    parts = e.op("Reshape", x, [0, groups, e.shape(x)[1] // groups, -1])
    return e.op("Reshape", e.op("Transpose", parts, perm=[0, 2, 1, 3]), e.op("Shape", x))


@lowering(F.grid_sample)
def grid_sample(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    grid: fx.Node,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> str:
    if len(e.shape(x)) != 4:  # noqa: PLR2004  # [N, C, H, W]
        e.refuse("only images have an ONNX form here, not volumes")
    e.require(SAMPLE_OPSET, "sampling at positions")
    if e.opset >= RENAMED_OPSET:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    corners = int(bool(align_corners))
    return e.op("GridSample", x, grid, mode=mode, padding_mode=padding_mode, align_corners=corners)


@lowering(F.affine_grid)
def affine_grid(
    e: Emitter,
    node: fx.Node,
    theta: fx.Node,
    size: Sequence[int],
    align_corners: bool | None = None,
) -> str:
    """Lower the positions theta (x, y, 1) of all pixels, x and y from -1 to 1."""
    if len(size) != 4:  # noqa: PLR2004  # [N, C, H, W]
        e.refuse("only images have an ONNX form here, not volumes")
    height, width = size[2:]
    axes = [_positions(n, bool(align_corners)) for n in (height, width)]
    y, x = torch.meshgrid(*axes, indexing="ij")
    rows = torch.stack((x, y, torch.ones_like(x)), -1).reshape(-1, 3).to(e.spec(theta).dtype)
    moved = e.op("MatMul", rows, e.op("Transpose", theta, perm=[0, 2, 1]))
    return e.op("Reshape", moved, [-1, height, width, 2])


def _positions(count: int, corners: bool) -> Tensor:
    """Return the centres of pixels between -1 and 1, or the corners of the outer ones there."""
    if corners:
        return torch.linspace(-1, 1, count)
    return (torch.arange(count) * 2 + 1) / count - 1


@lowering(nn.Embedding)
def embedding_module(e: Emitter, node: fx.Node, x: fx.Node, weight: Operand) -> str:
    return e.op("Gather", weight, x)


@lowering(F.embedding)
def embedding(
    e: Emitter, node: fx.Node, x: fx.Node, weight: fx.Node | Constant, *_: object, **__: object
) -> str:
    return e.op("Gather", weight, x)


@lowering(F.scaled_dot_product_attention)
def attention(
    e: Emitter,
    node: fx.Node,
    query: fx.Node,
    key: fx.Node,
    value: fx.Node,
    attn_mask: fx.Node | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> str:
    """Lower softmax(q k^T * scale + mask) v (Vaswani et al. 2017)."""
    if dropout_p or is_causal or enable_gqa:
        e.refuse("dropout, causal masks and grouped heads have no ONNX form here")
    rank, dtype = len(e.shape(key)), e.spec(query).dtype
    factor = 1 / math.sqrt(e.shape(query)[-1]) if scale is None else scale
    turned = e.op("Transpose", key, perm=[*range(rank - 2), rank - 1, rank - 2])
    products = e.op("Mul", e.op("MatMul", query, turned), e.scalar(factor, dtype))
    if attn_mask is not None:
        if not e.spec(attn_mask).dtype.is_floating_point:
            e.refuse("a mask of truth values has no ONNX form here; give one that is added")
        products = e.op("Add", products, attn_mask)
    return e.op("MatMul", e.op("Softmax", products, axis=-1), value)
