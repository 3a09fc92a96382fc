"""Which values of a detector matter to what it detects: the Gauss-Newton curvature, sampled.

How much the detections change when the output y of a convolution changes by e is, to second order,
e^T J^T D J e, with J the Jacobian of the detections by y and D the weight of each detection's
number. Only the diagonal of J^T D J is kept (Li et al., BRECQ, 2021). One backward pass a batch of
images estimates it without bias: with v = sqrt(D) r and r random signs, E[(J^T v)^2] is that
diagonal (Hutchinson 1989).

D counts a score s by its squared change, and a box by the squared change of its edges relative to
its size, times its score squared. So a background position counts next to nothing, whatever its
box.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

BOX = 4
"""Numbers of a box."""
FLOOR = 0.1
"""Share of the weight that is spread evenly over all positions."""


@dataclass
class Stakes:
    """What the outputs of one convolution are worth."""

    energy: Tensor
    """Mean squared derivative of each output channel, float32 [O]."""
    seen: int = 0
    """How many batches of images it is the mean of."""
    positions: list[Tensor] = field(default_factory=list)
    """Of each batch: where the inputs are sampled, int64 [N, K], flat output positions."""
    weights: list[Tensor] = field(default_factory=list)
    """Of each batch: how much each sample counts, float32 [N, K]; their mean is about one."""


def stakes(
    gm: fx.GraphModule,
    nodes: Iterable[fx.Node],
    batches: Iterable[Tensor],
    samples: Callable[[fx.Node], int],
    generator: torch.Generator,
) -> dict[fx.Node, Stakes]:
    """Measure the stakes of convolutions' outputs, and choose where to sample their inputs.

    Args:
        gm: the float graph.
        nodes: its convolutions.
        batches: images, float32 [N, 3, H, W].
        samples: how many positions an image to sample for a node.
        generator: of random signs and positions.
    """
    found = {node: Stakes(torch.zeros(())) for node in nodes}
    flags = [(p, p.requires_grad) for p in gm.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        for batch in batches:
            probe = _Probe(gm, found, samples, generator)
            with torch.enable_grad():
                outputs = probe.run(batch.float().clone().requires_grad_(True))
                torch.autograd.backward(worth(outputs, generator))
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    return found


class _Probe(fx.Interpreter):
    def __init__(
        self,
        gm: fx.GraphModule,
        found: dict[fx.Node, Stakes],
        samples: Callable[[fx.Node], int],
        generator: torch.Generator,
    ) -> None:
        super().__init__(gm)
        self.found, self.samples, self.generator = found, samples, generator

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n in self.found and isinstance(value, Tensor):
            value.register_hook(lambda gradient: self._note(n, gradient))  # type: ignore[no-untyped-call]
        return value

    def _note(self, node: fx.Node, gradient: Tensor) -> None:
        stake = self.found[node]
        squared = gradient.detach().square().flatten(2)
        mean = squared.mean((0, 2))
        stake.seen += 1
        stake.energy = stake.energy + (mean - stake.energy) / stake.seen
        relative = (squared / stake.energy.clamp(min=1e-30).view(1, -1, 1)).mean(1)
        weight = (1 - FLOOR) * relative + FLOOR
        count = min(self.samples(node), weight.shape[1])
        chance = 0.5 * weight / weight.mean(1, keepdim=True) + 0.5
        at = torch.multinomial(chance, count, generator=self.generator)
        picked = weight.gather(1, at) / chance.gather(1, at)
        stake.positions.append(at)
        stake.weights.append(picked)


def evenly(shape: tuple[int, ...], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose positions at random, all alike: int64 [N, K] and float32 [N, K] of ones.

    Args:
        shape: of the output, [N, O, H, W].
        count: K, at most H * W.
        generator: of the choice.
    """
    places = shape[2] * shape[3]
    count = min(count, places)
    at = torch.stack([torch.randperm(places, generator=generator)[:count] for _ in range(shape[0])])
    return at, torch.ones(at.shape)


def worth(outputs: object, generator: torch.Generator) -> Tensor:
    """Return a random weighted sum of a detector's outputs, whose gradient has E[g^2] = diag."""
    total = torch.zeros(())
    for y in _tensors(outputs):
        weight = importance(y.detach()).sqrt()
        signs = torch.randint(0, 2, y.shape, generator=generator) * 2 - 1
        total = total + (y * weight * signs).sum()
    return total


def loss(outputs: object, reference: object) -> Tensor:
    """Return the weighted squared difference of two graphs' outputs, an image."""
    total = torch.zeros(())
    for y, want in zip(_tensors(outputs), _tensors(reference), strict=True):
        total = total + (importance(want) * (y - want).square()).sum() / len(y)
    return total


def importance(y: Tensor) -> Tensor:
    """Return D, the weight of each number that a detector puts out; of y's shape.

    Decoded detections are [N, A, 5 + nc] (with objectness), [N, 4 + nc, A], or [N, K, 6]; anything
    else counts evenly.
    """
    if y.ndim != 3 or min(y.shape[1:]) <= BOX:  # noqa: PLR2004  # [N, ., .]
        return torch.full_like(y, 1.0 / max(y[:1].numel(), 1))
    rows = y if y.shape[1] > y.shape[2] else y.transpose(1, 2)
    scores = rows[..., BOX:].clamp(0, 1)
    joint = y.shape[1] > y.shape[2] and scores.shape[2] > 1
    if joint:  # objectness times class
        thing, kinds = scores[..., :1], scores[..., 1:]
        best = thing * kinds.amax(2, keepdim=True)
        of_scores = torch.cat(
            [kinds.square().amax(2, keepdim=True), thing.square().expand_as(kinds)], 2
        )
    else:
        best = scores.amax(2, keepdim=True)
        of_scores = torch.ones_like(scores)
    size = rows[..., 2:BOX].clamp(min=1.0)
    of_boxes = (best / torch.cat([size, size], 2)).square()
    weight = torch.cat([of_boxes, of_scores], 2)
    return weight if y.shape[1] > y.shape[2] else weight.transpose(1, 2)


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in _tensors(item)]
    return []
