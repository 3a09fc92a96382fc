"""Lowerings of layers with weights: convolutions, linear, normalisations.

PyTorch's modules and functions share their parameters' names, so one lowering serves both: what a
call does not give is taken from the module.
"""

# ruff: noqa: D103  # the decorator says what is lowered, the arguments are PyTorch's

import torch.nn.functional as F
from torch import fx, nn

from yqc.emit.emitter import Constant, Emitter, Operand
from yqc.emit.geometry import Dims, each, same_padding
from yqc.emit.pools import pad
from yqc.emit.table import lowering


@lowering(nn.Conv1d, nn.Conv2d, nn.Conv3d, F.conv1d, F.conv2d, F.conv3d)
def conv(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node | Constant,
    bias: Operand = None,
    stride: Dims = 1,
    padding: Dims | str = 0,
    dilation: Dims = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> str:
    kernel = e.shape(weight)[2:]
    dims = len(kernel)
    dilations = each(dilation, dims)
    if padding == "same":
        pads = same_padding(kernel, dilations)
    else:
        pads = each(0 if isinstance(padding, str) else padding, dims) * 2
    source: Operand = x
    if padding_mode != "zeros":
        around = [p for i in reversed(range(dims)) for p in (pads[i], pads[dims + i])]
        source, pads = pad(e, node, x, around, padding_mode), [0] * 2 * dims
    return e.op(
        "Conv",
        *(source, weight, bias),
        kernel_shape=kernel,
        strides=each(stride, dims),
        pads=pads,
        dilations=dilations,
        group=groups,
    )


@lowering(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
@lowering(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def conv_transpose(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    weight: fx.Node | Constant,
    bias: Operand = None,
    stride: Dims = 1,
    padding: Dims = 0,
    output_padding: Dims = 0,
    groups: int = 1,
    dilation: Dims = 1,
) -> str:
    kernel = e.shape(weight)[2:]
    dims = len(kernel)
    return e.op(
        "ConvTranspose",
        *(x, weight, bias),
        kernel_shape=kernel,
        strides=each(stride, dims),
        pads=each(padding, dims) * 2,
        output_padding=each(output_padding, dims),
        dilations=each(dilation, dims),
        group=groups,
    )


@lowering(nn.Linear, F.linear)
def linear(
    e: Emitter, _: fx.Node, x: fx.Node, weight: fx.Node | Constant, bias: Operand = None
) -> str:
    """Lower y = x W^T + b: Gemm for rows of a matrix, else MatMul and Add."""
    if len(e.shape(x)) == 2:  # noqa: PLR2004  # Gemm takes matrices
        return e.op("Gemm", x, weight, bias, transB=1)
    if constant := e.constant(weight):
        product = e.op("MatMul", x, Constant(constant.value.t(), f"{constant.name}.T"))
    else:
        product = e.op("MatMul", x, e.op("Transpose", weight, perm=[1, 0]))
    return product if bias is None else e.op("Add", product, bias)
