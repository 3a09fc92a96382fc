"""swap-activation: put an activation that costs less in the place of trained ones, without labels.

    SiLU(W x + c)    ->    ReLU(a W x + (a c + b)) + m

1. a, b and m of each channel fit the new activation to the old one's values on calibration images
   (`yqc.swapping.fit`). a and b go into the convolution, or its batch norm; the constant m passes
   concatenations, additions, pools and upsampling, and goes into the biases of the next
   convolutions. So the result is a plain network of the new activation. It is inexact only at
   borders that are padded with zeros.
2. The graph is walked in order, so that each layer is fitted on inputs that hold the errors of all
   before it (`yqc.swapping.walk`), at positions drawn by their relevance to the detections. The
   weights are refitted, too, where that lowers the error on pictures held out of the refit.
3. The damage of each swap alone is estimated: the mean square change of the detections. With
   `max_drop`, what does most damage stays as it is, as few as the limit on the agreement with the
   float model needs; it does not count on a training that follows.
4. The marks `Swapped` hold what was fitted; the report lists them.

ReLU begins at 0, so int8 gives its outputs the zero point 0, and runtimes compute it within the
convolution. After `quantize` there is nothing left to swap: put it before.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from yqc import Context, Pass, State
from yqc.errors import PassError
from yqc.swapping import SwapOptions, SwapTask, SwapTrial

FEW = 8
"""With fewer images than this the user is warned: fits depend on single pictures."""
LOST = 0.5
"""Below this agreement the detector is said to have been lost."""


@dataclass(frozen=True)
class SwapActivation(SwapOptions, Pass):
    """Put an activation that costs less in the place of trained ones."""

    name: ClassVar[str] = "swap-activation"
    reads_images: ClassVar[bool] = True
    reads_upcoming: ClassVar[frozenset[str]] = frozenset({"recover"})
    requires: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8, State.PACKED})
    needs_images: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        refuse_quantized(gm)
        task = SwapTask(gm, ctx, self)
        for node, why in task.refused:
            ctx.skipped(node, why)
        if not task.units:
            ctx.says("there is no activation to swap")
            return
        if len(task.images) < FEW:
            ctx.warn(
                f"activations were fitted on {len(task.images)} pictures; give {FEW} or more, "
                "better 48, or the fit depends on single ones"
            )
        before = ctx.agreement(gm) if ctx.agreement else None
        trial = self.choose(task, before, ctx)
        task.adopt(trial)
        self.record(gm, task, trial, before, ctx)

    def choose(self, task: SwapTask, before: float | None, ctx: Context) -> SwapTrial:
        """Swap all activations, or as many as `max_drop` allows."""
        if self.max_drop is None:
            return task.run()
        if before is None:
            raise PassError(
                "max_drop needs a detector that finds something in the calibration images"
            )
        return task.search(before * (1 - self.max_drop))

    def record(
        self,
        gm: fx.GraphModule,
        task: SwapTask,
        trial: SwapTrial,
        before: float | None,
        ctx: Context,
    ) -> None:
        """Record what was swapped, what stayed, and what that did to the agreement."""
        damage, total = task.damage, sum(task.damage.values()) or 1.0
        nodes = {node.name: node for node in gm.graph.nodes}
        for found in trial.walk.fits.values():
            name = str(found.unit.activation)
            ctx.rewrote(
                nodes[name],
                f"became {self.to}, error {found.error:.2%}, {damage[name] / total:.1%} of the "
                "damage",
            )
        for name in sorted(trial.kept):
            ctx.skipped(nodes[name], f"stays: {damage[name] / total:.1%} of the damage")
        refitted = sum(found.refitted for found in trial.walk.fits.values())
        done = f"{len(trial.walk.fits)} of {len(task.units)} activations became {self.to}"
        ctx.says(f"{done}, fitted on {len(task.images)} pictures; {refitted} with their weights")
        if trial.agreement is None or before is None:
            return
        ctx.says(f"agreement with the float model {before:.3f} -> {trial.agreement:.3f}")
        if trial.agreement < LOST * before and "recover" not in ctx.upcoming:
            ctx.warn(
                f"swap-activation: the agreement with the float model fell to "
                f"{trial.agreement:.3f}: use relu, which trains, or max_drop"
            )

    def explain(self, gm: fx.GraphModule, ctx: Context) -> list[str]:
        """List the activations to swap, with data by the damage of each swap alone."""
        task = SwapTask(gm, ctx, self)
        for node, why in task.refused:
            ctx.skipped(node, why)
        paths = {str(unit.activation): unit.path for unit in task.units}
        if not paths:
            return ["there is no activation to swap"]
        if ctx.calibration is None:
            said = f"{len(paths)} activations can become {self.to}; --data shows what each costs"
            return [said, *paths.values()]
        damage, total = task.damage, sum(task.damage.values()) or 1.0
        order = sorted(paths, key=lambda name: -damage[name])
        said = f"{len(paths)} activations can become {self.to}; share of the damage of each alone"
        if self.max_drop is not None:
            said += f"; the first stay, as many as a drop of {self.max_drop} at most needs"
        return [said, *(f"{damage[name] / total:6.1%}  {paths[name]}" for name in order)]


def refuse_quantized(gm: fx.GraphModule) -> None:
    """Raise a PassError if a graph is quantized or about to be."""
    for node in gm.graph.nodes:
        kind = type(gm.get_submodule(str(node.target))).__name__ if node.op == "call_module" else ""
        if kind == "Observer" or str(node.target).startswith("yqc."):
            raise PassError(
                f"{node} belongs to a quantized graph; put swap-activation before int8 and the like"
            )
