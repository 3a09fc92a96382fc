"""What functions, methods and simple modules do with channels, by name."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx, nn

from yqc.graph.channels.sets import Axis, Cut
from yqc.graph.text import operation
from yqc.graph.values import KEY, TensorSpec

if TYPE_CHECKING:
    from yqc.graph.channels.walk import Known, Walk

SPATIAL = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d),
    *(nn.Upsample, nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
)
"""Modules that work on the last axes and leave the others alone."""

ELEMENTWISE = (
    *(nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh),
    *(nn.Softplus, nn.Softsign, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    nn.AlphaDropout,
)

_ELEMENTWISE = (
    "add iadd sub isub rsub mul imul div truediv itruediv floordiv mod remainder pow neg abs "
    "exp log sqrt rsqrt square reciprocal sigmoid tanh relu relu6 silu leaky_relu hardswish "
    "hardsigmoid hardtanh mish gelu elu celu selu softplus clamp clamp_min clamp_max clip "
    "minimum maximum where lerp floor ceil round sign sin cos erf gt lt ge le eq ne expand_as "
    "dropout contiguous clone detach to float double half type type_as zeros_like ones_like"
)
_SPATIAL = (
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_max_pool2d boolean_dispatch interpolate pad"
)
_REDUCE = "mean sum amax amin std var prod norm"


def name_of(node: fx.Node) -> str | None:
    """Name a function or method; None for a function that is neither torch's nor an operator."""
    if node.op == "call_method":
        return str(node.target).removesuffix("_")
    module = str(getattr(node.target, "__module__", "")) or "torch"
    home = module.partition(".")[0]
    if home not in {"torch", "_operator", "operator", "builtins", "None"}:
        return None
    return str(getattr(node.target, "__name__", "")).removesuffix("_")


def describe(gm: fx.GraphModule, node: fx.Node) -> str:
    """Name the operation of a node, for a reason."""
    return operation(gm, node)


def shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of what a node computes; `()` where it is no single tensor."""
    value = node.meta.get(KEY)
    return value.shape if isinstance(value, TensorSpec) else ()


def argument(node: fx.Node, place: int, *names: str, default: Any = None) -> Any:  # noqa: ANN401
    """Return an argument by place or name."""
    if len(node.args) > place:
        return node.args[place]
    return next((node.kwargs[n] for n in names if n in node.kwargs), default)


def spatial(walk: "Walk", node: fx.Node) -> "Known":
    """Pools, upsampling, padding: they touch the axes behind the channels only."""
    axis = walk.axis(node.args[0]) if node.args else None
    sizes = shape(node)
    if axis is None or len(node.all_input_nodes) != 1 or len(sizes) <= axis.dim + 1:
        return walk.unknown(node)
    if axis.dim > 1 or sizes[axis.dim] != len(axis.ids):
        return walk.unknown(node)
    return axis


def elementwise(walk: "Walk", node: fx.Node) -> "Known":
    """Additions, products, activations as functions."""
    return walk.elementwise(node)


def concatenate(walk: "Walk", node: fx.Node) -> "Known":
    """Join tensors along an axis."""
    parts = argument(node, 0, "tensors")
    dim = argument(node, 1, "dim", "axis", default=0)
    if not isinstance(parts, Sequence) or not isinstance(dim, int):
        return walk.unknown(node)
    return walk.join(node, [p for p in parts if isinstance(p, fx.Node)], dim % len(shape(node)))


def chunk(walk: "Walk", node: fx.Node) -> "Known":
    """Cut a tensor along an axis, into parts of equal or given sizes."""
    dim = argument(node, 2, "dim", default=0)
    source = node.args[0]
    if not isinstance(dim, int) or not isinstance(source, fx.Node) or not shape(source):
        return walk.unknown(node)
    return walk.parts(node, dim % len(shape(source)))


def getitem(walk: "Walk", node: fx.Node) -> "Known":
    """Take one of several results, or a slice."""
    source, index = node.args
    known = walk.known[source] if isinstance(source, fx.Node) else None
    if isinstance(known, tuple):
        return known[index] if isinstance(index, int) else walk.unknown(node)
    if not isinstance(known, Axis) or not isinstance(source, fx.Node):
        return walk.unknown(node)
    return cut_out(walk, node, known, index if isinstance(index, tuple) else (index,))


def cut_out(walk: "Walk", node: fx.Node, axis: Axis, index: tuple[object, ...]) -> "Known":
    """Index a tensor with slices, whole numbers, None and `...`."""
    source = node.all_input_nodes[0]
    rank = len(shape(source))
    if len(node.all_input_nodes) > 1 or any(isinstance(i, (bool, list, fx.Node)) for i in index):
        return walk.unknown(node)
    missing = rank - sum(i is not None and i is not Ellipsis for i in index)
    at = out = 0
    where, ids = -1, axis.ids
    whole: list[object] = []
    for part in (*index, *(() if Ellipsis in index else (Ellipsis,))):
        whole += [slice(None)] * missing if part is Ellipsis else [part]
    for place, part in enumerate(whole):
        if part is None:
            out += 1
        elif at == axis.dim:
            if not isinstance(part, slice) or part.step not in {None, 1}:
                return walk.unknown(node)
            first, last, _ = part.indices(len(ids))
            if (first, last) != (0, len(ids)):
                if Ellipsis in index[: place + 1] or first >= last:
                    return walk.unknown(node)
                walk.cuts.append(Cut(node, "slice", (ids[:first], ids[first:last]), place))
                ids = ids[first:last]
            where, at, out = out, at + 1, out + 1
        else:
            at, out = at + 1, out + isinstance(part, slice)
    return Axis(where, ids)


def reduce(walk: "Walk", node: fx.Node) -> "Known":
    """Mean, sum and the like over axes that are not the channels."""
    axis, source = walk.axis(node.args[0]), node.all_input_nodes[0]
    dims = argument(node, 1, "dim", "axis")
    rank = len(shape(source))
    if isinstance(dims, int):
        dims = (dims,)
    if axis is None or not isinstance(dims, Sequence) or not dims or not shape(node):
        return walk.unknown(node)
    gone = {d % rank for d in dims}
    if axis.dim in gone:
        return walk.unknown(node)
    kept = len(shape(node)) == rank
    return Axis(axis.dim if kept else axis.dim - sum(d < axis.dim for d in gone), axis.ids)


def softmax(walk: "Walk", node: fx.Node) -> "Known":
    """Softmax over an axis that is not the channels."""
    axis, dim = walk.axis(node.args[0]), argument(node, 1, "dim")
    rank = len(shape(node))
    return axis if axis and isinstance(dim, int) and dim % rank != axis.dim else walk.unknown(node)


def permute(walk: "Walk", node: fx.Node) -> "Known":
    """Move whole axes."""
    axis, rank = walk.axis(node.args[0]), len(shape(node))
    order = node.args[1:] if len(node.args) > 2 else argument(node, 1, "dims")  # noqa: PLR2004
    order = (order,) if isinstance(order, int) else order
    if axis is None or not isinstance(order, Sequence):
        return walk.unknown(node)
    places = [o % rank for o in order if isinstance(o, int)]
    return Axis(places.index(axis.dim), axis.ids)


def transpose(walk: "Walk", node: fx.Node) -> "Known":
    """Swap two axes."""
    axis, rank = walk.axis(node.args[0]), len(shape(node))
    a, b = argument(node, 1, "dim0"), argument(node, 2, "dim1")
    if name_of(node) == "t":
        a, b = 0, 1
    if axis is None or not isinstance(a, int) or not isinstance(b, int):
        return walk.unknown(node)
    a, b = a % rank, b % rank
    return Axis({a: b, b: a}.get(axis.dim, axis.dim), axis.ids)


def lay_out(walk: "Walk", node: fx.Node, sizes_at: int | None) -> "Known":
    """Reshape: the channels' axis must stay one, or be flattened with what is behind it.

    Args:
        walk: what is known.
        node: the reshaping.
        sizes_at: the place in the arguments where the first axis's size stands; None where the
            arguments name no sizes.
    """
    axis = walk.axis(node.args[0]) if node.args else None
    before, after = shape(node.all_input_nodes[0]), shape(node)
    if axis is None or len(axis.ids) == 1:
        return walk.unknown(node)
    ahead = math.prod(before[: axis.dim])
    ends = [d for d in range(len(after)) if math.prod(after[:d]) == ahead and after[d] > 1]
    if len(ends) != 1 or after[ends[0]] % len(axis.ids):
        return pinned(walk, node)
    dim, copies = ends[0], after[ends[0]] // len(axis.ids)
    behind = [math.prod(before[axis.dim + 1 : d]) for d in range(axis.dim + 1, len(before) + 1)]
    if copies not in {1, *behind}:
        return pinned(walk, node)
    ids = np.repeat(axis.ids, copies)
    if sizes_at is not None:
        sizes = _sizes(node, sizes_at)
        place = dim + len(sizes) - len(after)
        if place >= 0 and sizes[place] != -1:
            if not isinstance(sizes[place], int):
                return pinned(walk, node)
            walk.cuts.append(Cut(node, "size", (ids,), place))
    return Axis(dim, ids)


def _sizes(node: fx.Node, at: int) -> Sequence[object]:
    """List the sizes that a reshaping names, one after the other or as one argument."""
    given = argument(node, at, "shape", "size", "sizes")
    return given if isinstance(given, Sequence) else node.args[at:]


def pinned(walk: "Walk", node: fx.Node) -> "Known":
    """Refuse a reshaping of the channels' axis."""
    return walk.pin_inputs(node, f"{describe(walk.gm, node)} at {node} lays the channels out anew")


def flatten(walk: "Walk", node: fx.Node) -> "Known":
    """Flatten, squeeze, unsqueeze: their arguments name axes, not sizes."""
    return lay_out(walk, node, None)


def view(walk: "Walk", node: fx.Node) -> "Known":
    """View and reshape: their arguments name all sizes."""
    return lay_out(walk, node, 1)


def unflatten(walk: "Walk", node: fx.Node) -> "Known":
    """Unflatten: fine on any axis but the channels'."""
    axis, dim = walk.axis(node.args[0]), argument(node, 1, "dim")
    rank = len(shape(node.all_input_nodes[0]))
    if axis is None or not isinstance(dim, int) or dim % rank == axis.dim:
        return pinned(walk, node)
    return lay_out(walk, node, None)


def expand(walk: "Walk", node: fx.Node) -> "Known":
    """Expand other axes than the channels'."""
    axis, after = walk.axis(node.args[0]), shape(node)
    if axis is None:
        return walk.unknown(node)
    dim = axis.dim + len(after) - len(shape(node.all_input_nodes[0]))
    if after[dim] != len(axis.ids):
        return walk.unknown(node)
    if _sizes(node, 1)[dim] != -1:
        walk.cuts.append(Cut(node, "size", (axis.ids,), dim))
    return Axis(dim, axis.ids)


RULES: dict[str, "Callable[[Walk, fx.Node], Known]"] = {
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_SPATIAL.split(), spatial),
    **dict.fromkeys(_REDUCE.split(), reduce),
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenate),
    **dict.fromkeys(("chunk", "split", "tensor_split"), chunk),
    **dict.fromkeys(("view", "reshape"), view),
    **dict.fromkeys(("flatten", "squeeze", "unsqueeze"), flatten),
    **dict.fromkeys(("transpose", "swapaxes", "t"), transpose),
    "permute": permute,
    "unflatten": unflatten,
    "expand": expand,
    "softmax": softmax,
    "getitem": getitem,
}
