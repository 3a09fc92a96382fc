"""The view of an fx graph."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc.emit.names import onnx_ops
from yqc.errors import TraceError
from yqc.graph import call, history, is_function, role, text
from yqc.graph.calls import get_attribute
from yqc.graph.channels.groups import channel_groups
from yqc.graph.run import compute_node
from yqc.graph.text import operation, show_argument, show_arguments
from yqc.graph.values import KEY, show_value, spec
from yqc.look.view import HeldTensor, View, ViewNode, WeightArray
from yqc.quant import Observer, QuantizedLayer

Q, DQ = torch.ops.yqc.quantize_linear, torch.ops.yqc.dequantize_linear
WEIGHTED = (F.conv2d, F.conv_transpose2d, F.linear)
PLACES = ("weight", "bias")
"""Names of their second and third input."""


def of_graph(gm: fx.GraphModule, title: str = "graph") -> View:
    """View a graph module that `trace`, a compile or a pass left."""
    ops = onnx_ops(gm)
    items = tuple(_item(gm, n, ops) for n in gm.graph.nodes if n.op != "get_attr")
    return View(
        title,
        items,
        text(gm),
        gm.code.strip() + "\n",
        weights=lambda: weights_of_graph(gm),
        channels=lambda path: channel_dependencies(gm, path),
    )


def _item(gm: fx.GraphModule, node: fx.Node, ops: Mapping[str, tuple[str, ...] | None]) -> ViewNode:
    kind = operation(gm, node)
    if node.op == "output":
        expression = show_argument(node.args[0])
    elif node.op == "placeholder":
        expression = "input"
    else:
        became = ops[node.name]
        shown = became[0] if became is not None and len(became) == 1 else kind
        expression = f"{shown}({show_arguments(node.args, node.kwargs)})"
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            expression = _named(expression, f"%{source.name}", str(source.target))
    value = node.meta.get(KEY)
    made = ops.get(node.name)
    computes = node.op not in {"placeholder", "output"}
    return ViewNode(
        name=node.name,
        op=kind,
        onnx=() if not computes else (kind,) if made is None else made,
        expression=expression,
        type="" if value is None or node.op == "output" else show_value(value),
        inputs=tuple(n.name for n in node.all_input_nodes if n.op != "get_attr"),
        users=tuple(n.name for n in node.users),
        path=_path(node),
        role=role(node) if computes else "",
        stored=tuple(_stored(gm, node)),
        facts=_facts(gm, node),
        history=tuple(map(str, history(node))),
    )


def _named(expression: str, name: str, path: str) -> str:
    """Write the path of a tensor where its node is read."""
    parts = expression.split(name)
    whole = [p and (p[0].isalnum() or p[0] == "_") for p in parts[1:]]
    return parts[0] + "".join(
        (name if longer else path) + part for part, longer in zip(parts[1:], whole, strict=True)
    )


def _path(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    layer = node.meta.get("yqc.layer")
    return layer.name if isinstance(layer, QuantizedLayer) else str(stack[-1][0]) if stack else ""


def _stored(gm: fx.GraphModule, node: fx.Node) -> Iterator[HeldTensor]:
    """List the tensors that a node holds or reads."""
    if node.op == "call_module":
        for name, tensor in gm.get_submodule(str(node.target)).state_dict().items():
            yield _describe(f"{node.target}.{name}", tensor)
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            value = get_attribute(gm, str(source.target))
            if isinstance(value, Tensor):
                yield _describe(str(source.target), value)


def _describe(name: str, tensor: Tensor) -> HeldTensor:
    return HeldTensor(name, show_value(spec(tensor)), tensor.numel() * tensor.element_size())


def _facts(gm: fx.GraphModule, node: fx.Node) -> dict[str, str]:
    found: dict[str, str] = {}
    if is_function(node, Q, DQ):
        found["quantized by"] = _qparams(gm, node)
    for source in node.all_input_nodes:
        if is_function(source, DQ) and not is_function(node, Q, DQ):
            found[f"reads {source.name}"] = _qparams(gm, source)
    if (observer := call(gm, node, Observer)) is not None:
        found["observes"] = observer.module.extra_repr()
    elif (module := call(gm, node, nn.Module)) is not None and module.module.extra_repr():
        found["settings"] = module.module.extra_repr()
    layer = node.meta.get("yqc.layer")
    if isinstance(layer, QuantizedLayer):
        found["weights"] = (
            f"{layer.weight_bits} bits, {layer.scheme} per {layer.granularity}, {layer.rounding}"
        )
        found["activations"] = f"{layer.activation_bits} bits"
        if layer.sqnr_db is not None and math.isfinite(layer.sqnr_db):
            found["SQNR"] = f"{layer.sqnr_db:.1f} dB"
    return found


def _qparams(gm: fx.GraphModule, node: fx.Node) -> str:
    """Print scale, zero point and axis of a quantization."""
    scale, zero = _constants(gm, node, range(1, 3))
    shown = f"scale {_range(scale)}, zero point {'0' if zero is None else _range(zero)}"
    if scale is None or scale.numel() == 1:
        return shown
    return f"{shown}, axis {node.args[3] if len(node.args) > 3 else 1}"  # noqa: PLR2004


def _constants(gm: fx.GraphModule, node: fx.Node, at: range) -> list[Tensor | None]:
    """Return the tensors that a node is given at some positions, None for what is computed."""
    found: list[Tensor | None] = []
    for source in (*node.args, None, None)[at.start : at.stop]:
        held = isinstance(source, fx.Node) and source.op == "get_attr"
        value = get_attribute(gm, str(source.target)) if held else None  # type: ignore[union-attr]
        found.append(value if isinstance(value, Tensor) else None)
    return found


def _range(tensor: Tensor | None) -> str:
    """Print a number, or the count and the range of several."""
    if tensor is None:
        return "computed"
    low, high = tensor.min().item(), tensor.max().item()
    if tensor.numel() == 1:
        return f"{low:.6g}"
    return f"{tensor.numel()} values from {low:.4g} to {high:.4g}"


def channel_dependencies(gm: fx.GraphModule, path: str) -> tuple[str, ...]:
    """List the runs of channels that must go with those that the module at `path` makes."""
    try:
        groups = channel_groups(gm)
    except TraceError:
        return ()
    own = [
        n for n, about in groups.nodes.items() if (about["target"], about["side"]) == (path, "out")
    ]
    found: dict[str, None] = {}
    for start in own:
        pinned = groups.nodes[start]["pinned"]
        for name in sorted(nx.node_connected_component(groups, start) - {start}):
            found[f"{start} => {name}" + (f" (pinned: {pinned})" if pinned else "")] = None
    return tuple(found)


def weights_of_graph(gm: fx.GraphModule) -> dict[str, WeightArray]:
    """Compute the weights and biases of nodes as they are used: integers dequantized."""
    known: dict[fx.Node, Any] = {}
    found: dict[str, WeightArray] = {}
    with torch.no_grad():
        for node in gm.graph.nodes:
            if node.op == "get_attr":
                known[node] = get_attribute(gm, str(node.target))
            elif node.op == "call_module":
                state = gm.get_submodule(str(node.target)).state_dict()
                found |= {f"{node.name}.{k}": _array(v) for k, v in state.items() if v.numel() > 1}
            elif (
                node.op != "output" and (read := set(node.all_input_nodes)) and read <= known.keys()
            ):
                known[node] = compute_node(gm, node, known)
            elif is_function(node, *WEIGHTED):
                for place, source in zip(PLACES, node.args[1:3], strict=False):
                    value = known.get(source) if isinstance(source, fx.Node) else None
                    if isinstance(value, Tensor) and value.numel() > 1:
                        found[f"{node.name}.{place}"] = _array(value)
    return found


def _array(tensor: Tensor) -> WeightArray:
    value = tensor.detach().cpu()
    return np.asarray(value.float() if value.dtype == torch.bfloat16 else value)
