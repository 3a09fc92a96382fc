"""The lowering table: for every op and module that yqc can emit, the function that does it.

A lowering is a small function. It gets the emitter, the node, and the node's own arguments, bound
by Python as in any call, and returns the name of the ONNX value that holds the result (or one name
a result):

    @lowering(nn.Hardtanh, F.hardtanh)
    def hardtanh(e: Emitter, node: fx.Node, x: fx.Node) -> str:
        clip = e.module(node, nn.Hardtanh)
        return e.op("Clip", x, e.scalar(clip.min_val), e.scalar(clip.max_val))

Keys are the classes of modules, function objects, and the names of tensor methods. The table is
open: a pass brings the lowering of an op of its own, and a later entry replaces an earlier one.
"""

import inspect
import operator
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.errors import LoweringError
from yqc.graph.optable import keep_whole

Lowered: TypeAlias = fx.Node | str | Sequence[str]
"""What a lowering returns: a value name, one a result, or a node whose value passes through."""
Lower: TypeAlias = Callable[..., Lowered]
LoweringTarget: TypeAlias = type[nn.Module] | Callable[..., object] | str

L = TypeVar("L", bound=Lower)

TABLE: dict[object, Lower] = {}


def lowering(*targets: LoweringTarget) -> Callable[[L], L]:
    """Register the decorated function as the lowering of modules, functions or tensor methods.

    Classes and functions of the user's own are kept whole from now on when a model is traced.

    Args:
        targets: classes of `nn.Module`, function objects (`torch.cat`, `torch.ops.yqc.pack`), and
            names of tensor methods (`"view"`; it serves the in-place `"view_"` too). A class serves
            its subclasses; one of torch's own only those that have its forward.
    """

    def register(function: L) -> L:
        for target in targets:
            TABLE[target] = function
            if isinstance(target, type | FunctionType) and _is_of_user(target):
                keep_whole(target)
        return function

    return register


def find(gm: fx.GraphModule, node: fx.Node) -> Lower:
    """Return the lowering of a node that calls something.

    Raises:
        LoweringError: there is none; the message names the node, the module it stems from, and
            shows the lines that add one.
    """
    for key in _keys(gm, node):
        if key in TABLE:
            return TABLE[key]
    raise LoweringError(_missing(gm, node))


def _keys(gm: fx.GraphModule, node: fx.Node) -> Sequence[object]:
    """List what a node may be found by, the most exact key first."""
    if node.op == "call_module":
        module = type(gm.get_submodule(str(node.target)))
        same = [base for base in module.__mro__ if _forward(base) is _forward(module)]
        return [*same, *(base for base in module.__mro__ if _is_of_user(base))]
    if isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001  # it has no public name
        return [node.target, node.target.overloadpacket]
    if node.op == "call_method":
        return [node.target, str(node.target).removesuffix("_")]
    return [node.target]


def _is_of_user(target: type | FunctionType) -> bool:
    """Return whether a module class or a Python function is neither torch's nor yqc's."""
    return (target.__module__ or "").partition(".")[0] not in {
        "torch",
        "yqc",
        "yqc_passes",
        "builtins",
    }


def _forward(kind: type) -> object:
    """Return the forward of a class: a subclass that has its own is another operation."""
    return getattr(kind, "forward", None)


def call_text(gm: fx.GraphModule, node: fx.Node) -> str:
    """Name what a node calls, as Python code would: `nn.SiLU`, `torch.cat`, `"view"`."""
    if node.op == "call_method":
        return f'"{node.target}"'
    what = type(gm.get_submodule(str(node.target))) if node.op == "call_module" else node.target
    if isinstance(what, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):  # noqa: SLF001
        return f"torch.ops.{what}"
    name = str(getattr(what, "__name__", what))
    homes = {"nn": nn, "torch": torch, "F": F, "operator": operator, "torch.fft": torch.fft}
    for home, module in homes.items():
        for public in (name, name.removeprefix("fft_")):
            if getattr(module, public, None) is what:
                return f"{home}.{public}"
    return f"{getattr(what, '__module__', None) or 'builtins'}.{name}"


def module_text(node: fx.Node) -> str:
    """Say which module of the traced model a node stems from, or nothing if that is not known."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return ""
    path = stack[-1][0]
    kinds = [kind for _, kind in stack if isinstance(kind, type)]
    own = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
    return f" in module {path}{_line(own[-1])}" if own else f" in module {path}"


def _line(kind: type) -> str:
    """Return where the forward of a module class is written, if Python finds it."""
    try:
        forward = kind.__dict__["forward"]
        where = f"{inspect.getsourcefile(forward)}:{inspect.getsourcelines(forward)[1]}"
    except (KeyError, OSError, TypeError):
        return f" ({kind.__name__})"
    return f" ({kind.__name__}, {where})"


def _missing(gm: fx.GraphModule, node: fx.Node) -> str:
    what = call_text(gm, node)
    inputs = ", ".join(f"x{i}" if i else "x" for i in range(len(node.args)))
    return (
        f"no ONNX lowering for {what} at node {node.name}{module_text(node)}; add one with --load "
        f"and these lines, or ask for it:\n"
        f"    from yqc.emit import lowering\n"
        f"    @lowering({what})\n"
        f"    def lower(e, node, {inputs}):\n"
        f'        return e.op("SomeOnnxOp", {inputs})'
    )
