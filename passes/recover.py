"""recover: train the rewritten graph to compute what the float original does, without labels.

1. Both graphs run on the training images, half of them mirrored and some augmented (mosaic, scale,
   colour). The raw outputs of their heads are compared, and the features in front of the heads
   where both graphs have them; of pruned features, the channels that are left. Annotations are not
   read. Layers that still compute exactly what the original does are not trained, and are computed
   once for both graphs.
2. Quantizers are trained through: gradients pass straight through the rounding, scales learn (Esser
   et al., Learned Step Size Quantization, 2020). Integers stay integers.
3. A time is turned into a number of steps once the first of them have been timed; the recipe file
   keeps that number, so that it gives the same result on other machines.
4. With `agreement`, a training after which fewer detections agree with the float model is undone.
5. `bn-l1` pulls the scales of batch norms towards zero, for `prune{criterion=bn-scale}` after it
   (Liu et al., Network Slimming, 2017).
"""

import copy
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from torch import fx

from yqc import Context, Pass, State
from yqc.errors import OptionError, PassError
from yqc.pipeline import Bounds, Count, Duration, Share, Space, Stage, Workload
from yqc.training import Plan, TrainingOutcome, distill, find_untouched

TIME = Duration(600)
"""Default time. Half of it recovers less; double rarely gains as much as the first half."""
GPU_BATCH = 16
"""Default number of images per step on a GPU. Batches of 4, as on a CPU, leave most of it idle;
more images per step make fewer steps of an epoch."""

TIMING = 0.15
"""Share of the time in which steps are timed: 44 of 300 s on a busy core, less on an idle one."""

ABOVE_0 = Bounds(above=0)


@dataclass(frozen=True)
class Recover(Pass):
    """Train the graph to compute what the float original does."""

    name: ClassVar[str] = "recover"
    requires: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.CALIBRATED})
    trains: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True
    once: ClassVar[bool] = True

    epochs: Annotated[float | None, ABOVE_0] = None
    """Times through the training images."""
    steps: Count | None = None
    """Batches to train on; the result does not depend on the machine's speed then."""
    time: Annotated[float | None, Duration, ABOVE_0] = None
    """How long to train, such as 10m, the default."""
    lr: Annotated[float | None, ABOVE_0] = None
    """Highest learning rate, after 20 steps and before a cosine; by default it is chosen by trial
    steps. Layers that read more than 256 numbers get less of it with adamw."""
    batch: Count | None = None
    """Images per step; by default 4 on a CPU and 16 on a GPU."""
    imgsz: Count | None = None
    """Side of the training images in pixels; the size the graph was traced for by default."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimizer."""
    features: Annotated[float, Bounds(least=0)] = 1.0
    """Weight of the features' loss beside the head's."""
    bn_l1: Annotated[float, Bounds(least=0)] = 0.0
    """L1 penalty on the scales of batch norms."""
    freeze_bn: bool | None = None
    """Keep the statistics of batch norms; by default in the second half, or where little is
    damaged from the start."""
    seed: int | None = None
    """Of images and augmentation; the compile's by default."""
    agreement: Annotated[float | None, Share, Bounds(above=0, most=1)] = None
    """Undo the training if the agreement with the float model (AP50) is below this after it, and
    below what it was before; by default the agreement is not measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(v is not None for v in (self.epochs, self.steps, self.time)) > 1:
            raise OptionError("give one of epochs, steps and time")

    @classmethod
    def space(cls) -> Space:
        return Space("training", {"steps": [100, 300, 900]})

    def needs(self) -> frozenset[str]:
        return self.requires | ({State.BATCH_NORM} if self.bn_l1 else set())

    def plan(self, seed: int, device: str) -> Plan:
        """Return the plan that the options describe; `seed` and `device` are the compile's."""
        alone = self.steps is None and self.epochs is None
        return Plan(
            steps=self.steps,
            epochs=self.epochs,
            seconds=(TIME if self.time is None else self.time) if alone else None,
            batch=self.batch or (Plan.batch if device == "cpu" else GPU_BATCH),
            imgsz=None if self.imgsz is None else (self.imgsz, self.imgsz),
            lr=self.lr,
            optimizer=self.optimizer,
            features=self.features,
            bn_l1=self.bn_l1,
            freeze_bn=self.freeze_bn,
            seed=seed if self.seed is None else self.seed,
        )

    def foresee(self, work: Workload) -> tuple[Stage, ...]:
        plan = self.plan(0, "cpu")
        if plan.seconds:
            timing = TIMING * plan.seconds
            return (
                Stage("recovering: timing", timing, fixed=True),
                Stage("recovering", plan.seconds - timing, fixed=True),
            )
        steps = plan.steps or (plan.epochs or 1) * work.images / plan.batch
        return (Stage("recovering", 4 * work.forward * plan.batch * steps),)

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        if not ctx.train:
            raise PassError("there are no images to learn from; give some with --data")
        if ctx.original is None:
            raise PassError("there is no float original to learn from; set Context.original")
        plan = self.plan(ctx.seed, ctx.device)
        before = self.measure_agreement(gm, ctx)
        kept = None if before is None else copy.deepcopy(gm.state_dict())
        done = distill(gm, ctx.original, ctx.train, plan, ctx)
        steps = done.planned if self.epochs is None else None
        same = replace(self, steps=steps, time=None, batch=plan.batch)
        if same != self:
            ctx.chose(same)
        ctx.rewrote(gm.graph.output_node(), describe_training(done))
        if done.problem:
            ctx.warn(f"recover: {done.problem}")
            return
        after = None if before is None else self.measure_agreement(gm, ctx)
        if before is None or after is None or kept is None or self.agreement is None:
            return
        change = f"the agreement with the float model from {before:.3f} to {after:.3f}"
        if after < min(before, self.agreement):
            gm.load_state_dict(kept)
            ctx.warn(f"recover: {done.steps} steps brought {change} and were undone")
        else:
            ctx.says(f"{done.steps} steps brought {change}")

    def measure_agreement(self, gm: fx.GraphModule, ctx: Context) -> float | None:
        """Return the agreement with the float model; None where no option needs it or no data."""
        return ctx.agreement(gm) if self.agreement is not None and ctx.agreement else None

    def explain(self, gm: fx.GraphModule, ctx: Context) -> list[str]:
        """Describe the training; it is not run, since it takes minutes."""
        plan = self.plan(ctx.seed, ctx.device)
        length = f"{plan.seconds:g} s" if plan.seconds else f"{plan.epochs} epochs"
        length = f"{plan.steps} steps" if plan.steps else length
        if not ctx.train or ctx.original is None:
            return [f"{length}, but there are no images to learn from; give some with --data"]
        alone = len(find_untouched(gm, ctx.original))
        return [
            f"{length} of {plan.batch} images, from {len(ctx.train)} training images",
            f"{alone} of {len(gm.graph.nodes)} nodes compute what the original does: not trained",
        ]


def describe_training(done: TrainingOutcome) -> str:
    """Describe in a line what a training did."""
    return (
        f"{done.parameters} values trained for {done.steps} steps ({done.epochs:.3g} epochs): "
        f"distance to the original {done.before:.4g} -> {done.after:.4g}"
    )
