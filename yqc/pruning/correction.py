"""Correct the weights of a pruned graph so that its tensors come close to the original ones.

Both graphs run side by side on calibration images, node by node. Where a convolution reads y in the
pruned graph and x in the whole one, x is estimated linearly from y,

    x = S y + D y + rest,   D = Cov(x - S y, y) (Cov(y, y) + ridge)^-1

with S putting the kept channels in their places, and the weight W becomes W S + W D: the least
squares of He et al. (Channel Pruning, ICCV 2017), from inputs that hold the errors of all layers
before. The remaining error of the mean goes into the bias, or into the running mean
of the batch norm behind.
"""

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.modules.conv import _ConvNd

from yqc.graph import compute_node, last_uses
from yqc.graph.channels.sets import Axis, Channels
from yqc.pruning.statistics import SAMPLES, correctable, is_linear, sample_rows
from yqc.pruning.surgery import Keep, kept_positions
from yqc.pruning.without_data import add_to_bias
from yqc.quant import cholesky_with_ridge
from yqc.training.heads import head_taps
from yqc.training.losses import distance

RIDGE = 1e-2
"""Share of the mean variance that is added to every variance. On a YOLOv8n of 320 px with 60 % of
its parameters removed, the distance of the head on the images of the correction is 0.0049; with
half of it 0.0048, with double 0.0051. Less of it fits these images more and others less."""


class Correction:
    """Runs two graphs, `whole` and `pruned`, side by side and corrects the second in place."""

    def __init__(
        self,
        whole: fx.GraphModule,
        pruned: fx.GraphModule,
        channels: Channels,
        keep: Keep,
        seed: int,
    ) -> None:
        self.whole, self.pruned = whole, pruned
        self.channels, self.keep = channels, keep
        self.partner = dict(zip(whole.graph.nodes, pruned.graph.nodes, strict=True))
        self.readers = set(correctable(whole, channels))
        self.heads = head_taps(whole)
        self.generator = torch.Generator().manual_seed(seed)
        self.answers: dict[str, tuple[Tensor, Tensor]] = {}
        self.changes: dict[fx.Node, Tensor | None] = {}  # several consumers may read one tensor

    def run(self, images: Tensor) -> float:
        """Correct on images, float32 [N,3,H,W]; return the `distance` of the head's outputs."""
        graph = self.whole.graph
        finished = last_uses(graph.nodes)
        before: dict[fx.Node, Any] = {}
        after: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for node in graph.nodes:
                if node.op == "output":
                    break
                self.step(node, before, after, images)
                for source in finished[node]:
                    del before[source], after[self.partner[source]]
                    self.changes.pop(source, None)
        answers = [self.answers[tap.name] for tap in self.heads]
        wanted, given = [x for x, _ in answers], [y for _, y in answers]
        return float(distance(self.heads, given, wanted, 0.0))

    def step(
        self, node: fx.Node, before: dict[fx.Node, Any], after: dict[fx.Node, Any], images: Tensor
    ) -> None:
        """Run one node in both graphs; correct it first if it reads removable channels."""
        twin = self.partner[node]
        if node.op == "placeholder":
            before[node] = after[twin] = images
            return
        x = before[node] = compute_node(self.whole, node, before)
        if node in self.readers:
            source = node.all_input_nodes[0]
            self.correct(node, before[source], after[self.partner[source]])
        y = compute_node(self.pruned, twin, after)
        y = after[twin] = self.shift(node, x, y) if node in self.readers else y
        if any(tap.name == node.name for tap in self.heads):
            self.answers[node.name] = (x, y)

    def correct(self, node: fx.Node, x: Tensor, y: Tensor) -> None:
        """Correct the weight of one consumer, from its inputs in both graphs."""
        module = self.whole.get_submodule(str(node.target))
        if isinstance(module, _ConvNd) and (module.transposed or module.groups > 1):
            return
        source = node.all_input_nodes[0]
        axis = self.channels.axes[source]
        if source not in self.changes:
            self.changes[source] = self.estimate_rest(x, y, axis)
        change = self.changes[source]
        if change is None:
            return
        stay = kept_positions(axis.ids, self.keep)
        weight = self.whole.get_parameter(f"{node.target}.weight").detach()
        weight = weight[:, stay] + torch.einsum("oi...,ij->oj...", weight, change)
        made = self.channels.slot(str(node.target), "out")
        if made is not None:
            weight = weight[kept_positions(made.ids, self.keep)]
        self.pruned.get_parameter(f"{node.target}.weight").copy_(weight)

    def estimate_rest(self, x: Tensor, y: Tensor, axis: Axis) -> Tensor | None:
        """Return D, which estimates the rest of x from y: float32 [channels of x, of y].

        None where there is no rest.
        """
        dim, stay = axis.dim, kept_positions(axis.ids, self.keep)
        state = self.generator.get_state()
        wide = sample_rows(x, dim, SAMPLES, self.generator)
        self.generator.set_state(state)  # the same positions in both
        narrow = sample_rows(y, dim, SAMPLES, self.generator)
        if torch.equal(wide, narrow):
            return None
        wide, narrow = wide - wide.mean(0), narrow - narrow.mean(0)
        second, mixed = (narrow.T @ narrow).double(), (narrow.T @ wide).double()
        mixed[:, stay] -= second  # x without S y
        return torch.cholesky_solve(mixed, cholesky_with_ridge(second, RIDGE)).T.float()

    def shift(self, node: fx.Node, x: Tensor, y: Tensor) -> Tensor:
        """Move the remaining error of the mean into bias or batch norm; return the output."""
        dim = y.ndim - 1 if is_linear(self.whole, node) else 1
        others = [d for d in range(y.ndim) if d != dim]
        wanted, made = x.mean(others), self.channels.axes.get(node)
        if made is not None:
            wanted = wanted[kept_positions(made.ids, self.keep)]
        error = wanted - y.mean(others)
        if not add_to_bias(self.pruned, self.partner[node], error):
            return y
        sizes = [1] * y.ndim
        sizes[dim] = -1
        return y + error.view(sizes)
