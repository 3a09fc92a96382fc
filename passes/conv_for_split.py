"""conv-for-split: write a convolution whose channels are split as one convolution for each part.

    %conv = Conv2d(%x)                    %conv_0 = Conv2d(%x)      its first rows of weights
    %act = SiLU(%conv)                    %act_0 = SiLU(%conv_0)
    %a, %b = chunk(%act, 2, 1)     ->     %conv_1 = Conv2d(%x)      the other rows
                                          %act_1 = SiLU(%conv_1)

An output channel of a convolution depends on its own row of weights alone, and batch norms and
activations work on each channel alone, so the parts are equal to those of the whole.
"""

import copy
import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from yqc import BatchNorm, Call, Context, Pass, State, call, callers, is_function, shape
from yqc.graph import TensorSpec

SPLITS = (torch.chunk, torch.split)
BETWEEN: tuple[type[Any], ...] = (
    *(nn.BatchNorm2d, nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Sigmoid),
    *(nn.Mish, nn.GELU, nn.Identity),
)
"""Modules that work on each channel alone."""
IMAGE = 4
"""Dimensions of what a convolution computes."""


@dataclass(frozen=True)
class ConvForSplit(Pass):
    """Write a convolution whose channels are split as one convolution for each part."""

    name: ClassVar[str] = "conv-for-split"
    requires: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8, State.PACKED})
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for split in list(gm.graph.nodes):
            if not is_split(split):
                continue
            chain = find_chain(gm, split.all_input_nodes[0])
            if why := self.obstacle(gm, split, chain):
                ctx.skipped(split, why)
                continue
            self.divide(gm, split, chain)
            ctx.rewrote(split, f"{chain[0]} became a convolution for each part")
            for node in (split, *(each.node for each in reversed(chain))):
                gm.graph.erase_node(node)

    def obstacle(self, gm: fx.GraphModule, split: fx.Node, chain: list[Call[Any]]) -> str | None:
        """Return why a split must stay, or None."""
        whole = shape(split.all_input_nodes[0])
        if len(whole) != IMAGE or split_axis(split) % len(whole) != 1:
            return "it splits something else than the channels of an image"
        if not chain:
            return "no convolution computes what it splits"
        for each, after in zip(chain, [*(c.node for c in chain[1:]), split], strict=True):
            if set(each.node.users) != {after}:
                return f"{each} has other users"
        if callers(gm, chain[0].target) > 1:
            return f"{chain[0].target} is called from more than one place"
        if chain[0].module.groups > 1:
            return "its convolution has groups"
        odd = next((u for u in split.users if not is_function(u, operator.getitem)), None)
        return f"{odd} reads all parts at once" if odd is not None else None

    def divide(self, gm: fx.GraphModule, split: fx.Node, chain: list[Call[Any]]) -> None:
        """Insert the convolutions of the parts, with what follows them, and read these."""
        sizes = [part.shape[1] for part in split.meta["yqc.value"] if isinstance(part, TensorSpec)]
        rows = torch.split(torch.arange(sum(sizes)), sizes)
        for place, own in enumerate(rows):
            readers = [u for u in split.users if u.args[1] % len(sizes) == place]  # type: ignore[operator]
            if not readers:
                continue
            with gm.graph.inserting_before(split):
                part = insert_part(gm, chain, place, own)
            for reader in readers:
                reader.replace_all_uses_with(part)
                gm.graph.erase_node(reader)


def is_split(node: fx.Node) -> bool:
    """Return whether a node splits a tensor into parts."""
    method = node.op == "call_method" and node.target in {"chunk", "split"}
    return method or is_function(node, *SPLITS)


def split_axis(split: fx.Node) -> int:
    """Return the axis along which a node splits."""
    given: list[Any] = [*split.args[2:], split.kwargs.get("dim", 0)]
    return int(given[0])


def find_chain(gm: fx.GraphModule, node: fx.Node) -> list[Call[Any]]:
    """Return a convolution and the modules behind it, up to a node; empty if there is none."""
    chain = list[Call[Any]]()
    while (step := call(gm, node, BETWEEN)) is not None:
        chain.insert(0, step)
        node = step.node.all_input_nodes[0]
    conv = call(gm, node, nn.Conv2d)
    return [] if conv is None else [conv, *chain]


def insert_part(gm: fx.GraphModule, chain: list[Call[Any]], place: int, rows: Tensor) -> fx.Node:
    """Insert the calls that compute some channels of a chain, and return the last of them."""
    node: fx.Node = chain[0].node.all_input_nodes[0]
    for each in chain:
        path = each.target
        if isinstance(each.module, nn.Conv2d | nn.BatchNorm2d):
            path = f"{each.target}_{place}"
            gm.add_submodule(path, select_rows(each.module, rows))
        node = gm.graph.create_node("call_module", path, (node,), name=f"{each}_{place}")
        node.meta |= {k: v for k, v in each.node.meta.items() if k in {"yqc.role", "yqc.swapped"}}
        if (bn := BatchNorm.on(each.node)) is not None:
            bn.select(rows).put(node)
    return node


def select_rows(module: nn.Conv2d | nn.BatchNorm2d, rows: Tensor) -> nn.Module:
    """Return a copy of a convolution or batch norm with some of its output channels."""
    made = copy.deepcopy(module)
    tables = made._parameters, made._buffers  # noqa: SLF001  # there is no public table of both
    for name, tensor in [item for table in tables for item in table.items()]:
        if tensor is not None and tensor.ndim:
            own = tensor.detach()[rows].clone()
            keeps = isinstance(tensor, nn.Parameter)
            setattr(made, name, nn.Parameter(own, tensor.requires_grad) if keeps else own)
    if isinstance(made, nn.Conv2d):
        made.out_channels = len(rows)
    else:
        made.num_features = len(rows)
    return made
