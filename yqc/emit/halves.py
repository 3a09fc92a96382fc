"""Store float32 tensors beside integers in half, in a form that runtimes fold when they load.

All of them stand in one tensor, behind a Gather whose index comes out of QuantizeLinear:

    0 -> QuantizeLinear -> Cast(int64) -> Gather(halves [1, n]) -> Cast(float) -> Split -> Reshape

onnxsim 0.8.1 and onnxslim 0.1.98 leave QuantizeLinear alone and with it all that depends on it;
a plain Cast they fold to float32. onnxruntime 1.32 and OpenVINO 2026.4 fold it when they load the
file: yolov8n's int8 file keeps its 56 integer convolutions, and its speed.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from yqc.emit.breakdown import layer_tensors

FEWEST = 32
"""Values of a tensor from which on it is stored in half. It saves two bytes a value and takes about
40 for a name and a size; at half of that nothing is saved, double leaves out layers that save some.
"""
HALVES = "halves"


def write_halves(model: onnx.ModelProto) -> None:
    """Store weights, biases and scales that half keeps exactly in half, in place."""
    graph = model.graph
    wanted = {tensor.name for tensor in layer_tensors(model)}
    chosen = [t for t in graph.initializer if t.name in wanted and _is_exact(t)]
    if not chosen:
        return
    nodes, tensors = _decoder([(t.name, numpy_helper.to_array(t)) for t in chosen])
    names = {tensor.name for tensor in chosen}
    kept = [t for t in graph.initializer if t.name not in names]
    nodes += graph.node
    for items, new in ((graph.initializer, [*kept, *tensors]), (graph.node, nodes)):
        copies = [type(item).FromString(item.SerializeToString()) for item in new]
        del items[:]
        items.extend(copies)


def _is_exact(tensor: TensorProto) -> bool:
    """Return whether a tensor is float32, large enough, and unchanged in half."""
    if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < FEWEST:
        return False
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16) == values).all())


def _decoder(
    values: list[tuple[str, NDArray[np.float32]]],
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes and tensors that make float32 values of their halves."""
    flat = np.concatenate([value.ravel() for _, value in values]).astype(np.float16)
    sizes = np.array([value.size for _, value in values], np.int64)
    constants = {
        HALVES: flat[None],
        f"{HALVES}.sizes": sizes,
        f"{HALVES}.0": np.float32(0),
        f"{HALVES}.1": np.float32(1),
    }
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    seed, index, stored, floats = (f"{HALVES}.{word}" for word in ("seed", "index", "all", "float"))
    nodes = [
        helper.make_node("QuantizeLinear", [f"{HALVES}.0", f"{HALVES}.1"], [seed], seed),
        helper.make_node("Cast", [seed], [index], index, to=TensorProto.INT64),
        helper.make_node("Gather", [HALVES, index], [stored], stored, axis=0),
        helper.make_node("Cast", [stored], [floats], floats, to=TensorProto.FLOAT),
    ]
    parts = []
    for name, value in values:
        parts.append(name if value.ndim == 1 else f"{name}.flat")
        if value.ndim != 1:
            shape = f"{name}.shape"
            tensors.append(numpy_helper.from_array(np.array(value.shape, np.int64), shape))
            nodes.append(helper.make_node("Reshape", [parts[-1], shape], [name], name))
    cut = [f"{HALVES}.float", f"{HALVES}.sizes"]
    nodes.insert(4, helper.make_node("Split", cut, parts, f"{HALVES}.split", axis=0))
    return nodes, tensors
