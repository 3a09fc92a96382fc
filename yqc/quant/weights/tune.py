"""Learning what rounding left open: levels, scales, tables and biases, all layers together.

The rounded graph is trained to compute what the float graph computes, on the calibration images and
without labels. The loss counts what is detected (`yqc.quant.relevance`) and, so that few
images do not teach it by heart, how far the last convolutions' outputs are off as a whole.

Levels learn through continuous stand-ins that begin in the middle of their level and whose rounding
is straight-through (Bengio et al. 2013; for scales: Esser et al., LSQ, ICLR 2020). A stand-in has
to travel half a level before anything changes, so what error feedback found is kept unless many
images agree that it is wrong.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from yqc.graph import Call, role
from yqc.progress import Progress
from yqc.quant.relevance import Layout, discrepancy
from yqc.quant.weights.gather import batched
from yqc.quant.weights.grid import Grid, half, positive
from yqc.quant.weights.outcome import Outcome
from yqc.quant.weights.walk import convolve


@dataclass(frozen=True)
class Rates:
    """Steps of Adam at the start; they fall to a twentieth along a cosine."""

    level: float = 0.02
    """Of a level's distance to the next."""
    scale: float = 1e-3
    """Of the scale itself."""
    bias: float = 2e-3
    """Of the output's deviation."""
    table: float = 1e-3
    """Of the largest entry."""
    whole: float = 10.0
    """How much the last convolutions' relative squared error counts."""


class Learned(nn.Module):
    """A convolution whose rounded weight can learn.

    Args:
        conv: the float convolution.
        outcome: how it was rounded.
        deviation: of each output channel, float32 [R].
    """

    def __init__(self, conv: nn.Conv2d, outcome: Outcome, deviation: Tensor) -> None:
        super().__init__()
        grid, levels = outcome.rounded.grid, outcome.rounded.levels
        self.conv, self.grid, self.shape = conv, grid, outcome.rounded.shape
        self.kind = outcome.rounded.scheme.kind
        units = grid.units(levels)
        gap = torch.ones(()) if grid.table is None else grid.table.diff(dim=1).mean()
        self.gap = gap
        self.units = nn.Parameter(units / gap)
        self.log_scale = nn.Parameter(torch.zeros_like(grid.scale))
        self.table = None if grid.table is None else nn.Parameter(grid.table.clone())
        self.deviation = deviation
        self.start = torch.zeros(len(units)) if outcome.bias is None else outcome.bias
        self.shift = nn.Parameter(torch.zeros(len(units)))
        self.begun = {name: t.detach().clone() for name, t in self.state_dict().items()}

    def levels(self) -> tuple[Tensor, Grid]:
        """Return the levels and the grid as they are now."""
        with torch.no_grad():
            grid = self._grid()
            wide = grid.spread(grid.scale, self.units.shape[1])
            return grid.nearest(self.units * self.gap * wide), grid

    def _grid(self) -> Grid:
        scale = positive(self.grid.scale * self.log_scale.exp())
        learned = self.table
        table = None if learned is None else half(learned.detach().clamp(-4, 4).sort(1).values)
        return replace(self.grid, scale=scale, table=table)

    def bias(self) -> Tensor:
        """Return the bias as it is now."""
        return self.start + self.shift * self.deviation

    def forward(self, x: Tensor) -> Tensor:
        """Compute the convolution with the weight rounded as it would be stored."""
        levels, grid = self.levels()
        if self.table is None:
            rounded = grid.units(levels)
        else:
            rounded = self.table.gather(1, levels.reshape(len(self.table), -1)).view(levels.shape)
        soft = self.units * self.gap
        units = rounded + soft - soft.detach()
        scale = self.grid.scale * self.log_scale.exp()
        weight = units * self.grid.spread(scale, units.shape[1])
        return convolve(x, self.conv, weight.view(self.shape), self.bias())


def tune(
    gm: fx.GraphModule,
    convs: Sequence[Call[nn.Conv2d]],
    outcomes: dict[fx.Node, Outcome],
    images: Sequence[Tensor],
    epochs: int,
    layout: Layout | None,
    progress: Progress,
    seed: int = 0,
    rates: Rates | None = None,
) -> dict[fx.Node, Outcome]:
    """Train the rounded graph to compute what the float graph computes.

    Args:
        gm: the float graph; it is only read.
        convs: the rounded convolutions.
        outcomes: of each of them.
        images: float32 [1, 3, H, W] each.
        epochs: how often every image is seen.
        layout: how the graph's output is laid out, None if it is no detector's.
        progress: shown a batch at a time.
        seed: of the order of images.
        rates: of learning.

    Returns:
        The outcomes with what was learned.
    """
    rates = rates or Rates()
    student = copy.deepcopy(gm)
    learned: dict[fx.Node, Learned] = {}
    for conv in convs:
        outcome = outcomes[conv.node]
        module = Learned(copy.deepcopy(conv.module), outcome, outcome.deviation)
        student.set_submodule(conv.target, module)
        learned[conv.node] = module
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.Adam(groups(learned.values(), rates), betas=(0.9, 0.95))
    size = min(4, len(batched(gm, images)[0]))
    generator = torch.Generator().manual_seed(seed)
    total = epochs * math.ceil(len(images) / size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / total))
    )
    teacher, pupil = Heads(gm), Heads(student)
    with progress.task("learning what is left", total) as advance, torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator).tolist()
            for first in range(0, len(order), size):
                batch = torch.cat([images[i].float() for i in order[first : first + size]])
                if torch.rand((), generator=generator) < 0.5:  # noqa: PLR2004  # a coin
                    batch = batch.flip(3)
                with torch.no_grad():
                    want = teacher.both(batch)
                got = pupil.both(batch)
                off = discrepancy(got[0], want[0], layout) + rates.whole * relative(got[1], want[1])
                optimizer.zero_grad()
                torch.autograd.backward(off)
                optimizer.step()
                schedule.step()
                advance(1)
    if not _better(teacher, pupil, learned.values(), images[: 2 * size], layout, rates):
        progress.note("learning made nothing better; what rounding found is kept")
        return outcomes
    result = {}
    for node, module in learned.items():
        levels, grid = module.levels()
        rounded = replace(outcomes[node].rounded, levels=levels, grid=grid)
        result[node] = replace(outcomes[node], rounded=rounded, bias=module.bias().detach())
    return result


def _better(
    teacher: "Heads",
    pupil: "Heads",
    learned: Iterable[Learned],
    images: Sequence[Tensor],
    layout: Layout | None,
    rates: Rates,
) -> bool:
    """Tell whether the trained graph is nearer to the float one than it was at the start."""
    batch = torch.cat([image.float() for image in images])
    modules = list(learned)

    def off() -> float:
        got = pupil.both(batch)
        return float(discrepancy(got[0], want[0], layout) + rates.whole * relative(got[1], want[1]))

    with torch.no_grad():
        want = teacher.both(batch)
        after = off()
        ended = [copy.deepcopy(module.state_dict()) for module in modules]
        for module in modules:
            module.load_state_dict(module.begun)
        before = off()
        for module, state in zip(modules, ended, strict=True):
            module.load_state_dict(state)
    return after < before


def groups(modules: Iterable[Learned], rates: Rates) -> list[dict[str, Any]]:
    """Make the optimiser's groups of parameters, and let these learn."""
    made: dict[str, list[nn.Parameter]] = {"level": [], "scale": [], "bias": [], "table": []}
    for module in modules:
        made["level"].append(module.units)
        made["scale"].append(module.log_scale)
        made["bias"].append(module.shift)
        if module.table is not None and module.kind == "codebook":  # others are what they are named
            made["table"].append(module.table)
    for parameters in made.values():
        for parameter in parameters:
            parameter.requires_grad_(True)
    return [{"params": p, "lr": getattr(rates, kind)} for kind, p in made.items() if p]


def relative(got: Sequence[Tensor], want: Sequence[Tensor]) -> Tensor:
    """Return the mean over tensors of the squared error relative to the variance."""
    parts = [
        (a - b).square().mean() / b.var().clamp(min=1e-12) for a, b in zip(got, want, strict=True)
    ]
    return torch.stack(parts).mean()


class Heads(fx.Interpreter):
    """Runs a graph; gives its output, and what the decoding reads (or the output's tensors)."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        last = [
            n
            for node in gm.graph.nodes
            if node.op != "output" and role(node) == "head.decode"
            for n in node.all_input_nodes
            if role(n) != "head.decode" and n.op != "get_attr"
        ]
        self.wanted = set(last or gm.graph.output_node().all_input_nodes)
        self.kept: list[Tensor] = []

    def both(self, batch: Tensor) -> tuple[object, list[Tensor]]:
        """Run a batch."""
        self.kept = []
        output = self.run(batch)
        return output, self.kept

    def run_node(self, n: fx.Node) -> object:
        """Run a node, and keep what it computes if it is wanted."""
        value = super().run_node(n)
        if n in self.wanted and isinstance(value, Tensor):
            self.kept.append(value.clone())
        return value
