"""Lower an fx graph to an ONNX model, node by node."""

import inspect
from collections.abc import Iterator, Sequence

import onnx
from onnx import helper
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from yqc.emit.emitter import Constant, Emitter, OpsetNeededError
from yqc.emit.raw_heads import OUTPUT_NAMES
from yqc.emit.sizes import Side
from yqc.emit.stored import StoredValues
from yqc.emit.table import call_text, find
from yqc.emit.tensors import DTYPES
from yqc.errors import EmitError, LoweringError
from yqc.graph import TensorSpec

LOWEST_OPSET, DEFAULT_OPSET, HIGHEST_OPSET = 13, 17, 23
"""The default is that of Ultralytics' exports; TensorRT and OpenCV read it since 2022."""
BATCH, HEIGHT, WIDTH = "batch", "height", "width"
"""Names of the symbolic dimensions of a model emitted for any batch and size."""


def build_model(
    gm: fx.GraphModule,
    *,
    opset: int | None,
    dynamic: bool,
    stored: StoredValues | None = None,
    other: fx.GraphModule | None = None,
) -> onnx.ModelProto:
    """Lower a graph one to one: no simplification, no checks; arguments and errors as of `emit`.

    Packed weights and biases are put into `stored`, if it is given, and become inputs of the graph.
    """
    if opset is not None and not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
        raise EmitError(
            f"opset {opset} is not supported; choose one from {LOWEST_OPSET} to {HIGHEST_OPSET}"
        )
    target = DEFAULT_OPSET if opset is None else opset
    while True:
        try:
            return _build(gm, opset=target, dynamic=dynamic, stored=stored, other=other)
        except OpsetNeededError as need:
            if opset is not None:
                raise EmitError(
                    f"opset {opset} is too low ({need}); ask for {need.opset} or above"
                ) from need
            target = need.opset


def check_writable(gm: fx.GraphModule, *, opset: int | None, dynamic: bool) -> None:
    """Raise the error that `emit` would raise for a graph's operations, before any work on it.

    Raises:
        LoweringError: naming all operations that have no ONNX form.
        EmitError: the opset is too low for one.
    """
    missing: dict[str, LoweringError] = {}
    for node in gm.graph.nodes:
        if node.op.startswith("call_"):
            try:
                find(gm, node)
            except LoweringError as error:
                missing.setdefault(call_text(gm, node), error)
    if len(missing) > 1:
        first, *others = missing
        raise LoweringError(
            f"{missing[first]}\nAlso without a lowering: {', '.join(others)}"
        ) from missing[first]
    if missing:
        raise next(iter(missing.values()))
    build_model(gm, opset=opset, dynamic=dynamic)


def _build(
    gm: fx.GraphModule,
    *,
    opset: int,
    dynamic: bool,
    stored: StoredValues | None,
    other: fx.GraphModule | None,
) -> onnx.ModelProto:
    results = list(_results(gm.graph.output_node().args[0]))
    end = gm.graph.output_node()
    names = list(end.meta.get(OUTPUT_NAMES) or (f"output{i}" for i in range(len(results))))
    e = Emitter(gm, opset=opset, dynamic=dynamic, taken=names, stored=stored, other=other)
    for node in gm.graph.nodes:
        e.begin(node)
        lower(e, node)
    outputs = [
        _output(e, node, index, name) for name, (node, index) in zip(names, results, strict=True)
    ]
    _rename(e)
    graph = helper.make_graph(
        nodes=e.nodes,
        name="yqc",
        inputs=[*(_info(e, n.name, e.spec(n), e.sides(n)) for n in e.inputs), *_inputs_of(stored)],
        outputs=outputs,
        initializer=list(e.tensors.values()),
    )
    version = helper.make_opsetid("", opset)
    return helper.make_model(
        graph,
        producer_name="yqc",
        opset_imports=[version, *(helper.make_opsetid(name, 1) for name in sorted(e.domains))],
        ir_version=helper.find_min_ir_version_for([version]),
    )


def lower(e: Emitter, node: fx.Node) -> None:
    """Lower one node, whose inputs were lowered before."""
    if node.op == "output":
        return
    if node.op == "placeholder":
        e.values[node] = node.name
        e.sizes.note(node, node.name, e.shape(node))
        return
    if node.op == "get_attr":
        path, _, name = str(node.target).rpartition(".")
        tensor = getattr(e.gm.get_submodule(path), name)
        e.values[node] = Constant(tensor, str(node.target))
        return
    function = find(e.gm, node)
    since = len(e.nodes)
    bound = _arguments(e, node, inspect.signature(function))
    lowered = function(*bound.args, **bound.kwargs)
    if lowered is None:
        e.refuse("its lowering returned nothing; return the name of the value that it made")
    e.bind(node, lowered, since)
    if node.args and isinstance(node.args[0], fx.Node) and _in_place(e, node):
        e.overwrite(node.args[0], node)


def _arguments(e: Emitter, node: fx.Node, signature: inspect.Signature) -> inspect.BoundArguments:
    """Bind the arguments of a node, and what its module holds under a parameter's name."""
    kwargs: dict[str, object] = dict(node.kwargs)
    args = [kwargs.pop(name) for name in ("input", "self") if name in kwargs] + list(node.args)
    try:
        if node.op == "call_module":
            given = signature.bind_partial(e, node, *args, **kwargs).arguments
            kwargs |= _settings(e, node, [p for p in signature.parameters if p not in given])
        return signature.bind(e, node, *args, **kwargs)
    except TypeError as error:
        e.refuse(f"its lowering does not take these arguments: {error}")


def _settings(e: Emitter, node: fx.Node, names: Sequence[str]) -> dict[str, object]:
    """Look up names among the attributes of the module that a node calls."""
    module = e.gm.get_submodule(str(node.target))
    found = {name: getattr(module, name) for name in names if hasattr(module, name)}
    return {
        name: Constant(value, f"{node.target}.{name}") if isinstance(value, Tensor) else value
        for name, value in found.items()
    }


def _in_place(e: Emitter, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(e.gm.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    return node.kwargs.get("inplace") is True


def _results(value: object) -> Iterator[tuple[fx.Node, int | None]]:
    """Yield the tensors that a graph returns, in order: a node, and which of its values."""
    for node in tree_leaves(value):
        if node is None:
            continue
        if not isinstance(node, fx.Node):
            raise LoweringError(f"the graph returns {node!r}; return tensors only")
        known = node.meta.get("yqc.value")
        yield from (
            ((node, i) for i in range(len(known))) if isinstance(known, tuple) else [(node, None)]
        )


def _output(e: Emitter, node: fx.Node, index: int | None, name: str) -> onnx.ValueInfoProto:
    """Give a result its name as a graph output; one that is not computed here gets an Identity."""
    held = e.values[node]
    value = held[index] if isinstance(held, tuple) and index is not None else e.value(node)
    made = {output for producer in e.nodes for output in producer.output}
    if value not in made or value in e.results:
        e.begin(node)
        value = e.op("Identity", value)
    e.renamed[value] = name
    e.results.add(value)
    if index is None:
        return _info(e, name, e.spec(node), e.sides(node))
    return _info(e, name, e.specs(node)[index])


def _info(
    e: Emitter, name: str, spec: TensorSpec, sides: Sequence[Side] = ()
) -> onnx.ValueInfoProto:
    """Describe an input or output; what varies has a name, or none if it is not the input's own."""
    shape: list[int | str | None] = list(spec.shape)
    image = dict(zip(e.sides(e.inputs[0])[2:], (HEIGHT, WIDTH), strict=False))
    for axis, side in enumerate(sides):
        if side[0] != side[1]:
            shape[axis] = image.get(side)
    if e.dynamic and shape:
        # An output may have the batch merged with something else into its first dimension.
        shape[0] = BATCH if spec.shape[:1] == e.shape(e.inputs[0])[:1] else None
    return helper.make_tensor_value_info(name, DTYPES[spec.dtype], shape)


def _inputs_of(stored: StoredValues | None) -> Iterator[onnx.ValueInfoProto]:
    if stored is not None:
        for name, shape in stored.shapes().items():
            yield helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _rename(e: Emitter) -> None:
    for node in e.nodes:
        for names in (node.input, node.output):
            names[:] = [e.renamed.get(name, name) for name in names]
