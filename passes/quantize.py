"""quantize: replace observers by quantize-dequantize, and weights by integers.

    %x_observer = Observer(%x)    ->  %x_q  = yqc.quantize_linear(%x, scale, zero_point)
                                      %x_dq = yqc.dequantize_linear(%x_q, scale, zero_point)
    %conv = Conv2d(%x_observer)   ->  %w = yqc.dequantize_linear(int8 [O,I,h,w], scale [O])
                                      %conv = conv2d(%x_dq, %w, bias, ...)

1. Weights are symmetric int8, one scale an output channel, and have no zero point.
2. Biases stay in float32: a runtime that wants int32 computes them from the scales.
3. Scales and zero points of one group are stored once.
   The ones of a transposed convolution that repeats pixels of integers are int8, with one scale.
4. Where the target needs no second rounding to a scale that is there already, behind a split,
   concat, pooling or nearest upsampling, observers leave nothing.
5. The mark `QuantizedLayer` of each convolution gets the signal-to-quantization-noise ratio of its
   output on the example input, against the graph before this pass.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import Call, Context, Pass, State, callers, calls, is_function
from yqc.graph import bypass, node_outputs, sqnr_db
from yqc.quant import Int8Weights, Observer, QuantizedLayer, quantize_weight
from yqc.quantizing import (
    call_conv2d,
    hold_tensors,
    is_packed,
    keeps_values,
    move_bias,
    repeats_pixels,
)

QUANTIZE = torch.ops.yqc.quantize_linear
DEQUANTIZE = torch.ops.yqc.dequantize_linear


@dataclass(frozen=True)
class Quantize(Pass):
    """Replace observers by quantize-dequantize, and weights by integers."""

    name: ClassVar[str] = "quantize"
    requires: ClassVar[frozenset[str]] = frozenset({State.CALIBRATED, State.FLOAT32})
    provides: ClassVar[frozenset[str]] = frozenset({State.INT8})
    removes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.CALIBRATED})

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        names = [c.node.name for c in calls(gm, nn.Conv2d) if Int8Weights.on(c.node) is not None]
        before = node_outputs(gm, names, ctx.example_for(gm))
        for observer in calls(gm, Observer):
            if not ctx.rules.repeated_scales and repeats_scale(gm, observer):
                ctx.rewrote(bypass(gm, observer.node), "has its scale already")
                continue
            replace_observer(gm, observer)
            ctx.rewrote(observer.node, "became quantize-dequantize")
        for conv in calls(gm, nn.Conv2d):
            if (chosen := Int8Weights.on(conv.node)) is None or chosen.scale is None:
                continue
            if callers(gm, conv.target) > 1:
                ctx.skipped(conv.node, f"{conv.target} is called from more than one place")
                continue
            replace_convolution(gm, conv, chosen, chosen.scale)
            ctx.rewrote(conv.node, "weights became int8")
        for node in filter(is_packed, gm.graph.nodes):
            if scales_of(gm, node.all_input_nodes[0]):
                update_packed(gm, node)
                ctx.rewrote(node, "input became int8; the weight stays as it is packed")
        replace_upsampling(gm, ctx)
        gm.recompile()
        after = node_outputs(gm, names, ctx.example_for(gm))
        for node in gm.graph.nodes:
            if (layer := QuantizedLayer.on(node)) is not None and node.name in after:
                ratio = sqnr_db([before[node.name]], [after[node.name]])
                replace(layer, sqnr_db=ratio).put(node)


def update_packed(gm: fx.GraphModule, node: fx.Node) -> None:
    """Record that a packed convolution reads int8, and correct its bias if an error is known."""
    if (layer := QuantizedLayer.on(node)) is not None:
        replace(layer, activation_bits=8).put(node)
    if (chosen := Int8Weights.drop(node)) is not None and chosen.mean_error is not None:
        move_bias(gm, node, -chosen.mean_error)


def repeats_scale(gm: fx.GraphModule, observer: Call[Observer]) -> bool:
    """Return whether a tensor holds values that are rounded to this observer's scale already.

    It is made by an operation that passes values through as they are, of tensors of one group.
    """
    source = observer.node.all_input_nodes[0]
    if not keeps_values(gm, source):
        return False
    scale = f"{observer.module.group}_group_scale"
    return all(scale in scales_of(gm, node) for node in source.all_input_nodes)


def scales_of(gm: fx.GraphModule, node: fx.Node) -> set[str]:
    """Return the names of the scales to which a tensor's values are rounded."""
    if is_function(node, DEQUANTIZE):
        return {str(node.all_input_nodes[1].target)}
    if not keeps_values(gm, node):
        return set()
    return set.intersection(*(scales_of(gm, source) for source in node.all_input_nodes))


def replace_observer(gm: fx.GraphModule, observer: Call[Observer]) -> None:
    """Replace an observer by quantize and dequantize."""
    node, module = observer.node, observer.module
    base = f"{module.group}_group"
    scale = keep_buffer(gm, f"{base}_scale", module.scale)
    zero = keep_buffer(gm, f"{base}_zero", module.zero_point)
    source, stem = node.all_input_nodes[0], node.name.removesuffix("_observer")
    with gm.graph.inserting_before(node):
        at = [gm.graph.create_node("get_attr", path, name=path) for path in (scale, zero)]
        q = gm.graph.create_node("call_function", QUANTIZE, (source, *at), name=f"{stem}_q")
        dq = gm.graph.create_node("call_function", DEQUANTIZE, (q, *at), name=f"{stem}_dq")
    for new in (*at, q, dq):
        new.meta["yqc.role"] = node.meta["yqc.role"]
    node.replace_all_uses_with(dq)
    gm.graph.erase_node(node)


def replace_convolution(
    gm: fx.GraphModule, conv: Call[nn.Conv2d], chosen: Int8Weights, scale: Tensor
) -> None:
    """Turn a convolution's module call into a function of an integer weight, in place."""
    module, node = conv.module, conv.node
    tensors = {
        "weight_q": quantize_weight(module.weight, scale, chosen.most),
        "weight_scale": scale,
    }
    bias = module.bias
    if chosen.mean_error is not None:
        bias = -chosen.mean_error if bias is None else bias - chosen.mean_error
    if bias is not None:
        tensors["bias"] = bias
    at = hold_tensors(gm, conv, tensors, parameters=("weight_q", "bias"))
    with gm.graph.inserting_before(node):
        weights = (at["weight_q"], at["weight_scale"], None, 0)
        w = gm.graph.create_node("call_function", DEQUANTIZE, weights, name=f"{node.name}_weight")
    call_conv2d(conv, w, at.get("bias"))
    Int8Weights.drop(node)
    QuantizedLayer(
        name=conv.target,
        op="Conv2d",
        shape=tuple(module.weight.shape),
        weight_bits=8,
        activation_bits=8 if scales_of(gm, node.all_input_nodes[0]) else 32,
        scheme="symmetric",
        granularity="channel",
        rounding="nearest",
        weight_bytes=sum(t.numel() * t.element_size() for t in tensors.values()),
    ).put(node)


def replace_upsampling(gm: fx.GraphModule, ctx: Context) -> None:
    """Store as int8 the ones of transposed convolutions that repeat pixels of integers."""
    for conv in calls(gm, nn.ConvTranspose2d):
        module, node = conv.module, conv.node
        source = node.all_input_nodes[0]
        if not repeats_pixels(gm, node) or not scales_of(gm, source):
            continue
        ones = {"weight_q": module.weight.to(torch.int8), "weight_scale": torch.ones(())}
        at = hold_tensors(gm, conv, ones, parameters=("weight_q",))
        with gm.graph.inserting_before(node):
            inputs = (at["weight_q"], at["weight_scale"])
            w = gm.graph.create_node(
                "call_function", DEQUANTIZE, inputs, name=f"{node.name}_weight"
            )
        for new in (w, *inputs):
            new.meta["yqc.role"] = node.meta["yqc.role"]
        settings = (module.stride, module.padding, module.output_padding, module.groups)
        node.op, node.target, node.kwargs = "call_function", F.conv_transpose2d, {}
        node.args = (source, w, None, *settings)
        ctx.rewrote(node, "weights became int8")


def keep_buffer(gm: fx.GraphModule, name: str, tensor: Tensor) -> str:
    """Register a buffer, unless one of that name is there; return its name."""
    if name not in dict(gm.named_buffers(recurse=False)):
        gm.register_buffer(name, tensor.detach().clone())
    return name
