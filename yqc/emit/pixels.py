"""Write upsampling of integers as copies of whole pixels, with the channels last.

onnxruntime's integer convolutions have the channels last. There its Resize and its DepthToSpace
move every value on its own; a Tile or Transpose that leaves the last dimension as it is copies the
channels of a pixel together, and the transposes to and from channels last vanish:

    DequantizeLinear(x), Resize, nearest, by whole factors a, b, QuantizeLinear
        ->  Transpose(x)   [N,H,W,C]   Reshape  [N,H,1,W,1,C]   Tile  [N,H,a,W,b,C]
            Reshape  [N,aH,bW,C]       Transpose
    Conv [N,C*k*k,H,W], QuantizeLinear, DequantizeLinear, DepthToSpace by k, QuantizeLinear
        ->  Conv [N,k*k*C,H,W], QuantizeLinear
            Transpose      [N,H,W,kkC]   Reshape  [N,H,W,k,kC]   Transpose  [N,H,k,W,kC]
            Reshape  [N,kH,kW,C]         Transpose

Scale and zero point before and behind are the same ones, so the integers are moved as they are.

Measured with onnxruntime 1.32, one thread, VNNI, yolov8n-seg at 160 px, of 6.3 ms in all: Resize
0.23 ms -> Tile 0.04, DepthToSpace 0.37 -> Transpose 0.02.
"""

import numpy as np
import onnx
from onnx import NodeProto, helper

from yqc.emit.kernels import DEQUANTIZE
from yqc.emit.wiring import Wiring
from yqc.targets import Target

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Permutations of [N,C,H,W] to channels last, and back."""
RANK = 6
"""Dimensions that the forms written here need."""


def write_pixels(model: onnx.ModelProto, rules: Target) -> None:
    """Write upsampling between integers as copies of pixels, in place; sizes must be fixed.

    Nothing is done where the device lacks what it takes.
    """
    known = all(rules.runs(name) for name in ("Transpose", "Reshape", "Tile"))
    if not known or (rules.limits.rank or RANK) < RANK:
        return
    w = Wiring(model.graph)
    moved = {
        node.output[0]: (node, quantized)
        for node in model.graph.node
        if node.op_type in {"Resize", "DepthToSpace"} and (quantized := _find_quantized(node, w))
    }
    if not moved:
        return
    shapes = _find_shapes(model)
    written: dict[str, list[NodeProto]] = {}
    for name, (node, quantized) in moved.items():
        size = shapes.get(node.input[0], (0,))
        if 0 in size[1:] or len(size) != 4:  # noqa: PLR2004  # [N,C,H,W]
            continue
        integers = w.made[node.input[0]].input[0]
        forms = _tile if node.op_type == "Resize" else _interleave
        if nodes := forms(node, integers, w, size[1:]):
            back = helper.make_node(
                "Transpose", [nodes[-1].output[0]], [quantized], name=node.name, perm=FIRST
            )
            written |= {name: [*nodes, back], quantized: []}
    w.replace(written)


def _find_quantized(node: NodeProto, w: Wiring) -> str | None:
    """Return the integers that a node's result becomes; None if they are not those it reads."""
    made, reader = w.made.get(node.input[0]), w.only_reader(node.output[0])
    if made is None or reader is None or made.op_type != DEQUANTIZE:
        return None
    alike = reader.op_type == "QuantizeLinear" and reader.input[1:] == made.input[1:]
    return reader.output[0] if alike else None


def _find_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Infer the shapes of all values; a dimension that varies is 0."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info]
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}


def _tile(node: NodeProto, x: str, w: Wiring, size: tuple[int, ...]) -> list[NodeProto]:
    """Return what a Resize of x, [N,C,H,W], becomes, channels last; nothing if it mixes pixels."""
    of = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    scales = node.input[2] if len(node.input) == 3 else ""  # noqa: PLR2004  # x, roi, scales
    if of.get("mode") != b"nearest" or scales not in w.held:
        return []
    floor = (of.get("coordinate_transformation_mode"), of.get("nearest_mode"))
    factors = w.array(scales)
    whole = len(factors) == 4 and (factors == factors.round()).all()  # noqa: PLR2004
    if floor != (b"asymmetric", b"floor") or not whole or (factors[:2] != 1).any():
        return []
    (channels, height, width), (a, b) = size, factors[2:].astype(int).tolist()
    name = node.name
    return [
        _transpose(x, f"{name}.last", LAST),
        _reshape(f"{name}.last", f"{name}.apart", (0, height, 1, width, 1, channels), w),
        helper.make_node(
            "Tile", [f"{name}.apart", _held((1, 1, a, 1, b, 1), w)], [f"{name}.tile"],
            name=f"{name}.tile",
        ),
        _reshape(f"{name}.tile", f"{name}.whole", (0, a * height, b * width, channels), w),
    ]  # fmt: skip


def _interleave(node: NodeProto, x: str, w: Wiring, size: tuple[int, ...]) -> list[NodeProto]:
    """Return what a DepthToSpace of x, [N,C*k*k,H,W], becomes, channels last, or nothing.

    The convolution before it gets its channels in another order.
    """
    of = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    k, (channels, height, width) = of["blocksize"], size
    if of.get("mode") == b"CRD" and not _reorder(node.input[0], channels // (k * k), w):
        return []
    name = node.name
    wide, narrow = (0, height, width, k, channels // k), (0, k * height, k * width)
    return [
        _transpose(x, f"{name}.last", LAST),
        _reshape(f"{name}.last", f"{name}.rows", wide, w),
        _transpose(f"{name}.rows", f"{name}.turned", (0, 1, 3, 2, 4)),
        _reshape(f"{name}.turned", f"{name}.whole", (*narrow, channels // (k * k)), w),
    ]


def _reorder(value: str, channels: int, w: Wiring) -> bool:
    """Put the k*k blocks of channels of the convolution behind a value first; whether it could.

    The order becomes (k*k, C) in place of (C, k*k): its weight, scales and bias are held by the
    file, with nothing else that reads them or the values up to DepthToSpace.
    """
    chain = [w.made[value]]
    while chain[-1].op_type in {DEQUANTIZE, "QuantizeLinear"} and chain[-1].input[0] in w.made:
        chain.append(w.made[chain[-1].input[0]])
    conv = chain[-1]
    if conv.op_type != "Conv" or any(len(w.readers[n.output[0]]) != 1 for n in chain):
        return False
    if any(n.input[1] in w.held and len(w.held[n.input[1]].dims) for n in chain[:-1]):
        return False
    weight = w.made.get(conv.input[1])
    if weight is not None and (weight.op_type != DEQUANTIZE or not w.only_reader(conv.input[1])):
        return False
    held = [*(weight.input if weight is not None else conv.input[1:2]), *conv.input[2:]]
    if any(name not in w.held for name in held):
        return False
    rows = [name for name in held if w.held[name].dims]
    if any(len(w.readers[name]) != 1 or w.held[name].dims[0] % channels for name in rows):
        return False
    for name in rows:
        values = w.array(name)
        blocks = values.reshape(channels, -1, *values.shape[1:]).swapaxes(0, 1)
        w.hold(name, blocks.reshape(values.shape))
    return True


def _transpose(value: str, name: str, perm: tuple[int, ...]) -> NodeProto:
    return helper.make_node("Transpose", [value], [name], name=name, perm=perm)


def _reshape(value: str, name: str, shape: tuple[int, ...], w: Wiring) -> NodeProto:
    return helper.make_node("Reshape", [value, _held(shape, w)], [name], name=name)


def _held(numbers: tuple[int, ...], w: Wiring) -> str:
    """Hold a shape and return its name."""
    name = f"int64s.{'_'.join(map(str, numbers))}"
    return w.hold(name, np.array(numbers, dtype=np.int64))
