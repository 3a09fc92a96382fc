"""Measure channels on calibration images: covariances of tensors, relevance of outputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from yqc.graph import callers
from yqc.graph.channels.sets import Channels
from yqc.pruning.probes import project_head
from yqc.training.heads import Tap, head_taps

SAMPLES = 8192
"""Largest number of positions of a tensor that are sampled, over all images. On a YOLOv8n of 320 px
with 60 % of its parameters removed, the distance of the head is 0.0049; with half of the samples
0.0050, with double 0.0048."""


@dataclass
class ChannelMoments:
    """Mean and covariance of a tensor's channels, float64 [C] and [C, C]."""

    mean: Tensor
    covariance: Tensor


def consumers(gm: fx.GraphModule, channels: Channels) -> list[fx.Node]:
    """List the calls of convolutions and linear layers that read channels with a slot."""
    reading = {s.target for s in channels.slots if s.side == "in"}
    return [n for n in gm.graph.nodes if n.op == "call_module" and str(n.target) in reading]


def correctable(gm: fx.GraphModule, channels: Channels) -> list[fx.Node]:
    """List the consumers whose weights may be corrected: those that are called once."""
    return [n for n in consumers(gm, channels) if callers(gm, n.target) == 1]


def sample_rows(x: Tensor, dim: int, limit: int, generator: torch.Generator) -> Tensor:
    """Return a tensor's channels at some positions: [positions, C].

    Args:
        x: any tensor, images on axis 0, channels on axis `dim`.
        dim: the axis.
        limit: largest number of positions.
        generator: chooses them.
    """
    x = x.unsqueeze(-1).movedim(dim, -1).flatten(1, -2)
    each = max(1, limit // len(x))
    if x.shape[1] > each:
        x = x.index_select(1, torch.randperm(x.shape[1], generator=generator)[:each])
    return x.flatten(0, 1)


class MomentsCollector(fx.Interpreter):
    """Runs a graph on images and adds up the moments of the tensors that consumers read."""

    def __init__(self, gm: fx.GraphModule, channels: Channels, seed: int) -> None:
        super().__init__(gm)
        self.wanted = {
            node.all_input_nodes[0]: channels.axes[node.all_input_nodes[0]].dim
            for node in consumers(gm, channels)
        }
        self.generator = torch.Generator().manual_seed(seed)
        self.limit = SAMPLES
        self.shifts: dict[fx.Node, Tensor] = {}
        self.sums: dict[fx.Node, Tensor] = {}
        self.squares: dict[fx.Node, Tensor] = {}
        self.counts: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:
        """Run a node and add its value to the moments."""
        value = super().run_node(n)
        if n in self.wanted and isinstance(value, Tensor):
            rows = sample_rows(value, self.wanted[n], self.limit, self.generator)
            rows = rows - self.shifts.setdefault(
                n, rows.mean(0)
            )  # squares of a large mean would lose digits
            self.sums[n] = self.sums.get(n, 0) + rows.double().sum(0)
            self.squares[n] = self.squares.get(n, 0) + (rows.T @ rows).double()
            self.counts[n] = self.counts.get(n, 0) + len(rows)
        return value


def measure_moments(
    gm: fx.GraphModule, channels: Channels, images: Sequence[Tensor], seed: int
) -> dict[fx.Node, ChannelMoments]:
    """Return the moments of every tensor that a consumer reads.

    Args:
        gm: the graph.
        channels: its channels.
        images: float32 [N,3,H,W] each, of the same N but the last.
        seed: chooses positions.
    """
    collector = MomentsCollector(gm, channels, seed)
    collector.limit = max(256, SAMPLES // max(1, len(images)))
    with torch.no_grad():
        for image in images:
            collector.run(image)
    found: dict[fx.Node, ChannelMoments] = {}
    for node, total in collector.sums.items():
        mean = total / collector.counts[node]
        second = collector.squares[node] / collector.counts[node]
        covariance = second - torch.outer(mean, mean)
        found[node] = ChannelMoments(mean + collector.shifts[node].double(), covariance)
    return found


class Recorder(fx.Interpreter):
    """Runs a graph and keeps the values of chosen nodes, with gradients."""

    def __init__(self, gm: fx.GraphModule, heads: Sequence[Tap], taps: Sequence[fx.Node]) -> None:
        super().__init__(gm)
        self.heads, self.taps = {tap.name for tap in heads}, set(taps)
        self.head: dict[str, Tensor] = {}
        self.tapped: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        """Run a node and keep its value."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            if n in self.taps:
                value.retain_grad()
                self.tapped[n] = value
            if n.name in self.heads:
                self.head[n.name] = value
        return value


def backpropagate(
    gm: fx.GraphModule, taps: Sequence[fx.Node], images: Sequence[Tensor], seed: int
) -> Iterator[Recorder]:
    """Yield, for each batch, the recorded run of a graph after one backward pass from projections.

    Each image has a random projection of its own (`probes`). The gradients are those of the taps;
    without taps, of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    heads = head_taps(gm)
    for batch in images:
        gm.zero_grad(set_to_none=True)
        run = Recorder(gm, heads, taps)
        with torch.enable_grad():
            run.run(batch.clone().requires_grad_())
            probes = [
                project_head(heads, head, generator) for head in split_batch(run.head, len(batch))
            ]
            torch.autograd.backward(probes, inputs=list(run.tapped.values()) or None)
        yield run
    gm.zero_grad(set_to_none=True)


def split_batch(head: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Split the head's outputs for a batch of `count` images into those of each image."""
    if count == 1:
        return [head]
    return [{name: value[i : i + 1] for name, value in head.items()} for i in range(count)]


def measure_relevance(
    gm: fx.GraphModule, channels: Channels, images: Sequence[Tensor], seed: int
) -> dict[fx.Node, Tensor]:
    """Measure the relevance of each output channel of each consumer: float64 [O].

    It is the squared gradient of a random projection of the head with respect to the channel,
    summed over positions and averaged over images: the diagonal of the Gauss-Newton curvature of
    the distillation loss.

    Args:
        gm: the graph.
        channels: its channels.
        images: float32 [N,3,H,W] each.
        seed: chooses the projections.
    """
    taps, count = consumers(gm, channels), sum(map(len, images))
    found: dict[fx.Node, Tensor] = {}
    for run in backpropagate(gm, taps, images, seed):
        for node, value in run.tapped.items():
            if value.grad is not None:
                dim = value.ndim - 1 if is_linear(gm, node) else 1
                squares = value.grad.double().square().movedim(dim, -1).flatten(0, -2).sum(0)
                found[node] = found.get(node, 0) + squares / count
    return found


def is_linear(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node calls a linear layer."""
    return isinstance(gm.get_submodule(str(node.target)), nn.Linear)


def full_weight(gm: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """Return a consumer's weight as [O, I, taps], float64; grouped ones with zeros between groups.

    None for a transposed convolution with groups.
    """
    module = gm.get_submodule(str(node.target))
    if isinstance(module, nn.Linear):
        return module.weight.detach().double().unsqueeze(2)
    if not isinstance(module, _ConvNd):
        return None
    weight = module.weight.detach().double().flatten(2)
    if module.transposed:
        return weight.transpose(0, 1) if module.groups == 1 else None
    if module.groups == 1:
        return weight
    groups, (rows, columns, taps) = module.groups, weight.shape
    whole = weight.new_zeros(rows, columns * groups, taps)
    for g in range(groups):
        part = slice(g * rows // groups, (g + 1) * rows // groups)
        whole[part, g * columns : (g + 1) * columns] = weight[part]
    return whole
