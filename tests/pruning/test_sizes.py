"""Counted sizes are those of the pruned graph."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.graph.channel_nets import OPS, Net, Program
from yqc import trace
from yqc.graph.channels.groups import find_channels
from yqc.graph.channels.sets import ChannelBlock
from yqc.graph.compare import macs, parameter_count
from yqc.pruning.selection import (
    GroupLimits,
    cut_slices,
    keep_without,
    rank_within_groups,
    select_share,
)
from yqc.pruning.sizes import SizeCounter
from yqc.pruning.surgery import remove_channels

X = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
programs = st.lists(
    st.tuples(st.sampled_from(OPS), st.integers(0, 30), st.integers(0, 30)), max_size=8
)


@settings(max_examples=40, deadline=None)
@given(programs, st.integers(0, 1000))
def test_sizes_are_those_of_the_pruned_graph(program: Program, seed: int) -> None:
    torch.manual_seed(seed)
    gm = trace(Net(program), X)
    channels = find_channels(gm)
    chance = np.random.default_rng(seed)
    keep = np.array([bool(p) for p in channels.pins]) | (chance.random(channels.count) < 0.5)
    for block in channels.blocks:
        keep[block.first] = True
    pruned = copy.deepcopy(gm)
    remove_channels(pruned, channels, keep)
    for measure, count in (("params", parameter_count), ("macs", macs)):
        sizes = SizeCounter(gm, channels, measure)  # type: ignore[arg-type]
        assert sizes.whole == count(gm)
        assert sizes.left(keep) == pytest.approx(count(pruned))


def block(first: int, count: int, pin: str = "") -> ChannelBlock:
    return ChannelBlock(first, count, ((0, first),), pin)


def test_what_stays_is_a_multiple() -> None:
    limits = GroupLimits(round_to=8, max_per_layer=1.0, min_channels=1)
    parts = cut_slices([block(0, 43)], np.arange(43.0), limits)
    assert [len(p.sets) for p in parts] == [3, 8, 8, 8, 8]
    assert [limits.step(n) for n in (4, 8, 16, 31, 32, 256)] == [1, 1, 2, 2, 8, 8]


def test_the_lowest_scores_go_first_and_limits_hold() -> None:
    scores = np.array([5.0, 1, 4, 2, 3, 9, 9, 9])
    limits = GroupLimits(round_to=1, max_per_layer=0.5, min_channels=2)
    parts = cut_slices([block(0, 5), block(5, 3, pin="it is fixed")], scores, limits)
    assert [p.sets.tolist() for p in parts] == [[1], [3]]
    assert keep_without(8, parts).tolist() == [True, False, True, False, True, True, True, True]


def test_by_layer_scores_are_ranks_in_the_group() -> None:
    ranks = rank_within_groups([block(0, 4), block(4, 2)], np.array([3.0, 1, 2, 0, 100, 50]))
    assert ranks.tolist() == [0.75, 0.25, 0.5, 0, 0.5, 0]


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6])
def test_the_asked_share_is_reached(share: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 256, 3), nn.Conv2d(256, 192, 1), nn.Conv2d(192, 24, 1))
    gm = trace(net, X)
    channels = find_channels(gm)
    sizes = SizeCounter(gm, channels, "params")
    scores = np.random.default_rng(1).random(channels.count)
    parts = cut_slices(channels.blocks, scores, GroupLimits(1, 0.9, 1))
    assert sizes.share_removed(select_share(sizes, parts, share)) == pytest.approx(share, rel=0.01)
