"""How a graph is trained: what is chosen before the first step, and what came out of the last."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from yqc.errors import PipelineError

RATE = 1e-3
"""Highest learning rate that is chosen."""
STEADY = 4.0
"""The chosen rate is so many times that at which AdamW's first step moves a graph as far as it is
from its original: few steps go in one direction, and the average forgets the rest."""
MOVED = 0.1
"""However far a graph is from its original, one step is to move it by no more than this. One that
is farther has the longer way to go: its rate grows with the root of that."""
FAR = 4.0
"""With SGD, a graph that is so far from its original, or farther, gets the highest rate."""
CLOSE = 2.0
"""A graph that is not this far from its original is close to it."""
LEAST = 0.005
"""A graph that is close to its original gets this part of the highest rate, at least."""
WARMUP = 20
"""Steps over which the learning rate rises; how long all takes is told from them, too."""


@dataclass(frozen=True)
class Plan:
    """How to distil. One of `steps`, `epochs` and `seconds` says how long; steps go first.

    Raises:
        PipelineError: a number is out of its range.
    """

    steps: int | None = None
    epochs: float | None = None
    """Times through the images."""
    seconds: float | None = None
    """Turned into a number of steps once the first of them have been timed."""
    batch: int = 4
    """Images a step: on a CPU, many small steps learn more in the same time."""
    imgsz: tuple[int, int] | None = None
    """Height and width in pixels; by default what the graph was traced for."""
    lr: float | None = None
    """Highest learning rate; by default chosen by the damage (`chosen_rate`). Wide layers get less
    of it with AdamW."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    decay: float = 1e-4
    """Weight decay of weights; norms, biases and scales have none."""
    ema: float = 0.998
    """How much of the running average a step keeps, once it has grown old."""
    clip: float = 10.0
    """Largest norm of a step's gradient."""
    bn_l1: float = 0.0
    """L1 penalty on the scales of batch norms, for pruning by them (Liu et al. 2017)."""
    features: float = 1.0
    """Weight of the features' loss beside the head's."""
    freeze_bn: bool | None = None
    """Keep the statistics of batch norms instead of measuring them anew on every batch; by default
    so in the second half, and from the start for a graph that is close to its original."""
    seed: int = 0

    def __post_init__(self) -> None:
        named: tuple[tuple[str, float | None], ...]
        named = (("steps", self.steps), ("epochs", self.epochs), ("seconds", self.seconds))
        named += (("lr", self.lr), ("batch", self.batch), ("clip", self.clip))
        named += (("imgsz", None if self.imgsz is None else min(self.imgsz)),)
        for name, value in named:
            if value is not None and not (math.isfinite(value) and value > 0):
                raise PipelineError(f"{name} must be above 0, not {value:g}")
        for name, value in (("bn_l1", self.bn_l1), ("features", self.features)):
            if not (math.isfinite(value) and value >= 0):
                raise PipelineError(f"{name} must be 0 or above, not {value:g}")

    def count(self, images: int) -> int | None:
        """Return the number of steps, or None if it is to be told from the time they take."""
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return max(1, round(self.epochs * self.epoch(images)))
        return None

    def epoch(self, images: int) -> int:
        """Return how many steps go once through so many images."""
        return max(1, math.ceil(images / self.batch))

    def rate(self, step: int, steps: int | None) -> float:
        """Return the learning rate: a linear rise, then a cosine down to a hundredth.

        Source: Loshchilov & Hutter, SGDR, 2017.

        Args:
            step: from 0.
            steps: how many there are; not needed while the rate rises.
        """
        highest = RATE if self.lr is None else self.lr
        if step < WARMUP or steps is None:
            return highest * min(1.0, (step + 1) / WARMUP)
        done = (step - WARMUP) / max(1, steps - WARMUP)
        return highest * (0.505 + 0.495 * math.cos(math.pi * min(1.0, done)))

    def frozen(self, step: int, steps: int | None) -> bool:
        """Tell whether batch norms keep their statistics in a step."""
        if self.freeze_bn is not None or step < WARMUP or steps is None:
            return bool(self.freeze_bn)
        return 2 * step >= steps

    def fitted(self, before: float, reach: float | None = None) -> "Plan":
        """Return the plan for a graph that is so far from its original.

        A graph that is close has statistics that are right: those of augmented images are not.

        Args:
            before: the loss before the first step.
            reach: the learning rate at which one step of AdamW moves the graph by as much; None
                where that was not measured.
        """
        close = not self.bn_l1 and before < CLOSE
        freeze = True if self.freeze_bn is None and close else self.freeze_bn
        return replace(self, lr=self.chosen_rate(before, reach), freeze_bn=freeze)

    def chosen_rate(self, before: float, reach: float | None = None) -> float:
        """Return the learning rate for a graph that is so far from its original.

        A graph that is close would be thrown back by large steps, and one that is far needs them.
        How large is too large depends on the graph: AdamW's first steps move every weight by the
        learning rate, and what that does to the outputs is measured (`reach`). With SGD, the square
        root of the distance tells how far weights have to go. Sparsity by `bn_l1` starts at the
        original itself and takes the large ones.
        """
        if self.lr is not None:
            return self.lr
        if self.bn_l1 or not math.isfinite(before):
            return RATE
        if reach is None:
            part = math.sqrt(before / FAR)
        else:
            part = STEADY * reach / RATE * max(1.0, math.sqrt(before / MOVED))
        return RATE * min(1.0, max(LEAST, part))


@dataclass(frozen=True)
class Outcome:
    """What a distillation did."""

    steps: int
    """That were taken, those before a resumption included."""
    planned: int
    """That the plan asked for, or that its time was turned into."""
    epochs: float
    seconds: float
    """Of this run alone."""
    before: float
    """Loss on plain images before the first step."""
    after: float
    """The same after the last, of what the graph was left with."""
    parameters: int
    """Values that were trained."""
    problem: str = ""
    """A sentence on why it ended early or was undone; empty if all went well."""
