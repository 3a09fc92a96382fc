"""Questions about fx graphs, and edits of them. Knows nothing of models, ONNX or passes.

In reading order:

- `calls`: calls of modules and functions, and who else calls a module
- `values`, `meta_tensors`, `shape_rules`: shape and dtype of what a node computes
- `text`: a graph as text
- `roles`: which part of a detector a node belongs to
- `metadata`: what passes leave on nodes
- `edit`: putting a graph in order after it was edited
- `run`: running a graph, or a part of it, and keeping values
- `folding`: a batch norm folded into a convolution
- `compare`: how far two stages of a graph are apart
- `memory`: how images and weights lie in memory
- `noise`: seeded images for graphs without data
- `resizing`: a graph for images of another size
- `half`: graphs that compute in half precision
- `history`: which pass made or changed a node
- `torch_layers`: modules of torch that can be made anew, and their settings
- `optable`, `operators`, `serial`: saved graphs, and what they may hold
- `channels`: which channels of a graph must go together
- `match`: the former name of `yqc.rewrite`
"""

from yqc.graph.calls import (
    Call,
    call,
    callers,
    calls,
    chains,
    get_attribute,
    has_effect,
    is_function,
)
from yqc.graph.channels import ChannelBlock, Channels, channel_groups, dependencies
from yqc.graph.compare import head_nodes, node_outputs, sqnr_db
from yqc.graph.edit import bypass, drop_unread
from yqc.graph.folding import fold_conv_bn, fold_kernel
from yqc.graph.history import Event, history
from yqc.graph.memory import as_weights, channels_last, lay_out
from yqc.graph.metadata import BatchNorm, Mark
from yqc.graph.noise import make_noise
from yqc.graph.roles import assign_roles, role
from yqc.graph.run import compute_node, last_uses, run_graph
from yqc.graph.text import text
from yqc.graph.values import TensorSpec, propagate, shape, spec

__all__ = [
    "BatchNorm",
    "Call",
    "ChannelBlock",
    "Channels",
    "Event",
    "Mark",
    "TensorSpec",
    "as_weights",
    "assign_roles",
    "bypass",
    "call",
    "callers",
    "calls",
    "chains",
    "channel_groups",
    "channels_last",
    "compute_node",
    "dependencies",
    "drop_unread",
    "fold_conv_bn",
    "fold_kernel",
    "get_attribute",
    "has_effect",
    "head_nodes",
    "history",
    "is_function",
    "last_uses",
    "lay_out",
    "make_noise",
    "node_outputs",
    "propagate",
    "role",
    "run_graph",
    "shape",
    "spec",
    "sqnr_db",
    "text",
]
