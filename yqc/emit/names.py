"""Find the ONNX ops that each node of a graph becomes, by lowering it."""

from torch import fx

from yqc.emit.build import HIGHEST_OPSET, lower
from yqc.emit.emitter import Constant, Emitter
from yqc.errors import LoweringError
from yqc.graph import TensorSpec


def onnx_ops(gm: fx.GraphModule) -> dict[str, tuple[str, ...] | None]:
    """Return, by node name, the types of the ONNX ops that each node becomes before simplifying.

    None stands for a node that has no lowering, such as an observer; inputs, outputs and tensors
    that the graph holds become no op.
    """
    e = Emitter(gm, opset=HIGHEST_OPSET, dynamic=False)
    found: dict[str, tuple[str, ...] | None] = {}
    for node in gm.graph.nodes:
        e.begin(node)
        since = len(e.nodes)
        try:
            lower(e, node)
        except LoweringError:
            e.values[node] = _stand_in(node)
            found[node.name] = None
            continue
        found[node.name] = tuple(made.op_type for made in e.nodes[since:])
    return found


def _stand_in(node: fx.Node) -> str | tuple[str, ...] | Constant:
    """Give what reads a node without a lowering something to read."""
    value = node.meta.get("yqc.value")
    if isinstance(value, tuple) and not isinstance(value, TensorSpec):
        return tuple(f"{node.name}.{i}" for i in range(len(value)))
    return node.name
