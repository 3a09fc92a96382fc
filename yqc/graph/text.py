"""Printing graphs, always in the same way: without addresses, ids and times."""

from collections.abc import Mapping

import torch
from torch import fx

from yqc.graph.values import KEY, show_value


def text(gm: fx.GraphModule) -> str:
    """Print a graph, one node a line, with the shape and dtype of what each computes.

        %x: f32[2,3,8,8] = input
        %conv: f32[2,6,6,6] = Conv2d(%x)
        return %conv

    Modules print as their class name, functions and methods as their name, tensors that the graph
    holds as `attr(path)`.
    """
    return "\n".join(line(gm, node) for node in gm.graph.nodes)


def line(gm: fx.GraphModule, node: fx.Node) -> str:
    """Print one node."""
    if node.op == "output":
        return f"return {show_argument(node.args[0])}"
    value = node.meta.get(KEY)
    head = f"%{node.name}: {show_value(value)}" if value is not None else f"%{node.name}"
    return f"{head} = {expression(gm, node)}"


def expression(gm: fx.GraphModule, node: fx.Node) -> str:
    """Print what a node does with its inputs."""
    if node.op == "placeholder":
        return "input"
    if node.op == "get_attr":
        return f"attr({node.target})"
    return f"{operation(gm, node)}({show_arguments(node.args, node.kwargs)})"


def operation(gm: fx.GraphModule, node: fx.Node) -> str:
    """Name the operation of a node: `Conv2d`, `cat`, `yqc.quantize_linear`, ..."""
    if node.op == "call_module":
        return type(gm.get_submodule(str(node.target))).__name__
    if node.op in {"call_method", "placeholder", "get_attr", "output"}:
        return str(node.target) if node.op == "call_method" else node.op
    if isinstance(node.target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):  # noqa: SLF001
        return str(node.target).removesuffix(".default")
    return str(getattr(node.target, "__name__", node.target))


def show_arguments(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """Print positional and keyword arguments."""
    shown = [show_argument(a) for a in args] + [
        f"{k}={show_argument(v)}" for k, v in kwargs.items()
    ]
    return ", ".join(shown)


def show_argument(value: object) -> str:  # noqa: PLR0911  # one line a kind of argument
    """Print one argument of a node."""
    if isinstance(value, fx.Node):
        return f"%{value.name}"
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, slice):
        parts = ["" if p is None else show_argument(p) for p in (value.start, value.stop)]
        step = "" if value.step is None else f":{show_argument(value.step)}"
        return ":".join(parts) + step
    if value is Ellipsis:
        return "..."
    if isinstance(value, tuple):
        return f"({', '.join(map(show_argument, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(show_argument, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {show_argument(v)}" for k, v in value.items()) + "}"
    return repr(value)
