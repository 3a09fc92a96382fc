"""Half precision: graphs that compute in it, run fast on CPUs that have no kernels for it."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from yqc.graph.meta_tensors import PlainDispatchMode
from yqc.graph.values import KEY, list_specs, propagate

ATEN = torch.ops.aten
SLOW = frozenset(
    {
        *(ATEN.convolution, ATEN.conv2d, ATEN.conv_transpose2d, ATEN.linear, ATEN.matmul),
        *(ATEN.addmm, ATEN.mm, ATEN.bmm, ATEN.baddbmm, ATEN.layer_norm, ATEN.native_layer_norm),
    }
)
"""Operations that PyTorch computes in half without vector instructions on most CPUs: yolov8n at
320 px takes 2 s in half and 25 ms in float."""


class HalfByFloat(PlainDispatchMode):  # type: ignore[no-untyped-call]
    """Let products of half tensors on the CPU add up in float32 and round once, at the end.

    That is what half kernels of GPUs and of newer CPUs do; the other operations are PyTorch's own.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,  # it has no public name
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # any result
        """Run an operation, a slow one of half tensors by its float32 kernel."""
        given = kwargs or {}
        first = next((a for a in args if isinstance(a, Tensor)), None)
        is_half = first is not None and first.dtype == torch.float16 and first.device.type == "cpu"
        if not is_half or func.overloadpacket not in SLOW:
            return func(*args, **given)
        return tree_map(_narrow, func(*tree_map(_widen, tuple(args)), **given))


def _widen(value: object) -> object:
    is_half = isinstance(value, Tensor) and value.dtype == torch.float16
    return value.float() if is_half else value  # type: ignore[attr-defined]


def _narrow(value: object) -> object:
    is_float = isinstance(value, Tensor) and value.dtype == torch.float32
    return value.half() if is_float else value  # type: ignore[attr-defined]


def holds_half(gm: object) -> bool:
    """Return whether a graph computes something in half; tensors that are only stored so are not.

    Anything that is no graph does not.
    """
    if not isinstance(gm, fx.GraphModule):
        return False
    computed = (node for node in gm.graph.nodes if node.op not in {"get_attr", "output"})
    specs = (spec for node in computed for spec in list_specs(node.meta.get(KEY)))
    return any(spec.dtype == torch.float16 for spec in specs)


def stores_half(gm: fx.GraphModule) -> bool:
    """Return whether a graph holds tensors in half that it computes with in float32."""
    read = (node.all_input_nodes[0] for node in gm.graph.nodes if is_widening(node))
    return any(node.op == "get_attr" for node in read)


def is_widening(node: fx.Node) -> bool:
    """Return whether a node converts half to float32."""
    if node.op != "call_method" or node.target != "to" or not node.all_input_nodes:
        return False
    kinds = [list_specs(n.meta.get(KEY)) for n in (node.all_input_nodes[0], node)]
    return [spec.dtype for specs in kinds for spec in specs] == [torch.float16, torch.float32]


def half_kernels(gm: object) -> AbstractContextManager[object]:
    """Return a context in which a graph that computes in half runs as fast as in float."""
    return HalfByFloat() if holds_half(gm) else nullcontext()


def widened(gm: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a graph that computes in float32 with the same, rounded, weights."""
    other = copy.deepcopy(gm).float()
    for node in other.graph.nodes:
        if node.op == "call_method" and node.args[1:] == (torch.float16,):
            node.args = (node.args[0], torch.float32)
    other.recompile()
    propagate(other)
    return other
