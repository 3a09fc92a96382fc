"""Measure channels on calibration images: covariances of tensors, relevance of outputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from yqc.graph import callers, compute_node, run_graph
from yqc.graph.channels.sets import Channels
from yqc.graph.run import NodeFunction, NodeValues
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
    """Return the channels, on axis `dim`, at `limit` random positions or fewer: [positions, C]."""
    x = x.unsqueeze(-1).movedim(dim, -1).flatten(1, -2)
    each = max(1, limit // len(x))
    if x.shape[1] > each:
        x = x.index_select(1, torch.randperm(x.shape[1], generator=generator)[:each])
    return x.flatten(0, 1)


class MomentsCollector:
    """Adds up the moments of the tensors that consumers read, at `limit` positions per batch."""

    def __init__(self, gm: fx.GraphModule, channels: Channels, seed: int, limit: int) -> None:
        sources = [node.all_input_nodes[0] for node in consumers(gm, channels)]
        self.gm, self.limit = gm, limit
        self.dims = {source: channels.axes[source].dim for source in sources}
        self.generator = torch.Generator().manual_seed(seed)
        self.shifts: dict[fx.Node, Tensor] = {}
        self.sums: dict[fx.Node, Tensor] = {}
        self.squares: dict[fx.Node, Tensor] = {}
        self.counts: dict[fx.Node, int] = {}

    def run(self, images: Tensor) -> None:
        """Run the graph on float32 [N,C,H,W] and add its tensors."""
        inputs = [node for node in self.gm.graph.nodes if node.op == "placeholder"]
        for node in inputs:
            self._add(node, images)
        inner = self.dims.keys() - set(inputs)
        replace: dict[fx.Node, NodeFunction] = dict.fromkeys(inner, self._compute)
        run_graph(self.gm, [images], replace=replace)

    def _compute(self, node: fx.Node, values: NodeValues) -> object:
        value = compute_node(self.gm, node, values)
        self._add(node, value)
        return value

    def _add(self, node: fx.Node, value: object) -> None:
        if node not in self.dims or not isinstance(value, Tensor):
            return
        rows = sample_rows(value, self.dims[node], self.limit, self.generator)
        rows = rows - self.shifts.setdefault(node, rows.mean(0))  # a large mean would cost digits
        self.sums[node] = self.sums.get(node, 0) + rows.double().sum(0)
        self.squares[node] = self.squares.get(node, 0) + (rows.T @ rows).double()
        self.counts[node] = self.counts.get(node, 0) + len(rows)

    def moments(self) -> dict[fx.Node, ChannelMoments]:
        """Return the moments over all images."""
        found: dict[fx.Node, ChannelMoments] = {}
        for node, total in self.sums.items():
            mean = total / self.counts[node]
            covariance = self.squares[node] / self.counts[node] - torch.outer(mean, mean)
            found[node] = ChannelMoments(mean + self.shifts[node].double(), covariance)
        return found


def measure_moments(
    gm: fx.GraphModule, channels: Channels, images: Sequence[Tensor], seed: int
) -> dict[fx.Node, ChannelMoments]:
    """Return the moments of every tensor that a consumer reads, on float32 images [N,C,H,W]."""
    limit = max(256, SAMPLES // max(1, len(images)))
    collector = MomentsCollector(gm, channels, seed, limit)
    with torch.no_grad():
        for image in images:
            collector.run(image)
    return collector.moments()


def run_head(
    gm: fx.GraphModule, heads: Sequence[Tap], images: Tensor, keep: Sequence[fx.Node] = ()
) -> tuple[dict[str, Tensor], dict[fx.Node, Tensor]]:
    """Run a graph on float32 [N,C,H,W] up to the raw outputs of its head.

    Returns:
        The outputs by the names of their taps, and the values of `keep`.
    """
    nodes = {node.name: node for node in gm.graph.nodes}
    outputs = {tap.name: nodes[tap.name] for tap in heads}
    values = run_graph(gm, [images], keep=[*keep, *outputs.values()])
    return {name: values[node] for name, node in outputs.items()}, {n: values[n] for n in keep}


def backpropagate(
    gm: fx.GraphModule, taps: Sequence[fx.Node], images: Sequence[Tensor], seed: int
) -> Iterator[dict[fx.Node, Tensor]]:
    """Yield, for each batch, the gradients of random projections of the head.

    Each image has a random projection of its own (`probes`). The gradients are those of the taps;
    without taps, those of the weights, which stand in the modules.
    """
    generator = torch.Generator().manual_seed(seed)
    heads = head_taps(gm)
    for batch in images:
        gm.zero_grad(set_to_none=True)
        with torch.enable_grad():
            head, tapped = run_head(gm, heads, batch.clone().requires_grad_(), taps)
            probes = [
                project_head(heads, {k: v[i : i + 1] for k, v in head.items()}, generator)
                for i in range(len(batch))
            ]
            torch.autograd.backward(probes, inputs=list(tapped.values()) or None)
        yield {node: value.grad for node, value in tapped.items() if value.grad is not None}
    gm.zero_grad(set_to_none=True)


def measure_relevance(
    gm: fx.GraphModule, channels: Channels, images: Sequence[Tensor], seed: int
) -> dict[fx.Node, Tensor]:
    """Measure the relevance of each output channel of each consumer: float64 [O].

    It is the squared gradient of a random projection of the head with respect to the channel,
    summed over positions and averaged over images, float32 [N,C,H,W]: the diagonal of the
    Gauss-Newton curvature of the distillation loss.
    """
    taps, count = consumers(gm, channels), sum(map(len, images))
    found: dict[fx.Node, Tensor] = {}
    for gradients in backpropagate(gm, taps, images, seed):
        for node, gradient in gradients.items():
            dim = gradient.ndim - 1 if is_linear(gm, node) else 1
            squares = gradient.double().square().movedim(dim, -1).flatten(0, -2).sum(0)
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
