"""The teacher: the original graph with its batch norms folded, cut where the student begins."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from yqc.graph import callers, chains, fold_conv_bn, lay_out
from yqc.training.heads import Tap, cut_graph, tap_graph


@dataclass(frozen=True)
class Teacher:
    """The original in two parts: the one that a student shares with it, and the rest."""

    front: fx.GraphModule
    """From images to the inputs of the student."""
    rest: fx.GraphModule
    """From there to the tensors that are compared."""

    @classmethod
    def of(
        cls, original: fx.GraphModule, taps: Sequence[Tap], sources: Sequence[str], device: str
    ) -> "Teacher":
        """Make the teacher of an original, not changed, for a student that begins at `sources`."""
        parts = cut_graph(original, sources), tap_graph(original, taps, sources)
        folded = (fold_batch_norms(part).to(device) for part in parts)
        return cls(*(lay_out(part) for part in folded))

    @torch.no_grad()
    def run_front(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of the student, for float32 images [N, C, H, W]."""
        given: tuple[Tensor, ...] = self.front(images)
        return given

    @torch.no_grad()
    def run_rest(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the tensor of each tap, for the inputs of the student."""
        found: tuple[Tensor, ...] = self.rest(*given)
        return found


def fold_batch_norms(gm: fx.GraphModule) -> fx.GraphModule:
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
