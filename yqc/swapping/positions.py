"""Draw positions of tensors by their relevance to the detections."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx

from yqc.facts import Layout
from yqc.quantizing import measure_node_relevance

SAMPLES = 16384
UNIFORM = 0.5


def measure_positions(
    gm: fx.GraphModule,
    dims: Mapping[fx.Node, int],
    images: Iterable[Tensor],
    layout: Layout | None,
    seed: int,
) -> dict[fx.Node, list[Tensor]]:
    """Measure the relevance of each position of what nodes compute.

    Args:
        gm: the graph.
        dims: the channels' axis of each node.
        images: float32 [1, C, H, W] each.
        layout: that of the graph's output.
        seed: of the random projections.

    Returns:
        For each node and image, the square root of the relevance summed over channels, flat.
    """
    found: dict[fx.Node, list[Tensor]] = {node: [] for node in dims}
    for measured in measure_node_relevance(gm, dims, images, layout, seed):
        for node, (_, relevance) in measured.items():
            found[node].append(relevance.sum(dims[node]).sqrt().flatten())
    return found


def draw_positions(relevance: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Draw positions, with return, half of them evenly and half by relevance.

    Takes the relevance of each image's positions; returns those of each image, int64, rising.
    """
    flat = torch.cat(relevance).double()
    total = flat.sum()
    even = UNIFORM / len(flat)
    chance = even + (1 - UNIFORM) * flat / total if total > 0 else torch.full_like(flat, 1.0)
    edges = chance.cumsum(0)
    at = torch.rand(SAMPLES, generator=generator, dtype=torch.float64).sort().values * edges[-1]
    chosen = torch.searchsorted(edges, at).clamp_(max=len(flat) - 1)
    ends = torch.tensor([len(r) for r in relevance]).cumsum(0)
    owner = torch.searchsorted(ends, chosen, right=True)
    starts = ends - torch.tensor([len(r) for r in relevance])
    return [chosen[owner == i] - starts[i] for i in range(len(relevance))]
