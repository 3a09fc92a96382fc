"""The view of an ONNX file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from yqc.emit.tensors import tensor_bytes
from yqc.errors import CheckpointError, first_line
from yqc.look.view import HeldTensor, View, ViewNode, WeightArray
from yqc.onnx_file import read_onnx

SHORT: dict[int, str] = {
    TensorProto.FLOAT: "f32",
    TensorProto.FLOAT16: "f16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "f64",
    TensorProto.BOOL: "bool",
    **{getattr(TensorProto, f"INT{bits}"): f"i{bits}" for bits in (4, 8, 16, 32, 64)},
    **{getattr(TensorProto, f"UINT{bits}"): f"u{bits}" for bits in (4, 8, 16)},
}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "ConvInteger", "QLinearConv"}
PLACES = ("weight", "bias")


def read_typed(path: Path) -> onnx.ModelProto:
    """Read an ONNX file and infer the types of its values.

    Raises:
        CheckpointError: it is none.
    """
    model = read_onnx(path)
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception as error:
        raise CheckpointError(f"cannot read {path} as ONNX: {first_line(error)}") from error


def of_model(model: onnx.ModelProto, title: str) -> View:
    """View an ONNX model whose value types were inferred."""
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    types = {v.name: _type(v) for v in (*graph.input, *graph.output, *graph.value_info)}
    makers = {value: _name(n, i) for i, n in enumerate(graph.node) for value in n.output if value}
    owners = _owners(graph)
    unpacking = {*_unpacking(graph)[0]}
    inputs = [v.name for v in graph.input if v.name not in held]
    makers |= {name: name for name in inputs}
    readers: dict[str, list[str]] = {}
    for index, node in enumerate(graph.node):
        for value in node.input:
            if value in makers:
                readers.setdefault(makers[value], []).append(_name(node, index))
    for value in graph.output:
        readers.setdefault(makers.get(value.name, ""), []).append("output")
    items = [
        ViewNode(n, "placeholder", (), "input", types.get(n, ""), users=_unique(readers.get(n, ())))
        for n in inputs
    ]
    for index, node in enumerate(graph.node):
        name = _name(node, index)
        stored = tuple(_stored(held[v]) for v in node.input if v in held)
        items.append(
            ViewNode(
                name=name,
                op=node.op_type,
                onnx=(node.op_type,),
                expression=_expression(node, held, makers),
                type=", ".join(types.get(v, "") for v in node.output if v),
                inputs=_unique(makers[v] for v in node.input if v in makers),
                users=_unique(readers.get(name, ())),
                path=_path(node, owners),
                stored=stored,
                facts={p.key: p.value for p in node.metadata_props} | _facts(node, held),
                unpacks=index in unpacking,
            )
        )
    results = ", ".join(f"%{makers.get(v.name, v.name)}" for v in graph.output)
    sources = _unique(makers[v.name] for v in graph.output if v.name in makers)
    facts = {v.name: _type(v) for v in graph.output}
    items.append(ViewNode("output", "output", (), results, "", inputs=sources, facts=facts))
    lines = "\n".join(item.line for item in items)
    return View(title, tuple(items), lines, None, lambda: weights_of_model(model))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _name(node: onnx.NodeProto, index: int) -> str:
    return node.name or (node.output[0] if node.output else f"node_{index}")


def _type(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    sides = (str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in dims)
    return f"{SHORT.get(tensor.elem_type, str(tensor.elem_type))}[{','.join(sides)}]"


def _owners(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the module path of each constant, `model.0.conv`, by the names of initialisers."""
    found: dict[str, str] = {}
    for tensor in graph.initializer:
        owner, _, name = tensor.name.rpartition(".")
        if name.startswith(PLACES):
            found[tensor.name] = owner
    for index in _unpacking(graph)[0]:
        node = graph.node[index]
        known = [found[v] for v in node.input if v in found]
        found |= dict.fromkeys(node.output, known[0]) if known else {}
    return found


def _unpacking(graph: onnx.GraphProto) -> tuple[list[int], set[str]]:
    """Return the positions of nodes that read constants alone, in order, and all constants."""
    found, constant = list[int](), {tensor.name for tensor in graph.initializer}
    for index, node in enumerate(graph.node):
        if all(v in constant for v in node.input if v):
            constant |= set(node.output)
            found.append(index)
    return found, constant


def _path(node: onnx.NodeProto, owners: Mapping[str, str]) -> str:
    """Return the module path of a layer by its weight or bias, or nothing."""
    if node.op_type not in WEIGHTED:
        return ""
    return next((owners[v] for v in node.input[1:3] if v in owners), "")


def _stored(tensor: TensorProto) -> HeldTensor:
    sides = ",".join(map(str, tensor.dims))
    kind = SHORT.get(tensor.data_type, str(tensor.data_type))
    return HeldTensor(tensor.name, f"{kind}[{sides}]", tensor_bytes(tensor))


def _expression(node: onnx.NodeProto, held: dict[str, TensorProto], makers: dict[str, str]) -> str:
    shown = [v if v in held else f"%{makers.get(v, v)}" if v else "None" for v in node.input]
    shown += [f"{a.name}={_attribute(a)}" for a in sorted(node.attribute, key=lambda a: a.name)]
    return f"{node.op_type}({', '.join(shown)})"


def _attribute(attribute: onnx.AttributeProto) -> str:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, TensorProto):
        return f"tensor{list(value.dims)}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(list(value) if isinstance(value, Sequence) else value)


def _facts(node: onnx.NodeProto, held: dict[str, TensorProto]) -> dict[str, str]:
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return {}
    found = []
    for name, value in zip(("scale", "zero point"), node.input[1:3], strict=False):
        if value in held:
            array = numpy_helper.to_array(held[value]).astype(np.float64)
            low, high = array.min(), array.max()
            many = f"{array.size} values from {low:.4g} to {high:.4g}"
            found.append(f"{name} {f'{low:.6g}' if array.size == 1 else many}")
    return {"quantized by": ", ".join(found)} if found else {}


def weights_of_model(model: onnx.ModelProto) -> dict[str, WeightArray]:
    """Compute the weights and biases that layers use, as they use them: integers dequantized.

    Raises:
        CheckpointError: onnxruntime cannot run the part that computes them.
    """
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    unpacking, constant = _unpacking(graph)
    steps = [graph.node[index] for index in unpacking]
    wanted: dict[str, str] = {}
    for index, node in enumerate(graph.node):
        if node.op_type in WEIGHTED:
            for place, value in zip(PLACES, node.input[1:3], strict=False):
                if value in constant:
                    wanted[f"{_name(node, index)}.{place}"] = value
    made = sorted({v for v in wanted.values() if v not in held})
    computed = dict(zip(made, _run(model, steps, made), strict=True)) if made else {}
    return {
        key: computed[v] if v in computed else numpy_helper.to_array(held[v])
        for key, v in wanted.items()
    }


def _run(
    model: onnx.ModelProto, steps: Sequence[onnx.NodeProto], made: Sequence[str]
) -> list[WeightArray]:
    """Run the part of a model that reads no input."""
    read = {v for step in steps for v in step.input}
    tensors = [t for t in model.graph.initializer if t.name in read]
    outputs = [onnx.ValueInfoProto(name=name) for name in made]
    part = helper.make_graph(list(steps), "weights", [], outputs, initializer=tensors)
    small = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(
            small.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(value) for value in session.run(list(made), {})]
    except Exception as error:
        raise CheckpointError(
            f"the weights of the ONNX file cannot be computed: {first_line(error)}"
        ) from error
