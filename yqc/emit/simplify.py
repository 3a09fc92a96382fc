"""Simplify a lowered model with onnxsim, and check that weights stay small and quantized."""

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx
from onnx import TensorProto

from yqc.emit.build import BATCH
from yqc.emit.tensors import QUANTIZED, weight_bytes
from yqc.errors import EmitError

Key = tuple[int, tuple[int, ...], bytes]


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify a model as far as nothing that is stored grows or loses its quantized form.

    Folding constants may write out a grid that was the sum of a row and a column, and may turn
    quantized weights back into floats. Then the model is simplified without folding, and if that
    does not keep them either, or onnxsim cannot work on it, left as it was lowered.
    """
    import onnxsim  # noqa: PLC0415  # it takes a second, and few commands emit anything

    drop_unused(model)
    for folding in (True, False):
        try:
            candidate: onnx.ModelProto
            candidate, _ = onnxsim.simplify(model, skip_constant_folding=not folding)
        except (RuntimeError, ValueError):
            break  # If the model itself is at fault, the checker says so next, and where.
        drop_unused(candidate)
        _restore_names(model, candidate)
        if keeps_weights(model, candidate):
            return candidate
    return model


def keeps_weights(before: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    """Return whether a rewrite kept the model as small, and all quantized tensors quantized."""
    lost = Counter(_quantized(before)) - Counter(_quantized(after))
    return not lost and weight_bytes(after) <= weight_bytes(before)


def _quantized(model: onnx.ModelProto) -> Iterator[tuple[int, bytes]]:
    for tensor in model.graph.initializer:
        if tensor.data_type in QUANTIZED and len(tensor.dims):
            yield tensor.data_type, _key(tensor)[2]


def drop_unused(model: onnx.ModelProto) -> None:
    """Drop the nodes and initialisers that no output needs, and store equal tensors once."""
    graph = model.graph
    _share(graph)
    needed = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    used = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)
    del graph.value_info[:]


def _share(graph: onnx.GraphProto) -> None:
    first: dict[Key, str] = {}
    same = {t.name: first.setdefault(_key(t), t.name) for t in graph.initializer}
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def _key(tensor: TensorProto) -> Key:
    """Return what makes two tensors the same; the values may be stored in either of two forms."""
    raw = tensor.raw_data
    if not raw:
        bare = TensorProto()
        bare.CopyFrom(tensor)
        bare.ClearField("name")
        raw = bare.SerializeToString(deterministic=True)
    return tensor.data_type, tuple(tensor.dims), raw


def _restore_names(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Call tensors that the simplifier made (a folded batch norm) as what they stand in for.

    The weight of the node `a_conv` was `a.conv.weight` and is so again; the bias that it did not
    have becomes `a.conv.bias`.
    """
    known = {tensor.name for tensor in before.graph.initializer}
    inputs = {node.name: node.input for node in before.graph.node}
    made = {t.name: t for t in after.graph.initializer if t.name not in known}
    taken = {t.name for t in after.graph.initializer}
    taken |= {name for node in after.graph.node for name in (*node.input, *node.output)}
    renamed: dict[str, str] = {}
    for node in after.graph.node:
        old = inputs.get(node.name, [])
        for i, name in enumerate(node.input):
            if name in made and name not in renamed:
                wanted = old[i] if i < len(old) and old[i] in known else _bias_name(old)
                renamed[name] = name if not wanted or wanted in taken else wanted
                taken.add(renamed[name])
    for name, tensor in made.items():
        tensor.name = renamed.get(name, name)
    for node in after.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _bias_name(inputs: Sequence[str]) -> str:
    """Name the bias of a convolution that had none after its weight."""
    weight = inputs[1] if len(inputs) == 2 else ""  # noqa: PLR2004  # input and weight
    return weight.removesuffix("weight") + "bias" if weight.endswith(".weight") else ""


def check_model(model: onnx.ModelProto) -> None:
    """Run the full ONNX checker, and for a symbolic batch see that no node fixes it.

    Raises:
        EmitError: with what is wrong.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EmitError(f"the emitted model is not valid ONNX: {_first(error)}") from error
    if any(dim.dim_param == BATCH for dim in _dims(model.graph)):
        _check_batch(model)


def _check_batch(model: onnx.ModelProto, batch: int = 3) -> None:
    """Infer all shapes for another batch size than the example's."""
    trial = onnx.ModelProto()
    trial.CopyFrom(model)
    for dim in _dims(trial.graph):
        if dim.dim_param == BATCH:
            dim.dim_value = batch
    try:
        onnx.shape_inference.infer_shapes(trial, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise EmitError(
            "the batch cannot be dynamic, since the model fixes it somewhere (write flatten(1) or "
            f"-1 instead of x.shape[0]); with a batch of {batch}: {_first(error)}"
        ) from error


def _dims(graph: onnx.GraphProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    for info in (*graph.input, *graph.output):
        yield from info.type.tensor_type.shape.dim


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:500]
