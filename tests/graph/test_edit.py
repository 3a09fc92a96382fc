"""The leading part of a graph computes what it is asked for, and nothing that comes behind."""

import torch
from torch import Tensor, nn

from yqc import trace
from yqc.graph import text
from yqc.graph.edit import extract_up_to


class Net(nn.Module):
    """Writes into a tensor that the marked node reads, and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.seen = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y.mul_(2)
        z = self.seen(y)
        out: Tensor = self.second(z).sigmoid()
        return out


def test_the_leading_part_keeps_what_is_written_on_the_way() -> None:
    gm = trace(Net().eval(), torch.rand(1, 3, 2, 2))
    (seen,) = (n for n in gm.graph.nodes if n.target == "seen")
    part = extract_up_to(gm, [seen])
    assert text(part).splitlines() == [
        "%x: f32[1,3,2,2] = input",
        "%first: f32[1,4,2,2] = Conv2d(%x)",
        "%mul_: f32[1,4,2,2] = mul_(%first, 2)",
        "%seen: f32[1,4,2,2] = Identity(%first)",
        "return ()",
    ]


def test_it_shares_the_modules_and_leaves_the_graph_alone() -> None:
    gm = trace(Net().eval(), torch.rand(1, 3, 2, 2))
    before = text(gm)
    values: list[Tensor] = []
    gm.get_submodule("seen").register_forward_hook(lambda *a: values.append(a[-1].clone()))
    (seen,) = (n for n in gm.graph.nodes if n.target == "seen")
    x = torch.rand(1, 3, 2, 2)
    extract_up_to(gm, [seen])(x)
    gm(x)
    assert torch.equal(*values)
    assert text(gm) == before
