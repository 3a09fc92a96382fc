"""fuse: what the recipe stands for, and that the whole of it keeps the numbers."""

import pytest
import torch
from torch import Tensor, nn

from yqc import Context, Pipeline, text, trace

X = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))


def norm(seed: int) -> nn.BatchNorm2d:
    bn, g = nn.BatchNorm2d(4), torch.Generator().manual_seed(seed)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    for tensor, low in ((bn.running_mean, -1), (bn.running_var, 0.5), (bn.weight, 0.5)):
        nn.init.uniform_(tensor, low, 2.0, generator=g)
    return bn


class Net(nn.Module):
    """A convolution with its norm, a RepConv with its identity, a dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.stem_bn, self.act = nn.Conv2d(4, 4, 3, padding=1), norm(1), nn.SiLU()
        self.rep, self.rep_bn = nn.Conv2d(4, 4, 3, padding=1, bias=False), norm(2)
        self.point, self.point_bn = nn.Conv2d(4, 4, 1, bias=False), norm(3)
        self.same, self.drop = norm(4), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem_bn(self.stem(x)))
        y = self.rep_bn(self.rep(x)) + self.point_bn(self.point(x)) + self.same(x)
        return self.drop(self.act(y))  # type: ignore[no-any-return]


FUSED = [
    "%x: f32[2,4,9,9] = input",
    "%stem: f32[2,4,9,9] = Conv2d(%x)",
    "%act: f32[2,4,9,9] = SiLU(%stem)",
    "%rep: f32[2,4,9,9] = Conv2d(%act)",
    "%act_1: f32[2,4,9,9] = SiLU(%rep)",
    "return %act_1",
]


@pytest.mark.parametrize("passes", ["fuse", "reparam,fold-bn,dce", "fold-bn,reparam,dce"])
def test_fuses_in_any_order(passes: str) -> None:
    gm = trace(Net(), X)
    with torch.no_grad():
        want = gm(X)
        Pipeline.parse(passes).run(gm, Context())
        assert text(gm).splitlines() == FUSED
        torch.testing.assert_close(gm(X), want, rtol=1e-4, atol=1e-5)


def test_prints_what_it_stands_for() -> None:
    assert list(map(str, Pipeline.parse("fuse").expand())) == ["reparam", "fold-bn", "dce"]


def test_drops_the_steps_whose_result_is_there() -> None:
    names = [p.name for p in Pipeline.parse("fold-bn,fuse").expand()]
    assert names == ["fold-bn", "reparam", "dce"]


def test_finds_nothing_the_second_time() -> None:
    gm, ctx = trace(Net(), X), Context()
    Pipeline.parse("fuse").run(gm, ctx)
    before, done = text(gm), len(ctx.rewrites)
    steps = Pipeline.parse("reparam,fold-bn,dce").run(gm, ctx)
    assert text(gm) == before
    assert len(ctx.rewrites) == done
    assert not any(step.record.changed for step in steps)
