"""What functions, methods and simple modules do with channels, by name.

A rule gets the state of the walk and a node, and returns the channels of what the node computes.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
from torch import fx, nn

from yqc.graph.channels.sets import Axis, Cut
from yqc.graph.text import operation
from yqc.graph.values import KEY, TensorSpec

NodeChannels: TypeAlias = Axis | tuple[Any, ...] | None
"""The channels of what a node computes: of one tensor, of each of several, or not known."""


class WalkState(Protocol):
    """What the walk through a graph has found so far; see `yqc.graph.channels.walk`."""

    gm: fx.GraphModule
    known: dict[fx.Node, NodeChannels]
    cuts: list[Cut]

    def axis(self, value: object) -> Axis | None:
        """Return the known channels of an argument, or None."""

    def pin_inputs(self, node: fx.Node, why: str) -> Axis | None:
        """Pin all channels that reach a node, and return None."""

    def unknown(self, node: fx.Node) -> Axis | None:
        """Pin the channels that reach an operation that mixes channels, or has no rule."""

    def elementwise(self, node: fx.Node) -> Axis | None:
        """Unify the channels of the inputs of an elementwise operation."""

    def join(self, node: fx.Node, parts: Sequence[fx.Node], dim: int) -> Axis | None:
        """Follow channels through a concatenation along `dim`."""

    def parts(self, node: fx.Node, dim: int) -> NodeChannels:
        """Follow channels through chunk or split along `dim`."""


SPATIAL = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d),
    *(nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.LPPool1d, nn.LPPool2d, nn.CircularPad2d),
    *(nn.Upsample, nn.UpsamplingBilinear2d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ZeroPad2d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
)
"""Modules that work on the last axes and leave the others alone."""

ELEMENTWISE = (
    *(nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh),
    *(nn.Softplus, nn.Softsign, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU, nn.Hardshrink, nn.Softshrink),
    *(nn.Tanhshrink, nn.Threshold),
)

_ELEMENTWISE = (
    "add iadd sub isub rsub mul imul div truediv itruediv floordiv mod remainder pow neg abs "
    "exp log sqrt rsqrt square reciprocal sigmoid tanh relu relu6 silu leaky_relu hardswish "
    "hardsigmoid hardtanh mish gelu elu celu selu softplus clamp clamp_min clamp_max clip "
    "minimum maximum where lerp floor ceil round sign sin cos erf gt lt ge le eq ne expand_as "
    "hardshrink softshrink tanhshrink softsign threshold rrelu logsigmoid "
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


def sizes_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of what a node computes; `()` where it is no single tensor."""
    value = node.meta.get(KEY)
    return value.shape if isinstance(value, TensorSpec) else ()


def get_argument(node: fx.Node, place: int, *names: str, default: Any = None) -> Any:  # noqa: ANN401
    """Return an argument by place or name."""
    if len(node.args) > place:
        return node.args[place]
    return next((node.kwargs[n] for n in names if n in node.kwargs), default)


def follow_spatial(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Pass channels through pools, upsampling and padding, which change only the axes behind."""
    axis = walk.axis(node.args[0]) if node.args else None
    sizes = sizes_of(node)
    if axis is None or len(node.all_input_nodes) != 1 or len(sizes) <= axis.dim + 1:
        return walk.unknown(node)
    if axis.dim > 1 or sizes[axis.dim] != len(axis.ids):
        return walk.unknown(node)
    return axis


def follow_concatenate(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Follow channels through a concatenation."""
    parts = get_argument(node, 0, "tensors")
    dim = get_argument(node, 1, "dim", "axis", default=0)
    if not isinstance(parts, Sequence) or not isinstance(dim, int):
        return walk.unknown(node)
    return walk.join(node, [p for p in parts if isinstance(p, fx.Node)], dim % len(sizes_of(node)))


def follow_chunk(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Follow channels through a cut into parts of equal or given sizes."""
    dim = get_argument(node, 2, "dim", default=0)
    source = node.args[0]
    if not isinstance(dim, int) or not isinstance(source, fx.Node) or not sizes_of(source):
        return walk.unknown(node)
    return walk.parts(node, dim % len(sizes_of(source)))


def follow_getitem(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Follow channels through the choice of one of several results, or a slice."""
    source, index = node.args
    known = walk.known[source] if isinstance(source, fx.Node) else None
    if isinstance(known, tuple):
        return known[index] if isinstance(index, int) else walk.unknown(node)
    if not isinstance(known, Axis) or not isinstance(source, fx.Node):
        return walk.unknown(node)
    return follow_index(walk, node, known, index if isinstance(index, tuple) else (index,))


def follow_index(
    walk: WalkState, node: fx.Node, axis: Axis, index: tuple[object, ...]
) -> NodeChannels:
    """Follow channels through an index of slices, integers, None and `...`."""
    source = node.all_input_nodes[0]
    rank = len(sizes_of(source))
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


def follow_reduce(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Pass channels through a mean, sum and the like over other axes."""
    axis, source = walk.axis(node.args[0]), node.all_input_nodes[0]
    dims = get_argument(node, 1, "dim", "axis")
    rank = len(sizes_of(source))
    if isinstance(dims, int):
        dims = (dims,)
    if axis is None or not isinstance(dims, Sequence) or not dims or not sizes_of(node):
        return walk.unknown(node)
    gone = {d % rank for d in dims}
    if axis.dim in gone:
        return walk.unknown(node)
    kept = len(sizes_of(node)) == rank
    return Axis(axis.dim if kept else axis.dim - sum(d < axis.dim for d in gone), axis.ids)


def follow_softmax(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Pass channels through a softmax over another axis."""
    axis, dim = walk.axis(node.args[0]), get_argument(node, 1, "dim")
    rank = len(sizes_of(node))
    return axis if axis and isinstance(dim, int) and dim % rank != axis.dim else walk.unknown(node)


def follow_permute(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Follow the channels' axis through a permutation."""
    axis, rank = walk.axis(node.args[0]), len(sizes_of(node))
    order = node.args[1:] if len(node.args) > 2 else get_argument(node, 1, "dims")  # noqa: PLR2004
    order = (order,) if isinstance(order, int) else order
    if axis is None or not isinstance(order, Sequence):
        return walk.unknown(node)
    places = [o % rank for o in order if isinstance(o, int)]
    return Axis(places.index(axis.dim), axis.ids)


def follow_transpose(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Follow the channels' axis through a swap of two axes."""
    axis, rank = walk.axis(node.args[0]), len(sizes_of(node))
    a, b = get_argument(node, 1, "dim0"), get_argument(node, 2, "dim1")
    if name_of(node) == "t":
        a, b = 0, 1
    if axis is None or not isinstance(a, int) or not isinstance(b, int):
        return walk.unknown(node)
    a, b = a % rank, b % rank
    return Axis({a: b, b: a}.get(axis.dim, axis.dim), axis.ids)


def follow_reshape(walk: WalkState, node: fx.Node, sizes_at: int | None) -> NodeChannels:
    """Follow a reshape: the channels' axis must stay one, or be flattened with axes behind it.

    `sizes_at` is the place in the arguments where the first axis's size stands; None where the
    arguments name no sizes.
    """
    axis = walk.axis(node.args[0]) if node.args else None
    before, after = sizes_of(node.all_input_nodes[0]), sizes_of(node)
    if axis is None or len(axis.ids) == 1:
        return walk.unknown(node)
    ahead = math.prod(before[: axis.dim])
    ends = [d for d in range(len(after)) if math.prod(after[:d]) == ahead and after[d] > 1]
    if len(ends) != 1 or after[ends[0]] % len(axis.ids):
        return pin_reshape(walk, node)
    dim, copies = ends[0], after[ends[0]] // len(axis.ids)
    behind = [math.prod(before[axis.dim + 1 : d]) for d in range(axis.dim + 1, len(before) + 1)]
    if copies not in {1, *behind}:
        return pin_reshape(walk, node)
    ids = np.repeat(axis.ids, copies)
    if sizes_at is not None:
        sizes = _sizes(node, sizes_at)
        place = dim + len(sizes) - len(after)
        if place >= 0 and sizes[place] != -1:
            if not isinstance(sizes[place], int):
                return pin_reshape(walk, node)
            walk.cuts.append(Cut(node, "size", (ids,), place))
    return Axis(dim, ids)


def _sizes(node: fx.Node, at: int) -> Sequence[object]:
    """List the sizes that a reshape is given, as one argument or several."""
    given = get_argument(node, at, "shape", "size", "sizes")
    return given if isinstance(given, Sequence) else node.args[at:]


def pin_reshape(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Pin channels whose axis a reshape splits or mixes."""
    return walk.pin_inputs(node, f"{operation(walk.gm, node)} at {node} lays the channels out anew")


def follow_unflatten(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Follow unflatten, which may split any axis but the channels'."""
    axis, dim = walk.axis(node.args[0]), get_argument(node, 1, "dim")
    rank = len(sizes_of(node.all_input_nodes[0]))
    if axis is None or not isinstance(dim, int) or dim % rank == axis.dim:
        return pin_reshape(walk, node)
    return follow_reshape(walk, node, None)


def follow_expand(walk: WalkState, node: fx.Node) -> NodeChannels:
    """Follow expand, which may grow any axis but the channels'."""
    axis, after = walk.axis(node.args[0]), sizes_of(node)
    if axis is None:
        return walk.unknown(node)
    dim = axis.dim + len(after) - len(sizes_of(node.all_input_nodes[0]))
    if after[dim] != len(axis.ids):
        return walk.unknown(node)
    if _sizes(node, 1)[dim] != -1:
        walk.cuts.append(Cut(node, "size", (axis.ids,), dim))
    return Axis(dim, axis.ids)


RULES: dict[str, Callable[[WalkState, fx.Node], NodeChannels]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), lambda walk, node: walk.elementwise(node)),
    **dict.fromkeys(_SPATIAL.split(), follow_spatial),
    **dict.fromkeys(_REDUCE.split(), follow_reduce),
    **dict.fromkeys(("cat", "concat", "concatenate"), follow_concatenate),
    **dict.fromkeys(("chunk", "split", "tensor_split"), follow_chunk),
    **dict.fromkeys(("view", "reshape"), partial(follow_reshape, sizes_at=1)),
    **dict.fromkeys(("flatten", "squeeze", "unsqueeze"), partial(follow_reshape, sizes_at=None)),
    **dict.fromkeys(("transpose", "swapaxes", "t"), follow_transpose),
    "permute": follow_permute,
    "unflatten": follow_unflatten,
    "expand": follow_expand,
    "softmax": follow_softmax,
    "getitem": follow_getitem,
}
