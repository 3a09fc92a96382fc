"""reparam: parallel linear branches become one convolution, before and after fold-bn."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from yqc import BatchNorm, Context, Pass, calls, text
from yqc.testing import apply, assert_same_numbers, nets, run, traced
from yqc_passes.fold_bn import FoldBatchNorm
from yqc_passes.reparam import Reparameterize, combine, identity

SHAPE = (2, 4, 9, 9)


def norm(channels: int = 4, **settings: bool) -> nn.BatchNorm2d:
    return nets.seeded(nn.BatchNorm2d(channels, eps=1e-3, **settings))


def rep_conv(*, identity: bool = True) -> nn.Module:
    """What the training leaves of a RepConv: 3x3 and 1x1 with batch norms, and a batch norm."""
    wide = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), norm())
    point = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), norm())
    return nets.summed(wide, point, *([norm()] if identity else []))


ONE_CONVOLUTION = [
    "%x: f32[2,4,9,9] = input",
    "%branches_0_0: f32[2,4,9,9] = Conv2d(%x)",
    "return %branches_0_0",
]


def run_passes(net: nn.Module, *passes: Pass) -> tuple[list[str], Context]:
    """Run passes, and compare the numbers with those before."""
    gm, ctx = traced(net, SHAPE), Context()
    want = run(gm)
    for action in passes:
        apply(action, gm, ctx)
    assert_same_numbers(run(gm), want, tolerance=1e-5)
    return text(gm).splitlines(), ctx


@pytest.mark.parametrize("identity", [False, True])
def test_merges_repconv_with_its_batch_norms(identity: bool) -> None:
    lines, ctx = run_passes(rep_conv(identity=identity), Reparameterize())
    assert lines == ONE_CONVOLUTION
    total, count = ("add_1", 3) if identity else ("add", 2)
    assert [(r.node, r.what) for r in ctx.rewrites] == [
        (total, f"{count} branches merged into branches_0_0")
    ]
    assert ctx.skips == []


def test_merges_repconv_after_fold_bn() -> None:
    lines, ctx = run_passes(rep_conv(), FoldBatchNorm(), Reparameterize())
    assert lines == ONE_CONVOLUTION
    assert [r.node for r in ctx.rewrites] == [
        "branches_0_1",
        "branches_1_1",
        "add_1",
    ]


def test_fold_bn_finds_nothing_left_after_it() -> None:
    lines, ctx = run_passes(rep_conv(), Reparameterize(), FoldBatchNorm())
    assert lines == ONE_CONVOLUTION
    assert len(ctx.rewrites) == 1


def grouped(kernel: int | tuple[int, int], groups: int = 4, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(kernel if isinstance(kernel, int) else 8)
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.Conv2d(4, 4, kernel, padding=(high // 2, wide // 2), groups=groups, bias=bias)


@pytest.mark.parametrize(
    "branches",
    [
        (grouped(7), grouped(3, bias=False)),
        (grouped(3), grouped(7)),
        (grouped(3, groups=2), grouped(1, groups=2), norm()),
        (grouped(5), norm()),
        (grouped((1, 3)), grouped((3, 3))),
        (
            nn.Conv2d(4, 6, 3, 2, padding=1, padding_mode="replicate"),
            nn.Conv2d(4, 6, 1, 2, padding_mode="replicate"),
        ),
        (nn.Conv2d(4, 6, 3, 2), nn.Sequential(nn.Conv2d(4, 6, 3, 2), norm(6))),
    ],
    ids=[
        "depthwise 7 and 3",
        "the larger kernel comes second",
        "groups of 2 and identity",
        "depthwise and identity",
        "not square",
        "stride 2, replicated border",
        "no padding",
    ],
)
def test_merges_every_kind_of_branches(branches: Sequence[nn.Module]) -> None:
    lines, ctx = run_passes(nets.summed(*branches), Reparameterize())
    assert (len(lines), len(ctx.rewrites), ctx.skips) == (3, 1, [])


class Balanced(nn.Module):
    """(a + b) + (c + d): a tree of sums that leans to no side."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = (conv(x) for conv in self.convs)
        return torch.add(a + b, c + d)


def test_merges_a_tree_of_sums() -> None:
    lines, ctx = run_passes(Balanced(), Reparameterize())
    assert lines == [
        "%x: f32[2,4,9,9] = input",
        "%convs_1: f32[2,4,9,9] = Conv2d(%x)",
        "return %convs_1",
    ]
    assert ctx.rewrites[0].what == "4 branches merged into convs_1"


class OtherUser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(x)
        return (self.a(x) + y) * y  # type: ignore[no-any-return]


class CalledTwice(OtherUser):
    def forward(self, x: Tensor) -> Tensor:
        return (self.a(x) + self.b(x)) * self.b(2 * x)  # type: ignore[no-any-return]


class Weighted(OtherUser):
    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.a(x), self.b(x), alpha=2)


@pytest.mark.parametrize(
    ("net", "skip"),
    [
        (OtherUser(), ("add", "b has other users")),
        (CalledTwice(), ("add", "b is called from more than one place")),
        (Weighted(), ("add", "it weighs its summands")),
        (
            nets.summed(nn.Conv2d(4, 4, 3, padding=1), norm(track_running_stats=False)),
            ("add", "branches_1 normalises by batch statistics"),
        ),
        (
            nets.summed(nn.Conv2d(4, 4, 3, padding=1), grouped(1)),
            ("add", "branches_1 and branches_0 differ in groups"),
        ),
        (
            nets.summed(nn.Conv2d(4, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 4, 1)),
            ("add", "branches_0 and branches_0 differ in dilation"),
        ),
        (
            nets.summed(nn.Conv2d(4, 4, 3, 2, padding=1), nn.Conv2d(4, 4, 2, 2, padding=1)),
            ("add", "branches_1 and branches_0 differ in padding"),
        ),
        (
            nets.summed(grouped(3), nn.Conv2d(4, 4, 1, groups=4, padding_mode="circular")),
            ("add", "branches_1 and branches_0 differ in padding_mode"),
        ),
        (
            nets.summed(nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 1)),
            ("add", "branches_0 and branches_0 differ in padding"),
        ),
        (
            nets.summed(grouped((1, 3)), grouped((3, 1))),
            ("add", "branches_1 and branches_0 differ in kernel_size"),
        ),
        (
            nets.summed(nn.Conv2d(4, 4, (1, 7), padding=(0, 3)), nn.Conv2d(4, 4, 3, padding=1)),
            ("add", "branches_0 and branches_1 differ in kernel_size"),
        ),
    ],
    ids=[
        "other user",
        "called twice",
        "alpha",
        "no statistics",
        "groups",
        "dilation",
        "padding",
        "padding mode",
        "padding by name",
        "crossed kernels",
        "longer in one direction",
    ],
)
def test_leaves_a_near_miss_alone_and_says_why(net: nn.Module, skip: tuple[str, str]) -> None:
    before = text(traced(net, SHAPE)).splitlines()
    lines, ctx = run_passes(net, Reparameterize())
    assert lines == before
    assert ctx.skips == [skip]
    assert ctx.rewrites == []


def test_leaves_an_identity_alone_that_no_convolution_can_be() -> None:
    """The one without padding sees a larger input; the sums are of one size all the same."""

    class Shrinking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(9)
            self.conv, self.bn = nn.Conv2d(1, 4, 1), norm()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.bn(x)  # type: ignore[no-any-return]

    class OneChannel(Shrinking):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(1, 4, 1), norm(1)

    done = apply(Reparameterize(), traced(OneChannel(), (2, 1, 9, 9)))
    assert not done.changed
    assert done.skips == [("add", "the identity branch does not fit conv")]


class Residual(nn.Module):
    """Sums that are no re-parameterisation: other inputs, no convolution, something between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(10)
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.act, self.bn, self.other = nn.SiLU(), norm(), norm()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.a(x)) + x
        z = self.a(y) + self.b(x)
        return 1 + 2 * (self.bn(z) + self.other(z))  # type: ignore[no-any-return]


def test_says_nothing_of_other_sums() -> None:
    before = text(traced(Residual(), SHAPE)).splitlines()
    lines, ctx = run_passes(Residual(), Reparameterize())
    assert (lines, ctx.skips, ctx.rewrites) == (before, [], [])


def test_leaves_the_distribution_of_the_sum_on_the_convolution() -> None:
    """Branches are taken as independent: means add, and so do variances."""
    gm = traced(rep_conv(), SHAPE)
    norms = [c.module for c in calls(gm, nn.BatchNorm2d)]
    apply(Reparameterize(), gm)
    kept = BatchNorm.on(calls(gm, nn.Conv2d)[0].node)
    assert kept is not None
    torch.testing.assert_close(kept.shift, torch.stack([n.bias for n in norms]).sum(0).detach())
    deviation = torch.stack([n.weight for n in norms]).square().sum(0).sqrt().detach()
    torch.testing.assert_close(kept.scale, deviation)


def test_knows_no_distribution_where_one_branch_has_none() -> None:
    assert combine([BatchNorm.of(norm())], branches=2) is None
    gm = traced(nets.summed(grouped(3), nn.Sequential(grouped(1), norm())), SHAPE)
    apply(Reparameterize(), gm)
    assert all("yqc.bn" not in n.meta for n in gm.graph.nodes)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_identity_returns_its_input(groups: int) -> None:
    conv = nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=groups, bias=False)
    conv.weight = nn.Parameter(identity(conv))
    x = torch.rand(SHAPE)
    assert torch.equal(conv(x), x)
