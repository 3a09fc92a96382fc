"""Plan a training: its length, its learning rate, its batch norms; and describe its outcome."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from yqc.errors import PipelineError

RATE = 1e-3
"""Highest learning rate that is chosen: AdamW's default. Not measured: with half of it badly
damaged graphs need more steps; double risks that the loss grows."""
STEADY = 4.0
"""The chosen rate is this many times the rate at which AdamW's first step moves a graph as far as
it is from its original. Successive steps point in different directions and the running average
cancels most of them, so more than 1 is stable. Not measured: half of it takes more steps; double
risks that the first steps do damage."""
MOVED = 0.1
"""Largest distance by which one step may move a graph. The rate of a graph that is farther from its
original grows with the square root of that distance. Not measured: half of it lowers the rates of
damaged graphs by a factor of up to 1.4, double raises them as much."""
FAR = 4.0
"""With SGD, a graph at this distance from its original, or farther, gets the highest rate. Half of
it raises the rates of all others by 1.4, double lowers them as much."""
SWAPPED = 1e-4
"""First rate of a graph with swapped activations, with AdamW. Their fit is a fine balance of all
layers: with three times as much the loss of yolov5n at 640 px rises at once, with a third it takes
longer than there is time for."""
CLOSE = 2.0
"""A graph at a smaller distance from its original keeps the statistics of its batch norms from the
start. Not measured: half of it updates the statistics of slightly damaged graphs from augmented
images, which differ from real ones; double keeps wrong statistics of strongly pruned graphs."""
LEAST = 0.005
"""Lowest share of the highest rate. Not measured: half of it changes hardly anything in the usual
time; double may throw back graphs that differ by the rounding of a few weights only."""
WARMUP = 20
"""Steps over which the learning rate rises, and from which the time of a step is measured. Not
measured: half of them starts AdamW with less certain moments; double takes longer at low rates."""


@dataclass(frozen=True)
class Plan:
    """How to train. One of `steps`, `epochs` and `seconds` is the length, in this order.

    Raises:
        PipelineError: a number is out of its range.
    """

    steps: int | None = None
    epochs: float | None = None
    """Times through the images."""
    seconds: float | None = None
    """Turned into a number of steps once the first of them have been timed."""
    batch: int = 4
    """Images per step: on a CPU, many small steps recover more in the same time."""
    imgsz: tuple[int, int] | None = None
    """Height and width in pixels; by default those that the graph was traced for."""
    lr: float | None = None
    """Highest learning rate; by default chosen by the damage (`choose_rate`). Wide layers get less
    of it with AdamW."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    decay: float = 1e-4
    """Weight decay of weights; norms, biases and scales have none."""
    ema: float = 0.998
    """Share of the running average that a step keeps, after the first few hundred."""
    clip: float = 10.0
    """Largest norm of a step's gradient."""
    bn_l1: float = 0.0
    """L1 penalty on the scales of batch norms, for pruning by them (Liu et al. 2017)."""
    features: float = 1.0
    """Weight of the features' loss beside the head's."""
    freeze_bn: bool | None = None
    """Keep the statistics of batch norms instead of updating them from every batch; by default in
    the second half, and from the start for a graph that is close to its original."""
    checked: bool = False
    """Go back to the start with a third of the rate whenever held-out images disagree."""
    guarded: bool = False
    """Keep the state nearest to the original on held-out images, and end where no rate improves on
    it."""
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

    def count_steps(self, images: int) -> int | None:
        """Return the number of steps, or None if it follows from the time that they take."""
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return max(1, round(self.epochs * self.steps_per_epoch(images)))
        return None

    def steps_per_epoch(self, images: int) -> int:
        """Return the number of steps that go once through `images` images."""
        return max(1, math.ceil(images / self.batch))

    def rate_at(self, step: int, steps: int | None) -> float:
        """Return the learning rate: a linear rise, then a cosine down to a hundredth.

        Source: Loshchilov & Hutter, SGDR, 2017. While it rises, the number of steps is not needed.
        """
        highest = RATE if self.lr is None else self.lr
        if step < WARMUP or steps is None:
            return highest * min(1.0, (step + 1) / WARMUP)
        done = (step - WARMUP) / max(1, steps - WARMUP)
        return highest * (0.505 + 0.495 * math.cos(math.pi * min(1.0, done)))

    def freezes_bn_at(self, step: int, steps: int | None) -> bool:
        """Return whether batch norms keep their statistics in a step."""
        if self.freeze_bn is not None or step < WARMUP or steps is None:
            return bool(self.freeze_bn)
        return 2 * step >= steps

    def adapted(self, before: float, moving_rate: float | None = None) -> "Plan":
        """Return the plan for a graph whose loss, its distance from the original, is `before`.

        A graph that is close has the right statistics in its batch norms; those of augmented images
        differ. `moving_rate` is the learning rate at which one step of AdamW moves the graph by as
        much; None where that was not measured.
        """
        close = not self.bn_l1 and before < CLOSE
        freeze = True if self.freeze_bn is None and close else self.freeze_bn
        return replace(self, lr=self.choose_rate(before, moving_rate), freeze_bn=freeze)

    def choose_rate(self, before: float, moving_rate: float | None = None) -> float:
        """Choose the learning rate for a graph at a distance from its original.

        Large steps would throw back a graph that is close, and one that is far needs them. AdamW's
        first steps move every weight by the learning rate; the effect on the outputs depends on the
        graph and is measured (`moving_rate`). With SGD, the rate is proportional to the square root
        of the distance. Sparse training by `bn_l1` starts at the original and takes `RATE`.
        """
        if self.lr is not None:
            return self.lr
        if self.bn_l1 or not math.isfinite(before):
            return RATE
        if moving_rate is None:
            part = math.sqrt(before / FAR)
        else:
            part = STEADY * moving_rate / RATE * max(1.0, math.sqrt(before / MOVED))
        return RATE * min(1.0, max(LEAST, part))


@dataclass(frozen=True)
class TrainingOutcome:
    """The outcome of a training."""

    steps: int
    """Steps that were taken, those before a resumption included."""
    planned: int
    """Steps of the plan, or those that its time was turned into."""
    epochs: float
    seconds: float
    """Of this run alone."""
    before: float
    """Loss on plain images before the first step."""
    after: float
    """Loss on plain images of the graph as it was left."""
    parameters: int
    """Number of values that were trained."""
    problem: str = ""
    """Why it ended early or was undone, a sentence; else empty."""
