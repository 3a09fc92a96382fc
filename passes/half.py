"""half: store weights and compute in half precision (float16); inputs and outputs stay float32.

    %conv = Conv2d(%images)    ->    %images_half = to(%images, float16)
                                     %conv: f16 = Conv2d(%images_half)       weight and bias f16
                                     %conv_float = to(%conv, float32)        for what stays in float

1. Every node that computes float32 is measured by itself, in half against float32, on a few
   calibration images; without data on seeded noise, with the ranges that batch norms make likely.
2. A node stays in float32 if its values come near the largest half (65504), if it loses more than
   rounding explains (values below 6e-5 are stored with fewer digits), or if PyTorch has no half
   form of it. Each is recorded with its reason.
3. The decoding stays in float32: boxes are hundreds of pixels, and half has eleven bits.
4. Weights are half in the file and read as they are, with no Cast before them: a simplifier would
   fold that back to float32.
5. After `int8`, `int4` or `codebook` the arithmetic stays as it is; biases, scales and weights that
   are float32 are stored in half. Integer kernels want their scales in float32, half beside them
   gains nothing on CPUs, and TensorRT chooses half by itself (`--fp16`).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from yqc import Context, Pass, State
from yqc.pipeline import Count
from yqc.quantizing import (
    compute_in_half,
    computes_from_integers,
    half_candidates,
    measure_half_errors,
    skip_reason,
    spread_obstacles,
    store_in_half,
)


@dataclass(frozen=True)
class Half(Pass):
    """Store weights and compute in half precision."""

    name: ClassVar[str] = "half"
    reads_images: ClassVar[bool] = True
    provides: ClassVar[frozenset[str]] = frozenset({State.HALF})
    removes: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})

    skip: tuple[str, ...] = ()
    """Modules to leave in float32: their paths, * as a wildcard."""
    images: Count = 8
    """Number of calibration images to measure on."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        if computes_from_integers(gm):
            self.store(gm, ctx)
            return
        nodes = half_candidates(gm)
        if not nodes:
            return
        obstacles = self.obstacles(gm, ctx, nodes)
        for node, why in obstacles.items():
            ctx.skipped(node, why)
        chosen = [node for node in nodes if node not in obstacles]
        for node in compute_in_half(gm, chosen):
            ctx.rewrote(node, "converted")
        for node in chosen:
            ctx.rewrote(node, "computed in half")
        kept = f"; {len(obstacles)} stay in float32" if obstacles else ""
        if ctx.calibration is None:
            ctx.says("no data: values were measured on noise, and bounded by the batch norms")
        ctx.says(f"{len(chosen)} of {len(nodes)} operations before the decoding are in half{kept}")

    def store(self, gm: fx.GraphModule, ctx: Context) -> None:
        """Store in half what integers left in float32, if the target can read that."""
        if not ctx.rules.stored_halves:
            ctx.says(f"{ctx.target} reads scales and biases in float32: they stay as they are")
        elif count := store_in_half(gm, ctx, self.skip):
            ctx.says(f"{count} tensors are stored in half; the arithmetic stays as it is")
        else:
            ctx.says("nothing is left in float32 that could be stored in half")

    def obstacles(
        self, gm: fx.GraphModule, ctx: Context, nodes: list[fx.Node]
    ) -> dict[fx.Node, str]:
        """Return why nodes must stay in float32, in graph order."""
        errors = measure_half_errors(gm, nodes, ctx, self.images)
        found = {}
        for node in nodes:
            if why := skip_reason(node, self.skip) or errors[node].obstacle:
                found[node] = why
        spread_obstacles(gm, found, nodes)
        return dict(sorted(found.items()))
