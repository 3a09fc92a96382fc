"""Emit an fx graph as an ONNX file.

`table`        the lowering table, by which every op and module finds its function
`emitter`      what lowerings read the graph and write ONNX nodes with
`build`        the walk over the graph
`tensors`      ONNX tensors, made and counted
`layers`, `activations`, `arithmetic`, `shapes`, `indexing`, `pools`, `reductions`, `resize`,
`norms`, `windows`, `quantization`, `packed`  the lowerings
`geometry`     sizes of windows and paddings
`sizes`        heights and widths that vary
`simplify`     onnxsim, and checks of its result
`halves`       weights, biases and scales in half
`kernels`      which convolutions run on integers
`foldable`     packed weights, and int8 ones of float convolutions, in a form that is folded at load
`stored`, `decoder`, `streams`  what is decoded, its nodes and tensors, the decoding of all layers
`rice_streams`  the same for codes of variable length
`loaded`       weights that a file holds unpacked, or that a runtime still decodes
`products`     1x1 convolutions with float results as products of integer matrices
`pixels`       upsampling of integers as copies of whole pixels
`wiring`       makers, readers and tensors of an ONNX graph, for these rewritings
`raw_heads`    outputs before the decoding, which is cut off
`metadata`     what YOLO runtimes read
`embedding`    suppression in the graph; bytes or halves in, halves out
`suppression`, `rotated`  suppression of boxes; of oriented ones
`save`         files written whole or not at all
`roundtrip`    the file under onnxruntime against the graph
`breakdown`    bytes by cause and by layer
`names`        the ONNX ops of every fx node
"""

from collections.abc import Mapping

import onnx
import torch
from torch import fx

from yqc.emit import (
    activations,
    arithmetic,
    indexing,
    layers,
    norms,
    packed,
    pools,
    quantization,
    reductions,
    resize,
    shapes,
    windows,
)
from yqc.emit.breakdown import layer_bytes, size_parts
from yqc.emit.build import HIGHEST_OPSET, LOWEST_OPSET, build_model, check_writable
from yqc.emit.emitter import Constant, Emitter
from yqc.emit.foldable import halve_scales, write_foldable
from yqc.emit.halves import write_halves
from yqc.emit.metadata import yolo_metadata
from yqc.emit.pixels import write_pixels
from yqc.emit.products import write_products
from yqc.emit.raw_heads import CutForm, cut_decode, refuse_cut
from yqc.emit.roundtrip import Deviation, RoundTrip, compare_runs, roundtrip
from yqc.emit.save import save, write_file
from yqc.emit.simplify import check_model, drop_unused, simplify
from yqc.emit.stored import StoredValues
from yqc.emit.table import TABLE, lowering
from yqc.emit.tensors import weight_bytes
from yqc.emit.wiring import shorten_values
from yqc.graph import is_function
from yqc.graph.half import stores_half
from yqc.targets import find_target

__all__ = [
    "HIGHEST_OPSET",
    "LOWEST_OPSET",
    "TABLE",
    "Constant",
    "CutForm",
    "Deviation",
    "Emitter",
    "RoundTrip",
    "check_writable",
    "compare_runs",
    "cut_decode",
    "emit",
    "layer_bytes",
    "lowering",
    "refuse_cut",
    "roundtrip",
    "save",
    "size_parts",
    "weight_bytes",
    "write_file",
    "yolo_metadata",
]

# Imported for what they put into the table.
LOWERINGS = (
    *(activations, arithmetic, indexing, layers, norms, packed),
    *(pools, quantization, reductions, resize, shapes, windows),
)


PACKED_OPSETS = {"seed": 18, "cast": 21}
"""The opset that each form of packed weights needs, where nodes of the file decode it; others
have types of four bits, of opset 21."""


def holds_rice(gm: fx.GraphModule) -> bool:
    """Return whether a graph has weights in codes of variable length."""
    return any(is_function(node, torch.ops.yqc.unpack_rice) for node in gm.graph.nodes)


def emit(
    gm: fx.GraphModule,
    *,
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
    dynamic: bool = False,
    other: fx.GraphModule | None = None,
    target: str = "onnxruntime",
) -> onnx.ModelProto:
    """Turn a graph into a checked ONNX model; the same graph always gives the same bytes.

    Inputs keep the names of the graph's placeholders (`images` for a detector), outputs are
    `output0`, `output1`, ... ONNX nodes and values are called after the fx nodes, initialisers
    after the parameters.

    Args:
        gm: every node has `meta["yqc.value"]`, as `trace` leaves it.
        metadata: becomes `metadata_props`; see `yolo_metadata`.
        opset: 13 to 23; by default 17, 18 where the file decodes weights, 21 for four-bit types.
        dynamic: let the first dimension of inputs and outputs vary, under the name `batch`.
        other: the graph at another height and width, from `yqc.graph.resizing`: what differs then
            varies in the file, the sides of the input under the names `height` and `width`.
        target: whose forms of weights are written.

    Raises:
        LoweringError: a node has no ONNX form; the message shows how to add one.
        EmitError: the opset is unknown or too low, or the model does not pass a check.
    """
    rules = find_target(target)
    form = "seed" if holds_rice(gm) else rules.weights
    packed = PACKED_OPSETS.get(form)
    stored = None if packed is None else StoredValues(opset=packed)
    model = simplify(build_model(gm, opset=opset, dynamic=dynamic, stored=stored, other=other))
    if stored is None:
        halve_scales(model)
    else:
        write_foldable(model, stored, rules)
    if rules.products:
        write_products(model, stored.shapes() if stored else {})
        drop_unused(model)
    if rules.copied_pixels:
        write_pixels(model, rules)
        drop_unused(model)
    if stores_half(gm):
        write_halves(model)
    if holds_rice(gm):
        shorten_values(model.graph)
    check_model(model)
    onnx.helper.set_model_props(model, dict(metadata or {}))
    return model
