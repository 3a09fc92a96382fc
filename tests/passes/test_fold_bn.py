"""fold-bn: what it folds, what it leaves alone and why, and what it leaves on the node."""

import pytest
import torch
from torch import Tensor, nn

from yqc import BatchNorm, Context, text, trace
from yqc.graph.edit import tidy
from yqc_passes.fold_bn import FoldBatchNorm

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def unlike_identity(bn: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A fresh batch norm is the identity: it hides bugs."""
    g = torch.Generator().manual_seed(1)
    if bn.running_mean is not None and bn.running_var is not None:
        nn.init.uniform_(bn.running_mean, -1, 1, generator=g)
        nn.init.uniform_(bn.running_var, 0.5, 2.0, generator=g)
    if bn.affine:
        nn.init.uniform_(bn.weight, 0.5, 2.0, generator=g)
        nn.init.uniform_(bn.bias, -1, 1, generator=g)
    return bn


class ConvBn(nn.Module):
    def __init__(self, conv: nn.Conv2d | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = conv or nn.Conv2d(3, 6, 3, bias=False)
        self.bn = unlike_identity(bn or nn.BatchNorm2d(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class Tapped(ConvBn):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y  # type: ignore[no-any-return]


class CalledTwice(ConvBn):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.conv(2 * x)  # type: ignore[no-any-return]


class ReadTwice(ConvBn):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.conv.weight.mean()  # type: ignore[no-any-return]


class OneNormForTwo(ConvBn):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.bn(self.other(x))  # type: ignore[no-any-return]


def test_folds_and_keeps_the_numbers() -> None:
    gm, ctx = trace(ConvBn(), X), Context()
    want = gm(X)
    FoldBatchNorm().run(gm, ctx)
    gm.recompile()
    tidy(gm)
    assert text(gm).splitlines() == [
        "%x: f32[2,3,8,8] = input",
        "%conv: f32[2,6,6,6] = Conv2d(%x)",
        "return %conv",
    ]
    torch.testing.assert_close(gm(X), want)
    assert [(r.node, r.what) for r in ctx.rewrites] == [("bn", "folded into conv")]
    assert ctx.rewrites[0].where.startswith("fold_bn.py:")
    assert ctx.skips == []


@pytest.mark.parametrize(
    ("conv", "bn"),
    [
        (nn.Conv2d(3, 6, 3, bias=True), nn.BatchNorm2d(6)),
        (nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), nn.BatchNorm2d(6)),
        (nn.Conv2d(3, 6, 3, dilation=2, padding=2, padding_mode="reflect"), nn.BatchNorm2d(6)),
        (nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6, affine=False)),
        (nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6, eps=0.5)),
    ],
    ids=["bias", "grouped", "dilated", "not affine", "large eps"],
)
def test_folds_every_kind_of_pair(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> None:
    gm, ctx = trace(ConvBn(conv, bn), X), Context()
    want = gm(X)
    FoldBatchNorm().run(gm, ctx)
    gm.recompile()
    assert len(ctx.rewrites) == 1
    torch.testing.assert_close(gm(X), want)


def test_folds_one_norm_that_serves_two_convolutions_into_both() -> None:
    gm, ctx = trace(OneNormForTwo(), X), Context()
    want = gm(X)
    FoldBatchNorm().run(gm, ctx)
    tidy(gm)
    assert [(r.node, r.what) for r in ctx.rewrites] == [
        ("bn", "folded into conv"),
        ("bn_1", "folded into other"),
    ]
    assert "BatchNorm2d" not in text(gm)
    torch.testing.assert_close(gm(X), want)


def test_folds_two_norms_in_a_row() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), unlike_identity(nn.BatchNorm2d(6)), unlike_identity(nn.BatchNorm2d(6))
    )
    gm, ctx = trace(net, X), Context()
    want = gm(X)
    FoldBatchNorm().run(gm, ctx)
    tidy(gm)
    assert len(ctx.rewrites) == 2
    assert text(gm).count("Conv2d") == 1
    assert "BatchNorm2d" not in text(gm)
    torch.testing.assert_close(gm(X), want)


@pytest.mark.parametrize(
    ("net", "skip"),
    [
        (Tapped(), ("bn", "conv has other users")),
        (CalledTwice(), ("bn", "conv is called from more than one place")),
        (ReadTwice(), ("bn", "conv is called from more than one place")),
        (
            ConvBn(bn=nn.BatchNorm2d(6, track_running_stats=False)),
            ("bn", "it normalises by batch statistics"),
        ),
    ],
    ids=["other user", "called twice", "weight read elsewhere", "no statistics"],
)
def test_leaves_a_near_miss_alone_and_says_why(net: nn.Module, skip: tuple[str, str]) -> None:
    gm, ctx = trace(net, X), Context()
    before, want = text(gm), gm(X)
    FoldBatchNorm().run(gm, ctx)
    gm.recompile()
    assert text(gm) == before
    assert torch.equal(gm(X), want)
    assert ctx.skips == [skip]
    assert ctx.rewrites == []


def test_min_var_counts_variance_and_eps_together() -> None:
    net = ConvBn(bn=nn.BatchNorm2d(6, eps=0.25))
    assert net.bn.running_var is not None
    net.bn.running_var[2] = 0.125
    for least, rewrites in (0.37, 1), (0.375, 0):
        gm, ctx = trace(net, X), Context()
        FoldBatchNorm(min_var=least).run(gm, ctx)
        assert len(ctx.rewrites) == rewrites
    assert ctx.skips == [("bn", "a channel variance is at or below 0.375")]


def test_folds_a_dead_channel() -> None:
    """A channel that never fires has no variance at all; eps alone keeps it finite."""
    net = ConvBn()
    assert net.bn.running_var is not None
    net.bn.running_var[0] = 0.0
    gm = trace(net, X)
    want = gm(X)
    FoldBatchNorm().run(gm, Context())
    gm.recompile()
    torch.testing.assert_close(gm(X), want, rtol=1e-4, atol=1e-4)


def test_says_nothing_of_what_is_no_match() -> None:
    net = nn.Sequential(unlike_identity(nn.BatchNorm2d(3)), nn.Conv2d(3, 4, 1), nn.SiLU())
    gm, ctx = trace(net, X), Context()
    before = text(gm)
    FoldBatchNorm().run(gm, ctx)
    assert (text(gm), ctx.skips, ctx.rewrites) == (before, [], [])


def test_leaves_what_it_folded_on_the_convolution() -> None:
    net = ConvBn(bn=nn.BatchNorm2d(6, eps=0.25))
    bn = net.bn
    gm = trace(net, X)
    FoldBatchNorm().run(gm, Context())
    kept = next(n for n in gm.graph.nodes if n.name == "conv").meta["yqc.bn"]
    assert isinstance(kept, BatchNorm)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    for tensor, known in (
        (bn.running_mean, kept.mean),
        (bn.running_var, kept.variance),
        (bn.weight, kept.scale),
        (bn.bias, kept.shift),
    ):
        assert torch.equal(tensor, known)
        assert tensor.data_ptr() != known.data_ptr(), "a copy: pruning edits the graph's own"
    assert kept.eps == 0.25


def test_folded_convolution_has_the_mean_and_deviation_that_it_left() -> None:
    """Over data with the running statistics, outputs have mean `shift` and deviation `scale`."""
    net = ConvBn()
    many = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        y = net.conv(many)
        net.bn.running_mean = y.mean((0, 2, 3))
        net.bn.running_var = y.var((0, 2, 3))
        gm = trace(net, X)
        FoldBatchNorm().run(gm, Context())
        gm.recompile()
        kept: BatchNorm = next(n for n in gm.graph.nodes if n.name == "conv").meta["yqc.bn"]
        out = gm(many)
    torch.testing.assert_close(out.mean((0, 2, 3)), kept.shift.detach(), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.std((0, 2, 3)), kept.scale.abs().detach(), rtol=1e-3, atol=0)
