"""History: which pass made a node or changed it, and out of what."""

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import fx, nn

from yqc import Context, Pass, Pipeline
from yqc.graph import history
from yqc.graph.serial import load_graph, save_graph
from yqc.testing import apply, nets, traced
from yqc_passes.fold_bn import FoldBatchNorm


def told(gm: fx.GraphModule) -> dict[str, list[str]]:
    return {n.name: [str(e) for e in history(n)] for n in gm.graph.nodes if history(n)}


@dataclass(frozen=True)
class Double(Pass):
    """Write 2x as x + x."""

    name: ClassVar[str] = "double"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for node in list(gm.graph.nodes):
            if node.op == "call_module":
                with gm.graph.inserting_after(node):
                    new = gm.graph.call_function(operator.mul, (node, 2.0))
                node.replace_all_uses_with(
                    new, delete_user_cb=lambda user, new=new: user is not new
                )
                ctx.rewrote(node, "doubled")


def test_a_node_knows_what_it_was_made_out_of() -> None:
    gm = traced(nets.chain(nn.Conv2d(3, 4, 1), nn.ReLU()), (1, 3, 4, 4))
    apply(Double(), gm)
    assert told(gm) == {
        "mul": ["made by double out of conv2d: doubled"],
        "mul_1": ["made by double out of relu: doubled"],
    }


def test_a_node_knows_what_was_drawn_into_it() -> None:
    gm = traced(nets.conv_bn(), (1, 3, 8, 8))
    assert told(gm) == {}
    apply(FoldBatchNorm(), gm)
    assert told(gm) == {"conv": ["changed by fold-bn out of bn: folded into conv"]}


def test_a_graph_that_stays_has_no_history() -> None:
    gm = traced(nets.chain(nn.Conv2d(3, 4, 1)), (1, 3, 4, 4))
    apply(FoldBatchNorm(), gm)
    assert told(gm) == {}


def test_a_file_keeps_the_history(tmp_path: Path) -> None:
    gm = traced(nets.residual(), (1, 3, 8, 8))
    Pipeline.parse("fold-bn,dce,observe,calibrate,quantize").run(gm, Context(target="portable"))
    save_graph(gm, tmp_path / "g.yqc")
    again, _, _ = load_graph(tmp_path / "g.yqc")
    assert told(again) == told(gm)
    assert told(gm)["stem_conv"] == [
        "changed by fold-bn out of stem_bn: folded into stem_conv",
        "changed by quantize: weights became int8",
    ]
    assert told(gm)["x_q"] == ["made by quantize out of x_observer: became quantize-dequantize"]
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), gm(x))
