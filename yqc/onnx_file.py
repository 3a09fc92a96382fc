"""Read ONNX files that may be malformed or malicious, in bounded memory and time.

Nothing is read but regular files, and external weights only from regular files beside the model.
"""

import contextlib
import math
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from yqc.errors import CheckpointError, first_line

LARGEST = 2 << 30
"""Bytes of a file at most; protobuf reads no more than that."""
LARGEST_VALUE = 1 << 30
"""Bytes of a tensor that a graph computes, at most. A YOLO model of 1280 x 1280 pixels computes
105 MB at a time; half of it would refuse batches of 8 such images, double needs that much memory
to refuse a malicious file."""
LARGEST_GRAPH = 20_000
"""Nodes of a graph at most where functions are put in for their calls. YOLO models have some
hundred to a few thousand; functions that call functions make any number of a few bytes, and
onnxruntime takes minutes for 65000. Half of it changes nothing for YOLO models; double opens four
times as long."""

BITS = {
    **dict.fromkeys((onnx.TensorProto.INT4, onnx.TensorProto.UINT4), 4),
    **({onnx.TensorProto.FLOAT4E2M1: 4} if hasattr(onnx.TensorProto, "FLOAT4E2M1") else {}),
    **{getattr(onnx.TensorProto, n): 2 for n in ("INT2", "UINT2") if hasattr(onnx.TensorProto, n)},
}
"""Bits of a value of the types that pack several into a byte."""


def require_regular(path: Path) -> None:
    """Raise a CheckpointError unless a path is a regular file; a pipe or a device is not opened."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(f"there is no file {path} ({why})") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise CheckpointError(f"{path} is {what}, not a file")


def read_onnx(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read an ONNX file; `weights`: with those that lie in files beside it.

    Raises:
        CheckpointError: it is no ONNX file, or damaged.
    """
    try:
        require_regular(path)
        if path.stat().st_size > LARGEST:
            raise ValueError("it is larger than one can be")
        model = onnx.load(path, load_external_data=False)
        if not model.graph.output:
            raise ValueError("there is no graph in it")
        for node in model.graph.node:
            words = (node.name, node.op_type, *node.input, *node.output)
            if not all(isinstance(word, str) for word in words):  # protobuf gives bytes then
                raise ValueError("a name in it is no UTF-8")
        _check_functions(model)
        for tensor in model.graph.initializer:
            _check_size(tensor)
        if weights:
            _check_external(model, path.parent)
            load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # protobuf and numpy raise anything
        reason = first_line(error)
        raise CheckpointError(f"{path} cannot be read as an ONNX file: {reason}") from error
    return model


def check_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file that is to be run, and refuse it if that takes too much memory.

    Raises:
        CheckpointError: it is no ONNX file, or computes tensors larger than `LARGEST_VALUE`.
    """
    model = inferred = read_onnx(path)
    with contextlib.suppress(Exception):  # a runtime says better what is wrong
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        if (size := _bytes_of(value)) > LARGEST_VALUE:
            raise CheckpointError(
                f"{path} computes {value.name} of {size / 1e9:.3g} GB; yqc runs no file whose "
                f"tensors take more than {LARGEST_VALUE / 1e9:.3g} GB"
            )
    return model


def is_sound(model: onnx.ModelProto) -> bool:
    """Return whether the checker of ONNX finds nothing wrong."""
    try:
        onnx.checker.check_model(model)
    except Exception:  # noqa: BLE001  # it raises anything
        return False
    return True


def name_or_bytes(path: Path) -> str | bytes:
    """Return what onnxruntime opens: it knows no names that are no UTF-8, but takes the content."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)


def require_opens(path: Path) -> None:
    """Raise a CheckpointError unless onnxruntime can open a file; it is not optimised, nor run."""
    import onnxruntime as ort  # noqa: PLC0415  # only here

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        ort.InferenceSession(name_or_bytes(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CheckpointError(f"onnxruntime cannot open {path}: {first_line(error)}") from error


def _bytes_of(value: onnx.ValueInfoProto) -> int:
    """Return the bytes of a tensor, 0 where its shape or type is not known.

    Raises:
        CheckpointError: a side of it is negative.
    """
    kind = value.type.tensor_type
    sides = [d.dim_value if d.HasField("dim_value") else 1 for d in kind.shape.dim]
    if any(side < 0 for side in sides):
        raise CheckpointError(f"{value.name} has a negative side: {sides}")
    try:
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    except (KeyError, ValueError, TypeError):
        itemsize = 4
    return math.prod(sides) * itemsize


def _check_functions(model: onnx.ModelProto) -> None:
    """Raise a CheckpointError if a model has too many nodes where its functions are put in."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes = dict[tuple[str, str], float]()

    def count(nodes: Iterable[onnx.NodeProto]) -> float:
        return sum(1 + count_called(n) + sum(map(count, _bodies_of(n))) for n in nodes)

    def count_called(node: onnx.NodeProto) -> float:
        key = node.domain, node.op_type
        if key in bodies and key not in sizes:
            sizes[key] = math.inf  # while it is counted: it would call itself
            sizes[key] = count(bodies[key])
        return sizes.get(key, 0)

    if bodies and count(model.graph.node) > LARGEST_GRAPH:
        raise CheckpointError("its functions make too many nodes, or call themselves")


def _bodies_of(node: onnx.NodeProto) -> list[Sequence[onnx.NodeProto]]:
    """Return the nodes of the graphs within a node, such as the branches of an If."""
    graphs = [g for a in node.attribute for g in (a.g, *a.graphs)]
    return [graph.node for graph in graphs if graph.node]


def _check_size(tensor: onnx.TensorProto) -> None:
    """Raise a CheckpointError unless a tensor holds as many bytes as its shape and type say."""
    if uses_external_data(tensor):
        return
    if tensor.data_type not in onnx.TensorProto.DataType.values() or not tensor.data_type:
        raise CheckpointError(f"{tensor.name} is of no known type ({tensor.data_type})")
    if any(side < 0 for side in tensor.dims):
        raise CheckpointError(f"{tensor.name} has a negative side: {list(tensor.dims)}")
    count, text = math.prod(tensor.dims), tensor.data_type == onnx.TensorProto.STRING
    if text or not tensor.HasField("raw_data"):
        data = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
        wrong = bool(count) != bool(len(data)) or count > 8 * len(data)
    else:
        wrong = len(tensor.raw_data) != _stored_bytes(tensor)
    if wrong:
        raise CheckpointError(f"{tensor.name} does not hold the {count} values that it claims")


def _stored_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes that shape and type of a tensor ask for."""
    bits = BITS.get(tensor.data_type, 0)
    bits = bits or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(-(-math.prod(tensor.dims) * bits // 8))


def _check_external(model: onnx.ModelProto, folder: Path) -> None:
    """Raise a CheckpointError unless all external weights lie in regular files beside the model."""
    root, total = os.path.realpath(folder), 0
    for tensor in onnx.external_data_helper._get_all_tensors(model):  # noqa: SLF001  # no public one
        if not uses_external_data(tensor):
            continue
        about = {entry.key: entry.value for entry in tensor.external_data}
        place = os.path.realpath(folder / about.get("location", ""))
        if os.path.commonpath((root, place)) != root:
            raise CheckpointError(f"{tensor.name} is to be read from outside of {folder}; refused")
        require_regular(Path(place))
        offset, length = int(about.get("offset", 0)), int(about.get("length", 0))
        size = Path(place).stat().st_size
        if offset < 0 or length < 0 or offset + length > size:
            raise CheckpointError(f"{tensor.name} lies beyond the end of {place}")
        length = length or size - offset
        if length != _stored_bytes(tensor):
            raise CheckpointError(f"{tensor.name} does not hold the values that it claims")
        total += length
    if total > LARGEST:
        raise CheckpointError(f"its weights take {total / 1e9:.3g} GB; that is no YOLO model")
