"""observe: mark, with observer nodes, every tensor that int8 will quantize.

1. The convolutions are quantized, those of the head and of attention included. A classifier's
   linear layer and the upsampling of mask prototypes become convolutions of one pixel first.
2. A tensor is marked if a convolution reads it, or an addition, concat, pooling, upsampling or
   split whose result is marked. Nothing marks the outputs of the head's last convolutions, the
   decoding, and the products and softmaxes of attention: they stay in float.
   Where the file ends before the decoding, its outputs are marked, each with a scale of its own.
   Where the target multiplies matrices of attention on integers, both factors are marked, too.
3. The tensors of a concat, a pooling, an upsampling or a split share one scale.
4. Where the target runs a convolution on integers only if its own result is quantized, the tensors
   between a convolution and its activation are marked too, unless the activation is fused; SiLU
   must be decomposed for that (`decompose-silu`). Where a convolution of few input channels is
   slower on integers, its input stays in float.
5. Where the target adds a residual inside the convolution, at full precision, if only the other
   summand is quantized, the convolution's side is left unmarked; that is one rounding less, too.

What a target wants, and the types of its activations, stand in `yqc/targets`. The policy is that of
Jacob et al., CVPR 2018, and of the runtimes' published rules.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import ClassVar

from torch import fx, nn

from yqc import Context, Pass, State, call, calls, shape
from yqc.errors import OptionError, PassError
from yqc.graph import head_nodes
from yqc.quant import Int8Weights, Observer, QuantizedLayer
from yqc.quantizing import (
    FUSED_ACTIVATIONS,
    WEIGHTED,
    ObserverPlacement,
    find_float_reason,
    find_only_activation,
    find_products,
    is_addition,
    is_packed,
    is_reshaped,
    passes_values_through,
    place_observers,
    write_as_convolutions,
)


@dataclass(frozen=True)
class Observe(Pass):
    """Mark the tensors to quantize."""

    name: ClassVar[str] = "observe"
    requires: ClassVar[frozenset[str]] = frozenset({State.BN_FOLDED, State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8})
    provides: ClassVar[frozenset[str]] = frozenset({State.OBSERVED})
    keeps_numbers: ClassVar[bool] = True

    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their paths, * as a wildcard; worst:3, the costliest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for word in self.skip:
            if word.startswith("worst:") and not word.removeprefix("worst:").isdecimal():
                raise OptionError(f"skip={word}: write worst:3 for the three that cost most")

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        write_as_convolutions(gm, ctx, self.skip)
        skip = self.paths(gm, ctx)
        convolutions = self.convolutions(gm, ctx, skip)
        wide = self.leave_narrow(convolutions, ctx)
        products = find_products(gm) if ctx.rules.integer_products else []
        placement = place_observers(gm, wide, products)
        if ctx.rules.fused_addition:
            placement.points = [n for n in placement.points if not is_fused_summand(gm, n)]
        if ctx.rules.integer_results:
            placement.points = self.with_results(gm, wide, placement.points, ctx)
        if ctx.decode != "full":
            placement.points = sorted({*placement.points, *head_nodes(gm)})
        repeated = {n for n in placement.points if repeats_values(gm, n, placement)}
        for point in placement.points:
            insert_observer(gm, point, placement, ctx, records=point not in repeated)
            ctx.rewrote(point, "observed")

    def leave_narrow(self, convolutions: list[fx.Node], ctx: Context) -> list[fx.Node]:
        """List the convolutions that the target runs faster on integers; record the others."""
        few, wide = ctx.rules.few_channels, []
        for conv in convolutions:
            if shape(conv.all_input_nodes[0])[1] > few:
                wide.append(conv)
            else:
                ctx.skipped(conv, f"at most {few} input channels run faster in float here")
        return wide

    def with_results(
        self, gm: fx.GraphModule, wide: list[fx.Node], points: list[fx.Node], ctx: Context
    ) -> list[fx.Node]:
        """Add the tensors between convolutions and their activations by rule 4."""
        marked, inner = set(points), list[fx.Node]()
        for conv in wide:
            activation = find_only_activation(gm, conv)
            if activation is None or activation.node not in marked:
                continue
            if call(gm, activation.node, FUSED_ACTIVATIONS) is not None:
                continue
            if call(gm, activation.node, nn.SiLU) is not None:
                ctx.skipped(
                    activation.node,
                    "onnxruntime has no integer kernel for SiLU; put decompose-silu before observe",
                )
            inner += [conv, *(user for user in conv.users if user is not activation.node)]
        return sorted({*marked, *inner})

    def paths(self, gm: fx.GraphModule, ctx: Context) -> tuple[str, ...]:
        """Replace `worst:3` by the paths of the layers that cost most when quantized alone."""
        found: list[str] = []
        for word in self.skip:
            count = word.removeprefix("worst:")
            if count == word:
                found.append(word)
            elif ctx.costliest is None:
                raise PassError(
                    f"skip={word} is ranked by a compile only; name paths of modules here"
                )
            else:
                found += ctx.costliest(gm, int(count))
        if found != list(self.skip):
            ctx.chose(replace(self, skip=tuple(found)))
        return tuple(found)

    def convolutions(
        self, gm: fx.GraphModule, ctx: Context, skip: tuple[str, ...]
    ) -> list[fx.Node]:
        """List the convolutions to quantize; record the other nodes that hold weights."""
        found = []
        for each in calls(gm, WEIGHTED):
            if why := find_float_reason(each, skip):
                ctx.skipped(each.node, why)
            else:
                Int8Weights().put(each.node)
                found.append(each.node)
        for node in filter(is_packed, gm.graph.nodes):  # the weight stays as it is packed
            layer = QuantizedLayer.on(node)
            if layer is not None and any(fnmatch(layer.name, pattern) for pattern in skip):
                ctx.skipped(node, "asked to skip it")
            else:
                found.append(node)
        return sorted(found)


def is_fused_summand(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a unit's result is only added to something: a convolution takes that in."""
    if len(node.users) != 1 or not is_addition(user := next(iter(node.users))):
        return False
    is_unit = not passes_values_through(gm, node) and call(gm, node, nn.Module) is not None
    return is_unit and node is user.all_input_nodes[-1]


def repeats_values(gm: fx.GraphModule, point: fx.Node, placement: ObserverPlacement) -> bool:
    """Return whether a tensor holds only values that others of its scale are measured on."""
    hands_on = passes_values_through(gm, point) or is_reshaped(point)
    group = placement.find(point)
    return hands_on and all(placement.find(n) is group for n in point.all_input_nodes)


def insert_observer(
    gm: fx.GraphModule,
    point: fx.Node,
    placement: ObserverPlacement,
    ctx: Context,
    *,
    records: bool,
) -> None:
    """Insert an observer behind `point`, for everything that reads it."""
    name = f"{point.name}_observer"
    observer = Observer(
        dtype=ctx.rules.activations,
        symmetric=ctx.rules.symmetric,
        group=placement.find(point).name,
        records=records,
        channels=shape(point)[1],
    )
    gm.add_submodule(name, observer)
    with gm.graph.inserting_after(point):
        node = gm.graph.create_node("call_module", name, (point,), name=name)
    node.meta |= {key: point.meta[key] for key in ("yqc.value", "yqc.role") if key in point.meta}
    point.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
