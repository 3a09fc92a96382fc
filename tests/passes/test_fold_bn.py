"""fold-bn: what it folds, what it leaves alone and why, and what it leaves on the node."""

import pytest
import torch
from torch import Tensor, nn

from yqc import BatchNorm, text
from yqc.testing import apply, assert_same_numbers, assert_text, nets, run, traced
from yqc_passes.fold_bn import FoldBatchNorm

SHAPE = (2, 3, 8, 8)


class ConvBn(nn.Module):
    def __init__(self, conv: nn.Conv2d | None = None, bn: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 6, 3, bias=False)
        self.bn = bn or nn.BatchNorm2d(6)
        nets.seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


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
        nets.seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.bn(self.other(x))  # type: ignore[no-any-return]


def test_folds_and_keeps_the_numbers() -> None:
    gm = traced(ConvBn(), SHAPE)
    want = run(gm)
    done = apply(FoldBatchNorm(), gm)
    assert_text(
        gm,
        """
        %x: f32[2,3,8,8] = input
        %conv: f32[2,6,6,6] = Conv2d(%x)
        return %conv
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-6)
    assert done.rewrites == [("bn", "folded into conv")]
    assert done.context.rewrites[0].where.startswith("fold_bn.py:")
    assert done.skips == []


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
    gm = traced(ConvBn(conv, bn), SHAPE)
    want = run(gm)
    assert len(apply(FoldBatchNorm(), gm).rewrites) == 1
    assert_same_numbers(run(gm), want, tolerance=1e-6)


def test_folds_one_norm_that_serves_two_convolutions_into_both() -> None:
    gm = traced(OneNormForTwo(), SHAPE)
    want = run(gm)
    assert apply(FoldBatchNorm(), gm).rewrites == [
        ("bn", "folded into conv"),
        ("bn_1", "folded into other"),
    ]
    assert "BatchNorm2d" not in text(gm)
    assert_same_numbers(run(gm), want, tolerance=1e-6)


def test_folds_two_norms_in_a_row() -> None:
    net = nets.chain(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(6))
    gm = traced(net, SHAPE)
    want = run(gm)
    assert len(apply(FoldBatchNorm(), gm).rewrites) == 2
    assert text(gm).count("Conv2d") == 1
    assert "BatchNorm2d" not in text(gm)
    assert_same_numbers(run(gm), want, tolerance=1e-6)


@pytest.mark.parametrize(
    ("net", "skip"),
    [
        (nets.conv_bn(tap=True), ("bn", "conv has other users")),
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
    gm = traced(net, SHAPE)
    done = apply(FoldBatchNorm(), gm)
    assert not done.changed
    assert (done.rewrites, done.skips) == ([], [skip])


def test_min_var_counts_variance_and_eps_together() -> None:
    net = ConvBn(bn=nn.BatchNorm2d(6, eps=0.25))
    assert net.bn.running_var is not None
    net.bn.running_var[2] = 0.125
    for least, rewrites in (0.37, 1), (0.375, 0):
        done = apply(FoldBatchNorm(min_var=least), traced(net, SHAPE))
        assert len(done.rewrites) == rewrites
    assert done.skips == [("bn", "a channel variance is at or below 0.375")]


def test_folds_a_dead_channel() -> None:
    """A channel that never fires has no variance at all; eps alone keeps it finite."""
    net = ConvBn()
    assert net.bn.running_var is not None
    net.bn.running_var[0] = 0.0
    gm = traced(net, SHAPE)
    want = run(gm)
    apply(FoldBatchNorm(), gm)
    assert_same_numbers(run(gm), want, tolerance=1e-5)


def test_says_nothing_of_what_is_no_match() -> None:
    gm = traced(nets.chain(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.SiLU()), SHAPE)
    done = apply(FoldBatchNorm(), gm)
    assert (done.changed, done.skips, done.rewrites) == (False, [], [])


def test_marks_the_convolution_with_the_batch_norm() -> None:
    net = ConvBn(bn=nn.BatchNorm2d(6, eps=0.25))
    bn = net.bn
    gm = traced(net, SHAPE)
    apply(FoldBatchNorm(), gm)
    kept = BatchNorm.on(next(n for n in gm.graph.nodes if n.name == "conv"))
    assert kept is not None
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
        gm = traced(net, SHAPE)
        apply(FoldBatchNorm(), gm)
        kept: BatchNorm = next(n for n in gm.graph.nodes if n.name == "conv").meta["yqc.bn"]
        out = gm(many)
    torch.testing.assert_close(out.mean((0, 2, 3)), kept.shift.detach(), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.std((0, 2, 3)), kept.scale.abs().detach(), rtol=1e-3, atol=0)
