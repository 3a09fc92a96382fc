"""Which channels of a graph must be removed together.

In reading order:

- `sets`: sets of channels, and where they stand in weights
- `rules`: what each function, method and simple module does with channels
- `walk`: following channels through a graph
- `groups`: the result, as `Channels` and as a networkx graph
"""

from yqc.graph.channels.groups import channel_groups, dependencies, find_channels
from yqc.graph.channels.sets import Axis, ChannelBlock, Channels, Cut, Slot

__all__ = [
    "Axis",
    "ChannelBlock",
    "Channels",
    "Cut",
    "Slot",
    "channel_groups",
    "dependencies",
    "find_channels",
]
