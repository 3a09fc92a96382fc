"""Finding which channels of a graph must be removed together, and which must stay.

`find_channels` returns them for rewrites, `channel_groups` as a networkx graph.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import fx

from yqc.graph.channels.sets import Axis, ChannelBlock, Channels, Slot, find_blocks
from yqc.graph.channels.walk import ChannelWalk

if TYPE_CHECKING:
    import networkx as nx


def find_channels(gm: fx.GraphModule) -> Channels:
    """Follow channel identities through a graph whose nodes know their shapes.

    Raises:
        TraceError: a node's shape is not known.
    """
    walk = ChannelWalk(gm).run()
    numbers, pins = walk.sets.number()
    slots = tuple(replace(s, ids=numbers[s.ids]) for s in walk.slots.values())
    cuts = tuple(replace(c, ids=tuple(numbers[i] for i in c.ids)) for c in walk.cuts)
    axes = {
        node: Axis(known.dim, numbers[known.ids])
        for node, known in walk.known.items()
        if isinstance(known, Axis)
    }
    parts = [ids for cut in cuts if cut.kind != "size" for ids in cut.ids]
    return Channels(slots, cuts, axes, pins, find_blocks(slots, parts, pins))


def channel_groups(gm: fx.GraphModule) -> "nx.Graph[str]":
    """Return the channel groups of a graph: one connected component a group.

    A node is a run of channels of one weight's axis, `model.0.conv.out[0:16]` (what the module
    makes), `model.1.conv.in[0:16]` (what it reads), or `model.0.bn[0:16]` (what passes through it),
    with attributes `target`, `side` (`out`, `in`, `channels`), `first`, `last` and `group`. An edge
    leads from where the channels are made to where they are used. All nodes of a component have
    the same number of channels; the i-th of each go together. `pinned` holds the reason why a
    group's channels must stay, or an empty text. Channels that occur several times in one axis, as
    in a grouped convolution, make several nodes.

    Raises:
        TraceError: a node's shape is not known; trace with `yqc.trace`.
    """
    import networkx as nx  # noqa: PLC0415  # it takes long to import, and few passes need it

    channels = find_channels(gm)
    graph: nx.Graph[str] = nx.Graph()
    for index, block in enumerate(channels.blocks):
        names: list[str] = []
        makers: list[str] = []
        for place, first in block.places:
            slot = channels.slots[place]
            name = label_run(slot, first, block.count)
            graph.add_node(
                name,
                target=slot.target,
                side=slot.side,
                first=first,
                last=first + block.count,
                group=index,
                pinned=block.pin,
            )
            (makers if slot.side == "out" else names).append(name)
        hub, *others = [*makers, *names] or [""]
        for other in others:
            graph.add_edge(hub, other)
    return graph


def label_run(slot: Slot, first: int, count: int) -> str:
    """Name a run of channels: `model.0.conv.out[0:16]`."""
    return f"{slot}[{first}:{first + count}]"


def dependencies(channels: Channels) -> list[str]:
    """Print the groups, a dependency a line, with reasons of pins: `a.out[0:16] => b.in[0:16]`."""
    return [line for block in channels.blocks for line in show_block(channels, block)]


def show_block(channels: Channels, block: ChannelBlock) -> list[str]:
    """Print one block, one dependency a line."""
    places = [(channels.slots[place], first) for place, first in block.places]
    makers = [label_run(s, first, block.count) for s, first in places if s.side == "out"]
    users = [label_run(s, first, block.count) for s, first in places if s.side != "out"]
    if not makers:
        return []
    note = f"  (pinned: {block.pin})" if block.pin else ""
    lines = [f"{makers[0]} => {other}{note}" for other in [*makers[1:], *users]]
    return lines or [f"{makers[0]} => nothing{note}"]
