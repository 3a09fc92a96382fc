"""Where to sample what convolutions see, and what their output channels are worth.

What a place of an output is worth is its relevance to the detections (`yqc.quant.relevance`): only
few places decide what is detected, so samples are taken there more often, and count for more. Of
each channel's relevance the mean is kept, for choosing between layers. Counting places evenly is
the diagonal of the Gauss-Newton matrix without its places (Li et al., BRECQ, ICLR 2021).
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from yqc.quant.relevance import Layout, relevance

FLOOR = 0.1
"""Share of the weight that is spread evenly over all positions."""


@dataclass
class Stakes:
    """What the outputs of one convolution are worth."""

    energy: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Mean squared derivative of each output channel, float32 [O]."""
    seen: int = 0
    """How many batches of images it is the mean of."""
    positions: list[Tensor] = field(default_factory=list)
    """Of each batch: where the inputs are sampled, int64 [N, K], flat output positions."""
    weights: list[Tensor] = field(default_factory=list)
    """Of each batch: how much each sample counts, float32 [N, K]; their mean is about one."""

    def add(self, squared: Tensor, count: int, generator: torch.Generator) -> None:
        """Add a batch.

        Args:
            squared: relevance of the outputs, float32 [N, O, H * W].
            count: how many positions an image to sample; all if there are fewer.
            generator: of the choice.
        """
        self.seen += 1
        self.energy = self.energy + (squared.mean((0, 2)) - self.energy) / self.seen
        relative = (squared / self.energy.clamp(min=1e-30).view(1, -1, 1)).mean(1)
        weight = (1 - FLOOR) * relative + FLOOR
        chance = 0.5 * weight / weight.mean(1, keepdim=True) + 0.5
        at = torch.multinomial(chance, min(count, weight.shape[1]), generator=generator)
        self.positions.append(at)
        self.weights.append(weight.gather(1, at) / chance.gather(1, at))


def stakes(
    gm: fx.GraphModule,
    nodes: Collection[fx.Node],
    batches: Iterable[Tensor],
    layout: Layout | None,
    samples: Callable[[fx.Node], int],
    seed: int = 0,
) -> dict[fx.Node, Stakes]:
    """Measure the stakes of convolutions' outputs, and choose where to sample their inputs.

    Args:
        gm: the float graph.
        nodes: its convolutions.
        batches: images, float16 or float32 [N, 3, H, W].
        layout: how the graph's output is laid out, None if it is no detector's.
        samples: how many positions an image to sample for a node.
        seed: of random projections and positions.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {node: Stakes() for node in nodes}
    for batch in relevance(gm, nodes, (b.float() for b in batches), layout, seed):
        for node, (_, squared) in batch.items():
            found[node].add(squared.flatten(2), samples(node), generator)
        batch.clear()  # before the next one is computed
    return found
