"""Taking channels out: what each kind of weight and argument becomes."""

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from tests.modules import conv, norm
from yqc import text, trace
from yqc.graph.channels.groups import find_channels
from yqc.graph.metadata import BatchNorm
from yqc.pruning.surgery import remove_channels

X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Halves(nn.Module):
    """A C2f in small: a chunk whose halves are used differently."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.z = nn.Conv2d(4, 4, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.bn(self.a(x)).chunk(2, 1)
        y: Tensor = self.z(torch.cat((left, right, right + self.b(right)), 1))
        return y


def without(gm: fx.GraphModule, target: str, *gone: int) -> None:
    """Remove channels that a module makes, and what goes with them."""
    channels = find_channels(gm)
    slot = channels.slot(target, "out")
    assert slot is not None
    keep = np.ones(channels.count, dtype=np.bool_)
    keep[slot.ids[list(gone)]] = False
    remove_channels(gm, channels, keep)


def test_uneven_chunks_become_a_split_with_sizes() -> None:
    gm = trace(Halves(), X)
    without(gm, "a", 0, 5, 6)
    assert "%chunk: (f32[1,3,8,8], f32[1,2,8,8]) = split(%bn, [3, 2], 1)" in text(gm)
    bn = norm(gm, "bn")
    assert bn.running_var is not None
    assert conv(gm, "a").weight.shape == (5, 3, 3, 3)
    assert bn.num_features == len(bn.running_var) == 5
    assert conv(gm, "b").weight.shape == (2, 2, 1, 1)
    assert conv(gm, "z").weight.shape == (2, 7, 1, 1)


def test_the_right_rows_and_columns_go() -> None:
    gm = trace(Halves(), X)
    a, z = conv(gm, "a").weight.clone(), conv(gm, "z").weight.clone()
    without(gm, "a", 5)
    assert torch.equal(conv(gm, "a").weight, a[[0, 1, 2, 3, 4, 6, 7]])
    assert torch.equal(conv(gm, "z").weight, z[:, [0, 1, 2, 3, 4, 6, 7, 8, 10, 11]])


def test_sizes_in_arguments_follow() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.z = nn.Conv2d(3, 6, 1), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.z(self.a(x).view(-1, 6, 64)[:, :, 0])
            return y

    gm = trace(Viewed(), X)
    without(gm, "a", 1, 2)
    assert "reshape(%a, -1, 4, 64)" in text(gm)
    assert gm(torch.rand(3, 3, 8, 8)).shape == (3, 2)


def test_what_is_known_of_the_folded_norm_is_trimmed() -> None:
    gm = trace(Halves(), X)
    node = next(n for n in gm.graph.nodes if n.name == "a")
    mean, variance, scale, shift = (torch.arange(8.0) for _ in range(4))
    node.meta["yqc.bn"] = BatchNorm(mean, variance, scale, shift, eps=0.1)
    without(gm, "a", 0)
    assert node.meta["yqc.bn"].shift.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_nodes_know_which_of_the_original_channels_they_have() -> None:
    gm = trace(Halves(), X)
    nodes = {n.name: n for n in gm.graph.nodes}
    without(gm, "a", 0, 5)
    assert nodes["bn"].meta["yqc.kept"].channels.tolist() == [1, 2, 3, 4, 6, 7]
    without(gm, "a", 1)
    assert nodes["bn"].meta["yqc.kept"].channels.tolist() == [1, 3, 4, 6, 7]
    assert "yqc.kept" not in nodes["z"].meta


def test_a_pinned_channel_is_not_removed() -> None:
    gm = trace(Halves(), X)
    with pytest.raises(ValueError, match=r"a pinned channel .*: it is the graph's output"):
        without(gm, "z", 0)
