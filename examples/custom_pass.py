"""silu-to-hardswish: replace SiLU by Hardswish, which needs no exponential.

    silu(x) = x * sigmoid(x)        hardswish(x) = x * relu6(x + 3) / 6

They differ by at most 0.15, where x is near 3 or -3. Small devices compute the second in a fraction
of the time; what it costs in accuracy, the report says.

This is a whole pass, in one file. Run it with

    yqc compile model.pt --load custom_pass.py --passes silu-to-hardswish,int8 --data data.yaml
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import fx, nn

from yqc import Context, Pass, calls, role


@dataclass(frozen=True)
class SiluToHardswish(Pass):
    """Replace SiLU by Hardswish."""

    name: ClassVar[str] = "silu-to-hardswish"

    where: Literal["body", "all"] = "body"
    """`body` leaves the head alone, whose outputs are the detections; `all` replaces there too."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        """Point every node that calls a SiLU to a Hardswish beside it.

        The module itself stays as it is: one SiLU often serves many nodes, and some may keep it.
        """
        for silu in calls(gm, nn.SiLU):
            if self.where == "body" and role(silu.node).startswith("head."):
                ctx.skipped(silu.node, f"it is part of {role(silu.node)}")
                continue
            gm.add_submodule(f"{silu.target}_hard", nn.Hardswish())
            silu.node.target = f"{silu.target}_hard"
            ctx.rewrote(silu.node, "SiLU replaced by Hardswish")
