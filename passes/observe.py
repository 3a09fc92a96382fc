"""observe: mark, with observer nodes, every tensor that int8 will quantize.

1. The convolutions are quantized, those of the head and of attention included.
2. A tensor is marked if a convolution reads it, or an addition, concat, pooling, upsampling or
   split whose result is marked. Nothing marks the outputs of the head's last convolutions, the
   decoding, and the products and softmaxes of attention: they stay in float.
3. What meets in a concat, or passes a pooling, an upsampling or a split, shares one scale.
4. onnxruntime runs a convolution on integers only if its own result is quantized, so for
   `--target ort` the tensor between a convolution and its activation is marked too.
5. TensorRT wants int8 with zero point 0 everywhere, and adds a residual inside the convolution
   if only the other summand is quantized, so there the convolution's side is left unmarked.

The policy is that of Jacob et al., CVPR 2018, and of the runtimes' published rules.
"""

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import ClassVar

from torch import fx, nn

from yqc import Context, Pass, call, calls, role, shape
from yqc.quant import Int8, Observer, Placement, before_activations, hands_on, is_addition, place


@dataclass(frozen=True)
class Observe(Pass):
    """Mark the tensors to quantize."""

    name: ClassVar[str] = "observe"
    requires: ClassVar[frozenset[str]] = frozenset({"bn-folded"})
    provides: ClassVar[frozenset[str]] = frozenset({"observed"})
    keeps_numbers: ClassVar[bool] = True

    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        convolutions = self.convolutions(gm, ctx)
        placement = place(gm, convolutions)
        if ctx.target == "ort":
            extra = [n for n in before_activations(gm, convolutions) if self.feeds(n, placement)]
            placement.points = sorted({*placement.points, *extra})
        if ctx.target == "tensorrt":
            placement.points = [n for n in placement.points if not is_fused_summand(gm, n)]
        for point in placement.points:
            insert(gm, point, placement, ctx)
            ctx.rewrote(point, "observed")

    def convolutions(self, gm: fx.GraphModule, ctx: Context) -> list[fx.Node]:
        """List the convolutions to quantize; record the others that hold weights."""
        found = []
        for each in calls(gm, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            if not isinstance(each.module, nn.Conv2d):
                ctx.skipped(each.node, f"{type(each.module).__name__} stays in float")
            elif any(fnmatch(each.target, pattern) for pattern in self.skip):
                ctx.skipped(each.node, "asked to skip it")
            elif role(each.node) == "head.decode":
                ctx.skipped(each.node, "the decoding stays in float")
            elif each.module.padding_mode != "zeros":
                ctx.skipped(each.node, f"it pads with {each.module.padding_mode}")
            else:
                each.node.meta["yqc.int8"] = Int8()
                found.append(each.node)
        return found

    @staticmethod
    def feeds(conv: fx.Node, placement: Placement) -> bool:
        """Tell whether the activation behind a convolution is quantized itself."""
        return next(iter(conv.users)) in placement.points


def is_fused_summand(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a unit's result is only added to something: a convolution takes that in."""
    if len(node.users) != 1 or not is_addition(user := next(iter(node.users))):
        return False
    second = user.all_input_nodes[-1]
    return node is second and not hands_on(gm, node) and call(gm, node, nn.Module) is not None


def insert(gm: fx.GraphModule, point: fx.Node, placement: Placement, ctx: Context) -> None:
    """Put an observer behind `point`, for everything that reads it."""
    name = f"{point.name}_observer"
    symmetric = ctx.target == "tensorrt"
    observer = Observer(
        dtype="int8" if symmetric else "uint8",
        symmetric=symmetric,
        group=placement.find(point).name,
        records=not hands_on(gm, point),
        channels=shape(point)[1],
    )
    gm.add_submodule(name, observer)
    with gm.graph.inserting_after(point):
        node = gm.graph.create_node("call_module", name, (point,), name=name)
    node.meta |= {key: point.meta[key] for key in ("yqc.value", "yqc.role") if key in point.meta}
    point.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
