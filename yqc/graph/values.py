"""Shape and dtype of what every node computes, kept in `node.meta["yqc.value"]`."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from yqc.errors import TraceError
from yqc.graph.calls import get_attribute
from yqc.graph.meta_tensors import MetaMode, to_meta
from yqc.graph.run import compute_node

KEY = "yqc.value"

SHORT = {
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float64: "f64",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "bool",
}


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one tensor. Prints as `f32[1,3,640,640]`."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{SHORT.get(self.dtype, str(self.dtype))}[{','.join(map(str, self.shape))}]"


Value: TypeAlias = "TensorSpec | tuple[Value, ...] | int | float | bool | None"


def spec(value: object) -> Value:
    """Describe a tensor, or a tuple or list of them, by its shapes and dtypes."""
    if isinstance(value, Tensor):
        return TensorSpec(tuple(int(n) for n in value.shape), value.dtype)
    if isinstance(value, (tuple, list)):
        return tuple(spec(v) for v in value)
    return value if isinstance(value, (int, float, bool)) else None


def shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of the tensor that `node` computes.

    Raises:
        TraceError: the node computes no single tensor, or nothing is known about it.
    """
    value = node.meta.get(KEY)
    if not isinstance(value, TensorSpec):
        raise TraceError(f"node {node.name} has no tensor shape; run yqc.graph.propagate(gm) first")
    return value.shape


def show_value(value: Value) -> str:
    """Print a value as the graph text does."""
    if isinstance(value, tuple):
        return f"({', '.join(show_value(v) for v in value)})"
    return str(value)


class Evaluator:
    """Runs single nodes on meta tensors: gives shapes and dtypes, and computes nothing."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.mode = MetaMode()
        self.values: dict[fx.Node, Any] = {}

    def run(self, node: fx.Node) -> Any:  # noqa: ANN401  # any result
        """Evaluate one node whose inputs were evaluated before, and write its meta."""
        with torch.no_grad():
            if node.op == "get_attr":
                value = to_meta(get_attribute(self.root, str(node.target)))
            else:
                value = self._tried(node)
        self.values[node] = value
        node.meta[KEY] = spec(value)
        return value

    def _tried(self, node: fx.Node) -> Any:  # noqa: ANN401
        """Evaluate a node; arguments that do not fit raise torch's error for real tensors."""
        try:
            with self.mode:
                return compute_node(self.root, node, self.values)
        except Exception:
            zeros = {n: tree_map(_zeros, self.values[n]) for n in node.all_input_nodes}
            compute_node(self.root, node, zeros)
            raise


def _zeros(value: object) -> object:
    """Return zeros in the place of a meta tensor."""
    return torch.zeros_like(value, device="cpu") if isinstance(value, Tensor) else value


def propagate(gm: fx.GraphModule, inputs: tuple[Tensor, ...] | None = None) -> None:
    """Write shape and dtype of every node into `node.meta["yqc.value"]`.

    Inputs are one example a placeholder; without, the placeholders must have a value already.

    Raises:
        TraceError: a node cannot work on the shapes that reach it; the message names the node.
    """
    evaluator = Evaluator(gm)
    given = iter(inputs or ())
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            value = next(given, None) if inputs else empty(node)
            evaluator.values[node] = to_meta(value)
            node.meta[KEY] = spec(value)
            continue
        try:
            evaluator.run(node)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise TraceError(f"node {node.name} does not fit its inputs: {reason}") from error


def list_specs(value: Value) -> list[TensorSpec]:
    """List every tensor description in a value."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, TensorSpec)]


def list_tensors(output: object) -> list[Tensor]:
    """List the tensors in nested tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def empty(placeholder: fx.Node) -> Tensor:
    """Return an uninitialised tensor of the shape and dtype that a placeholder was traced with."""
    value = placeholder.meta.get(KEY)
    if not isinstance(value, TensorSpec):
        raise TraceError(f"input {placeholder.name} has no known shape; trace with an example")
    return torch.empty(value.shape, dtype=value.dtype)
