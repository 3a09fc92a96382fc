"""decompose-silu: write SiLU behind a convolution as x * sigmoid(x).

    %conv = Conv2d(%x)            %conv = Conv2d(%x)
    %act = SiLU(%conv)      ->    %act_sigmoid = sigmoid(%conv)
                                  %act = mul(%conv, %act_sigmoid)

onnxruntime has integer kernels for Sigmoid and Mul and none for SiLU, so `observe` can mark the two
parts only where they are nodes of their own. The recipe `int8` runs this pass for that target.
The convolution of an image's few channels is left as it is: `observe` keeps it in float there.
"""

import operator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc import Call, Context, Pass, shape
from yqc.rewrite import function, module, rewrite_all, var

FLOAT_CONV = module(nn.Conv2d, var("x"), name="conv")
PACKED_CONV = function(F.conv2d, var("x"), ..., name="conv")


@dataclass(frozen=True)
class DecomposeSilu(Pass):
    """Write SiLU behind a convolution as x * sigmoid(x)."""

    name: ClassVar[str] = "decompose-silu"
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        check = partial(self.obstacle, few=ctx.rules.few_channels)
        for conv in (FLOAT_CONV, PACKED_CONV):
            silu = module(nn.SiLU, conv, name="silu")
            rewrite_all(gm, ctx, silu, self.decompose, check=check, what="became x * sigmoid(x)")

    def decompose(self, gm: fx.GraphModule, silu: Call[nn.SiLU]) -> fx.Node:
        """Insert the sigmoid, and turn the SiLU's node into the product; it keeps its name."""
        node = silu.node
        (conv,) = node.all_input_nodes
        sigmoid = gm.graph.create_node(
            "call_function", torch.sigmoid, (conv,), name=f"{node.name}_sigmoid"
        )
        node.op, node.target = "call_function", operator.mul
        node.args, node.kwargs = (conv, sigmoid), {}
        return node

    def obstacle(self, gm: fx.GraphModule, x: fx.Node, *, few: int) -> str | None:
        """Return why this SiLU must stay, or None if it may be decomposed."""
        if shape(x)[1] <= few:
            return f"its convolution reads at most {few} channels and stays in float"
        return None
