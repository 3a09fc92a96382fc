"""Lowerings of pools and padding.

Two things that runtimes disagree on are kept out of the file: `ceil_mode` (the padding that it
amounts to is written out), and a Pad before a MaxPool, which onnxruntime fuses as if the pool
padded with zeros too (measured with 1.31.1: 15 px on YOLOv3-tiny's boxes).
"""

# ruff: noqa: ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

import inspect
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.emit.emitter import Emitter, Operand
from yqc.emit.geometry import Dims, each, missing, onnx_pads, taps
from yqc.emit.reductions import reduce_axes
from yqc.emit.table import lowering

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
WRAP_OPSET = 19
"""From here on ONNX pads circularly."""


@lowering(F.pad)
def pad(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> str:
    if MODES[mode] == "wrap":
        e.require(WRAP_OPSET, "circular padding")
    fill = e.scalar(value, e.spec(node).dtype) if value else None
    return e.op("Pad", x, onnx_pads(pad, len(e.shape(x))), fill, mode=MODES[mode])


@lowering(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
@lowering(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
def constant_pad(
    e: Emitter, node: fx.Node, x: fx.Node, padding: Sequence[int], value: float = 0.0
) -> str:
    return pad(e, node, x, padding, value=value)


@lowering(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d)
def circular_pad(e: Emitter, node: fx.Node, x: fx.Node, padding: Sequence[int]) -> str:
    return pad(e, node, x, padding, "circular")


@lowering(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d)
def reflection_pad(e: Emitter, node: fx.Node, x: fx.Node, padding: Sequence[int]) -> str:
    return pad(e, node, x, padding, "reflect")


@lowering(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d)
def replication_pad(e: Emitter, node: fx.Node, x: fx.Node, padding: Sequence[int]) -> str:
    return pad(e, node, x, padding, "replicate")


@lowering(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, F.max_pool1d, F.max_pool2d, F.max_pool3d)
def max_pool(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    kernel_size: Dims,
    stride: Dims | None = None,
    padding: Dims = 0,
    dilation: Dims = 1,
    ceil_mode: bool = False,  # given by the shape of the result
    return_indices: bool = False,
) -> str:
    """Lower a max pool, together with a padding by zeros right before it.

    The pool gets all of the padding as its own, which is by minus infinity; the zeros come back in
    a Max with one row and one column: 0 where a window reaches into the zeros, else the lowest
    number there is.
    """
    if return_indices:
        e.refuse("the indices of the maxima have no ONNX form here")
    source, zeros = _zero_padding(e, x)
    sizes, outs = e.sides(source)[2:], e.sides(node)[2:]
    dims = len(sizes)
    kernel, gaps, own = each(kernel_size, dims), each(dilation, dims), each(padding, dims)
    strides = kernel if stride is None or stride == [] else each(stride, dims)
    starts, ends, touched = [], [], []
    for i in range(dims):
        window, (before, after) = (kernel[i], strides[i], gaps[i]), zeros[i]
        start = before + own[i]
        starts.append(start)
        both = list(zip(sizes[i], outs[i], strict=True))
        end, *other = {max(after + own[i], missing(s, o, *window, start)) for s, o in both}
        if other:
            e.fixed(node, "its padding behind the end depends on the size")
        ends.append(end)
        touched.append(tuple(_touched(s, o, window, start, zeros[i]) for s, o in both))
    padded: Operand = source
    lowest = e.scalar(torch.finfo(e.spec(node).dtype).min, e.spec(node).dtype)
    if any(p >= k for p, k in zip(starts + ends, kernel * 2, strict=True)):
        # Runtimes refuse a padding as wide as the kernel, which a dilated one may have.
        padded = e.op("Pad", source, [0, 0, *starts, 0, 0, *ends], lowest)
        starts, ends = [0] * dims, [0] * dims
    pool = e.op(
        "MaxPool", padded, kernel_shape=kernel, strides=strides, pads=starts + ends, dilations=gaps
    )
    rims = [i for i, touches in enumerate(touched) if any(map(any, touches))]
    return e.op("Max", pool, *(_border(e, node, i, touched[i]) for i in rims)) if rims else pool


def _touched(
    size: int, out: int, window: tuple[int, int, int], start: int, zeros: tuple[int, int]
) -> list[bool]:
    """Say for each window along one axis whether it reaches into the padding by zeros."""
    ring = {*range(-zeros[0], 0), *range(size, size + zeros[1])}
    return [not ring.isdisjoint(taps(o, *window, start)) for o in range(out)]


def _border(e: Emitter, node: fx.Node, axis: int, touched: tuple[list[bool], ...]) -> Operand:
    """Return 0 where a window reaches into the zeros, else the lowest number, along one axis."""
    dtype, side = e.spec(node).dtype, e.sides(node)[2 + axis]
    lowest, trailing = torch.finfo(dtype).min, len(e.shape(node)) - 3 - axis
    if side[0] == side[1]:
        row = torch.tensor([0.0 if touches else lowest for touches in touched[0]], dtype=dtype)
        return row.reshape(-1, *[1] * trailing)
    first, last = ([rim.index(False), rim[::-1].index(False)] for rim in touched)
    if first != last or any(sum(rim) != sum(first) for rim in touched):
        e.fixed(node, "which windows reach into its padding depends on the size")
    inner = e.op("Sub", e.dims([side]), [sum(first)])
    before, after = (torch.zeros(count, dtype=dtype) for count in first)
    middle = e.op("Expand", e.scalar(lowest, dtype), inner)
    made = e.op("Concat", before, middle, after, axis=0)
    return e.op("Unsqueeze", made, list(range(1, trailing + 1))) if trailing else made


def _zero_padding(e: Emitter, x: fx.Node) -> tuple[fx.Node, list[tuple[int, int]]]:
    """Return what is padded with zeros to give `x`, and how much before and after, by dimension.

    `x` itself and no padding, if `x` is something else.
    """
    rank = len(e.shape(x))
    none = [(0, 0)] * (rank - 2)
    if x.op == "call_module":
        module = e.gm.get_submodule(str(x.target))
        if not isinstance(module, (nn.ConstantPad1d, nn.ConstantPad2d)) or module.value:
            return x, none
        amounts: Sequence[int] = module.padding
    elif x.target is F.pad:
        given = inspect.signature(F.pad).bind(*x.args, **x.kwargs).arguments
        if given.get("mode", "constant") != "constant" or given.get("value"):
            return x, none
        amounts = given["pad"]
    else:
        return x, none
    pads = onnx_pads(amounts, rank)
    if min(pads) < 0 or any(pads[i] or pads[rank + i] for i in (0, 1)):
        return x, none
    source = x.all_input_nodes[0]
    return source, [(pads[i], pads[rank + i]) for i in range(2, rank)]


@lowering(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
def avg_pool(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    kernel_size: Dims,
    stride: Dims | None = None,
    padding: Dims = 0,
    ceil_mode: bool = False,  # given by the shape of the result
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> str:
    """Lower an average pool.

    PyTorch counts the padding that is given, and never what `ceil_mode` adds behind it. Where
    both occur, the average over whole windows is corrected by one row and one column of factors.
    """
    size, out = e.shape(x)[2:], e.shape(node)[2:]
    dims = len(size)
    kernel, own = each(kernel_size, dims), each(padding, dims)
    strides = kernel if stride is None or stride == [] else each(stride, dims)
    ends = [
        max(own[i], missing(size[i], out[i], kernel[i], strides[i], 1, own[i])) for i in range(dims)
    ]
    whole = (count_include_pad and (any(own) or ends == own)) or divisor_override is not None
    pool = e.op(
        "AveragePool",
        x,
        kernel_shape=kernel,
        strides=strides,
        pads=own + ends,
        count_include_pad=int(whole),
    )
    dtype = e.spec(node).dtype
    if divisor_override is not None:
        factor = torch.tensor(kernel).prod().item() / divisor_override
        return e.op("Mul", pool, e.scalar(factor, dtype))
    if ends != own:
        e.fixed(node, "how much its last window counts depends on the size")
    if whole and ends != own:
        for i in range(dims):
            windows = [taps(o, kernel[i], strides[i], 1, own[i]) for o in range(out[i])]
            counted = [sum(t < size[i] + own[i] for t in window) for window in windows]
            factors = kernel[i] / torch.tensor(counted, dtype=dtype)
            pool = e.op("Mul", pool, factors.reshape(-1, *[1] * (dims - 1 - i)))
    return pool


@lowering(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
@lowering(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
def adaptive_avg_pool(e: Emitter, node: fx.Node, x: fx.Node, output_size: object) -> str:
    return _adaptive(e, node, x, "AveragePool")


@lowering(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
@lowering(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)
def adaptive_max_pool(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    output_size: object,  # given by the shape of the result
    return_indices: bool = False,
) -> str:
    if return_indices:
        e.refuse("the indices of the maxima have no ONNX form here")
    return _adaptive(e, node, x, "MaxPool")


def _adaptive(e: Emitter, node: fx.Node, x: fx.Node, pool: str) -> str:
    size, out = e.shape(x)[2:], e.shape(node)[2:]
    if set(out) == {1}:
        return e.op(f"Global{pool}", x)
    if any(s % o for s, o in zip(size, out, strict=True)):
        e.fixed(x, "its windows depend on the size")
        return _uneven(e, x, size, out, mean=pool == "AveragePool")
    e.fixed(x, "its windows are as large as the map is for the traced size")
    kernel = [s // o for s, o in zip(size, out, strict=True)]
    return e.op(pool, x, kernel_shape=kernel, strides=kernel)


def _uneven(e: Emitter, x: fx.Node, size: Sequence[int], out: Sequence[int], *, mean: bool) -> str:
    """Pool windows of different sizes, axis by axis: output i of m is i n / m to (i + 1) n / m.

    Starts are rounded down and ends up. The elements of all windows are gathered, short windows
    filled up with their last element, and then reduced, for a mean with its factors.
    """
    value: Operand = x
    for axis, (n, m) in enumerate(zip(size, out, strict=True), 2):
        windows = [range(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        longest = max(map(len, windows))
        filled = [[*w] + [w[-1]] * (longest - len(w)) for w in windows]
        value = e.op("Gather", value, torch.tensor(filled), axis=axis)
        if mean:
            rows = [[1 / len(w)] * len(w) + [0.0] * (longest - len(w)) for w in windows]
            factors = torch.tensor(rows, dtype=e.spec(x).dtype)
            value = e.op("Mul", value, factors.reshape(m, longest, *[1] * (len(size) + 1 - axis)))
        value = reduce_axes(e, "ReduceSum" if mean else "ReduceMax", value, [axis + 1], False)
    return e.value(value)


@lowering(nn.LPPool1d, nn.LPPool2d, F.lp_pool1d, F.lp_pool2d)
def lp_pool(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    norm_type: float,
    kernel_size: Dims,
    stride: Dims | None = None,
    ceil_mode: bool = False,
) -> str:
    dims = len(e.shape(x)) - 2
    if norm_type != int(norm_type) or int(norm_type) % 2 or ceil_mode:
        e.refuse("only even norms, rounded down, have an ONNX form here")
    kernel = each(kernel_size, dims)
    strides = kernel if stride is None or stride == [] else each(stride, dims)
    return e.op("LpPool", x, kernel_shape=kernel, strides=strides, p=int(norm_type))
