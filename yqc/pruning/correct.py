"""Correcting a pruned graph's weights so that its tensors come close to what they were.

Both graphs run side by side on calibration images, node by node. Where a convolution reads y in the
pruned graph and x in the whole one, x is guessed linearly from y,

    x = S y + D y + rest,   D = Cov(x - S y, y) (Cov(y, y) + ridge)^-1

with S putting the kept channels in their places, and the weight W becomes W S + W D: the least
squares of He et al. (Channel Pruning, ICCV 2017), a channel at a time, from inputs that hold the
errors of all layers before. What is left of the mean goes into the bias, or into the running mean
of the batch norm behind.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg
from torch.nn.modules.conv import _ConvNd

from yqc.graph.channels.sets import Axis, Channels
from yqc.pruning.statistics import SAMPLES, correctable, factor, is_linear, rows_of
from yqc.pruning.surgery import Keep, kept
from yqc.pruning.without_data import add_to_bias
from yqc.training.heads import head_taps
from yqc.training.losses import distance

RIDGE = 1e-2
"""Share of the mean variance that is added to every variance."""


class Sweep:
    """Runs two graphs side by side, and corrects the second on the way.

    Args:
        whole: the graph before its channels went; not changed.
        pruned: the same after; corrected in place.
        channels: of `whole`.
        keep: what stays.
        seed: chooses positions.
    """

    def __init__(
        self,
        whole: fx.GraphModule,
        pruned: fx.GraphModule,
        channels: Channels,
        keep: Keep,
        seed: int,
    ) -> None:
        self.whole, self.pruned = fx.Interpreter(whole), fx.Interpreter(pruned)
        self.channels, self.keep = channels, keep
        self.partner = dict(zip(whole.graph.nodes, pruned.graph.nodes, strict=True))
        self.readers = set(correctable(whole, channels))
        self.heads = head_taps(whole)
        self.generator = torch.Generator().manual_seed(seed)
        self.answers: dict[str, tuple[Tensor, Tensor]] = {}
        self.guesses: dict[fx.Node, Tensor | None] = {}  # several consumers may read one tensor

    def run(self, images: Tensor) -> float:
        """Correct the pruned graph on images, float32 [N,3,H,W].

        Returns:
            How far the head's outputs are from what they were (`yqc.training.losses.distance`).
        """
        graph: fx.Graph = self.whole.graph
        finished = last_uses(graph)
        before: dict[fx.Node, Any] = {}
        after: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for node in graph.nodes:
                if node.op == "output":
                    break
                self.step(node, before, after, images)
                for source in finished.get(node, ()):
                    del before[source], after[self.partner[source]]
                    self.guesses.pop(source, None)
        answers = [self.answers[tap.name] for tap in self.heads]
        wanted, given = [x for x, _ in answers], [y for _, y in answers]
        return float(distance(self.heads, given, wanted, 0.0))

    def step(
        self, node: fx.Node, before: dict[fx.Node, Any], after: dict[fx.Node, Any], images: Tensor
    ) -> None:
        """Run one node in both graphs; correct it first if it reads channels that can go."""
        twin = self.partner[node]
        if node.op == "placeholder":
            before[node] = after[twin] = images
            return
        x = before[node] = compute(self.whole, node, before)
        if node in self.readers:
            source = node.all_input_nodes[0]
            self.correct(node, before[source], after[self.partner[source]])
        y = compute(self.pruned, twin, after)
        y = after[twin] = self.shift(node, x, y) if node in self.readers else y
        if any(tap.name == node.name for tap in self.heads):
            self.answers[node.name] = (x, y)

    def correct(self, node: fx.Node, x: Tensor, y: Tensor) -> None:
        """Correct the weight of one consumer, from its inputs in both graphs."""
        before = self.whole.fetch_attr(str(node.target))
        after = self.pruned.fetch_attr(str(node.target))
        if isinstance(before, _ConvNd) and (before.transposed or before.groups > 1):
            return
        source = node.all_input_nodes[0]
        axis = self.channels.axes[source]
        if source not in self.guesses:
            self.guesses[source] = self.guess(x, y, axis)
        change = self.guesses[source]
        if change is None:
            return
        stay = kept(axis.ids, self.keep)
        weight = before.weight.detach()
        weight = weight[:, stay] + torch.einsum("oi...,ij->oj...", weight, change)
        made = self.channels.slot(str(node.target), "out")
        after.weight.copy_(weight if made is None else weight[kept(made.ids, self.keep)])

    def guess(self, x: Tensor, y: Tensor, axis: Axis) -> Tensor | None:
        """Return D: how the rest of x follows from y, float32 [channels of x, of y].

        None where there is no rest.
        """
        dim, stay = axis.dim, kept(axis.ids, self.keep)
        state = self.generator.get_state()
        wide = rows_of(x, dim, SAMPLES, self.generator)
        self.generator.set_state(state)  # the same positions of both
        narrow = rows_of(y, dim, SAMPLES, self.generator)
        if torch.equal(wide, narrow):
            return None
        wide, narrow = wide - wide.mean(0), narrow - narrow.mean(0)
        second, mixed = (narrow.T @ narrow).double(), (narrow.T @ wide).double()
        mixed[:, stay] -= second  # what y itself says of x
        return torch.cholesky_solve(mixed, factor(second, RIDGE)).T.float()

    def shift(self, node: fx.Node, x: Tensor, y: Tensor) -> Tensor:
        """Put what is left of the mean into the bias or the norm behind; return the output."""
        whole, pruned = self.whole.module, self.pruned.module
        dim = y.ndim - 1 if is_linear(whole, node) else 1  # type: ignore[arg-type]
        others = [d for d in range(y.ndim) if d != dim]
        wanted, made = x.mean(others), self.channels.axes.get(node)
        error = (wanted if made is None else wanted[kept(made.ids, self.keep)]) - y.mean(others)
        if not add_to_bias(pruned, self.partner[node], error):  # type: ignore[arg-type]
            return y
        sizes = [1] * y.ndim
        sizes[dim] = -1
        return y + error.view(sizes)


def last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Return, for each node, what nothing behind it reads."""
    found: dict[fx.Node, list[fx.Node]] = {}
    seen: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        for source in node.all_input_nodes:
            if source not in seen:
                seen.add(source)
                found.setdefault(node, []).append(source)
    return found


def compute(run: fx.Interpreter, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:  # noqa: ANN401
    """Compute one node."""
    args = map_arg(node.args, values.__getitem__)
    kwargs = map_arg(node.kwargs, values.__getitem__)
    return getattr(run, node.op)(node.target, args, kwargs)
