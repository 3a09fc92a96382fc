"""Removing channels whose weights are zero leaves the output unchanged, on random graphs."""

import copy

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from tests.graph.channel_nets import OPS, Net, Program
from yqc import trace
from yqc.graph.channels.groups import channel_groups, find_channels
from yqc.graph.channels.sets import Channels
from yqc.pruning.surgery import Keep, remove_channels
from yqc.testing import nets

X = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
programs = st.lists(
    st.tuples(st.sampled_from(OPS), st.integers(0, 30), st.integers(0, 30)), max_size=10
)


def drawn(channels: Channels, seed: int) -> Keep:
    """Choose at random what stays: all that is pinned, and at least one of every group."""
    chance = np.random.default_rng(seed)
    keep = np.ones(channels.count, dtype=np.bool_)
    for block in channels.blocks:
        if not block.pin:
            stay = chance.random(block.count) < 0.5
            stay[chance.integers(block.count)] = True
            keep[block.first : block.first + block.count] = stay
    return keep


def silence(gm: fx.GraphModule, channels: Channels, keep: Keep) -> None:
    """Set to zero the weights with which consumers read what is to go."""
    with torch.no_grad():
        for slot in channels.slots:
            if slot.side != "in":
                continue
            module = gm.get_submodule(slot.target)
            assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
            gone = torch.from_numpy(~keep[slot.ids])
            if isinstance(module, nn.ConvTranspose2d):
                module.weight[gone] = 0
            else:
                groups = getattr(module, "groups", 1)
                module.weight[:, gone[: len(gone) // groups]] = 0


@settings(max_examples=60, deadline=None)
@given(programs, st.integers(0, 1000))
def test_removing_what_nobody_weighs_changes_nothing(program: Program, seed: int) -> None:
    torch.manual_seed(seed)
    gm = trace(nets.seeded(Net(program), seed), X[:1])
    channels = find_channels(gm)
    keep = drawn(channels, seed)
    silence(gm, channels, keep)
    pruned = copy.deepcopy(gm)
    remove_channels(pruned, channels, keep)
    torch.testing.assert_close(pruned(X), gm(X), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in pruned.parameters()) <= sum(p.numel() for p in gm.parameters())


@settings(max_examples=30, deadline=None)
@given(programs)
def test_components_have_one_number_of_channels_and_one_reason(program: Program) -> None:
    torch.manual_seed(0)
    graph = channel_groups(trace(Net(program), X[:1]))
    groups: dict[int, set[tuple[int, str]]] = {}
    for _, known in graph.nodes(data=True):
        groups.setdefault(known["group"], set()).add(
            (known["last"] - known["first"], known["pinned"])
        )
    assert all(len(kinds) == 1 for kinds in groups.values())
    for a, b in graph.edges:
        assert graph.nodes[a]["group"] == graph.nodes[b]["group"]
