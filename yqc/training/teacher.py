"""The teacher: the original graph with its batch norms folded, since it only ever infers."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from yqc.graph import callers, chains, fold_conv_bn
from yqc.training.heads import Tap, cut, tapped


@dataclass(frozen=True)
class Teacher:
    """The original in two parts: what a student shares with it, and what it is to learn."""

    front: fx.GraphModule
    """From images to what the student goes on from."""
    rest: fx.GraphModule
    """From there to what is compared."""

    @classmethod
    def of(
        cls, original: fx.GraphModule, taps: Sequence[Tap], sources: Sequence[str], device: str
    ) -> "Teacher":
        """Cut an original; it is not changed.

        Args:
            original: the float graph.
            taps: what is compared.
            sources: names of the nodes from which the student goes on.
            device: where it computes.
        """
        parts = cut(original, sources), tapped(original, taps, sources)
        folded = (fold(part).to(device) for part in parts)
        return cls(*(part.to(memory_format=torch.channels_last) for part in folded))  # type: ignore[call-overload]

    @torch.no_grad()
    def shared(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what the student goes on from, of float32 images [N, 3, H, W]."""
        given: tuple[Tensor, ...] = self.front(images)
        return given

    @torch.no_grad()
    def wanted(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what the original makes of it: a tensor a tap."""
        found: tuple[Tensor, ...] = self.rest(*given)
        return found


def fold(gm: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a graph without gradients, its batch norms folded where that is possible."""
    gm = copy.deepcopy(gm).eval().requires_grad_(requires_grad=False)
    for conv, bn in chains(gm, nn.Conv2d, nn.BatchNorm2d):
        alone = len(conv.node.users) == 1 and callers(gm, conv.target) == 1
        if alone and bn.module.running_var is not None:
            gm.set_submodule(conv.target, fold_conv_bn(conv.module, bn.module))
            bn.node.replace_all_uses_with(conv.node)
            gm.graph.erase_node(bn.node)
    gm.delete_all_unused_submodules()
    gm.recompile()
    return gm.requires_grad_(requires_grad=False)
