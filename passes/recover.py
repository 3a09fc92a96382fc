"""recover: train the rewritten graph to answer as the float original does, without labels.

1. The training images, every other one mirrored and some of them augmented (mosaic, scale, colour),
   are given to both graphs; what their heads compute before the decoding is compared, and features
   in front of the head where both graphs have them; of a pruned one, the channels that are left.
   Annotations are not read. Layers that still compute just what the original does, from the images
   on, do not learn, and are computed once for both graphs.
2. Quantizers are trained through: gradients pass straight through the rounding, scales learn (Esser
   et al., Learned Step Size Quantization, 2020). Integers stay integers.
3. A time is turned into a number of steps once the first of them have been timed; the recipe keeps
   that number, so it does the same again elsewhere.
4. `bn-l1` pulls the scales of batch norms towards zero, for `prune{criterion=bn-scale}` after it
   (Liu et al., Network Slimming, 2017).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import fx

from yqc import Context, Pass
from yqc.errors import PassError, PipelineError
from yqc.pipeline.options import Duration
from yqc.training import Outcome, Plan, distill

USUAL = Duration(600)
"""How long it takes where nothing is said."""
ON_GPU = 16
"""Images a step on a GPU where nothing is said: with those of a CPU it would idle."""


@dataclass(frozen=True)
class Recover(Pass):
    """Train the graph to answer as the float original does."""

    name: ClassVar[str] = "recover"
    trains: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True

    epochs: float | None = None
    """Times through the training images."""
    steps: int | None = None
    """Batches to train on; the result does not depend on the machine's speed then."""
    time: Duration | None = None
    """How long to train, such as 10m; that is also the default."""
    lr: float | None = None
    """Highest learning rate, after 20 steps and before a cosine; by default it is tried how large a
    step may be. Layers that read more than 256 numbers get less of it with adamw."""
    batch: int | None = None
    """Images a step; by default 4 on a CPU and 16 on a GPU."""
    imgsz: int | None = None
    """Side of the training images in pixels; the size the graph was traced for by default."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """How weights follow gradients."""
    features: float = 1.0
    """Weight of the features' loss beside the head's."""
    bn_l1: float = 0.0
    """L1 penalty on the scales of batch norms."""
    freeze_bn: bool | None = None
    """Keep the statistics of batch norms; by default in the second half, or where little is
    damaged from the start."""
    seed: int | None = None
    """Of images and augmentation; the compile's by default."""

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch must be above 0, not {self.batch}")
        if sum(v is not None for v in (self.epochs, self.steps, self.time)) > 1:
            raise ValueError("give one of epochs, steps and time")
        try:
            self.plan(0, "cpu")
        except PipelineError as error:
            raise ValueError(str(error)) from None

    def plan(self, seed: int, device: str) -> Plan:
        """Return what the options ask for; `seed` and `device` are the compile's."""
        alone = self.steps is None and self.epochs is None
        return Plan(
            steps=self.steps,
            epochs=self.epochs,
            seconds=(USUAL if self.time is None else self.time) if alone else None,
            batch=self.batch or (Plan.batch if device == "cpu" else ON_GPU),
            imgsz=None if self.imgsz is None else (self.imgsz, self.imgsz),
            lr=self.lr,
            optimizer=self.optimizer,
            features=self.features,
            bn_l1=self.bn_l1,
            freeze_bn=self.freeze_bn,
            seed=seed if self.seed is None else self.seed,
        )

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        if not ctx.train:
            raise PassError("there are no images to learn from; give some with --data")
        if ctx.original is None:
            raise PassError("there is no float original to learn from; set Context.original")
        plan = self.plan(ctx.seed, ctx.device)
        done = distill(gm, ctx.original, ctx.train, plan, ctx)
        steps = done.planned if self.epochs is None else None
        same = replace(self, steps=steps, time=None, batch=plan.batch)
        if same != self:
            ctx.chose(same)
        if done.problem:
            ctx.warn(f"recover: {done.problem}")
        ctx.rewrote(gm.graph.output_node(), told(done))


def told(done: Outcome) -> str:
    """Say in a line what a training did."""
    return (
        f"{done.parameters} values trained for {done.steps} steps ({done.epochs:.3g} epochs): "
        f"distance to the original {done.before:.4g} -> {done.after:.4g}"
    )
