"""Finding nodes: calls of modules, chains of them, who else calls a module, and side effects."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import fx, nn

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Call(Generic[M]):
    """A `call_module` node and the module that it calls."""

    node: fx.Node
    target: str
    """Dotted path of the module in the graph module."""
    module: M

    def __str__(self) -> str:
        return self.node.name


def call(gm: fx.GraphModule, node: object, kind: type[M] | tuple[type[M], ...]) -> Call[M] | None:
    """Return `node` as a call of a module of `kind`, or None if it is anything else."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = gm.get_submodule(str(node.target))
    return Call(node, str(node.target), module) if isinstance(module, kind) else None


def calls(gm: fx.GraphModule, kind: type[M] | tuple[type[M], ...]) -> list[Call[M]]:
    """List the calls of modules of `kind`, in graph order."""
    found = (call(gm, node, kind) for node in gm.graph.nodes)
    return [c for c in found if c is not None]


def chains(gm: fx.GraphModule, *kinds: type[nn.Module]) -> Iterator[tuple[Call[Any], ...]]:
    """Yield every chain of module calls where each is the first input of the next.

    The calls in between may have other users too. The calls of the last kind are listed before the
    first chain is yielded, so the graph may be edited on the way.
    """
    for last in calls(gm, kinds[-1]):
        run: list[Call[Any]] = [last]
        for kind in reversed(kinds[:-1]):
            source = run[0].node.args[0] if run[0].node.args else None
            before = call(gm, source, kind)
            if before is None:
                break
            run.insert(0, before)
        else:
            yield tuple(run)


def callers(gm: fx.GraphModule, target: object) -> int:
    """Count the nodes that call, or read a tensor of, the module at `target`."""
    path = str(target)
    return sum(
        (node.op == "call_module" and node.target == path)
        or (node.op == "get_attr" and str(node.target).startswith(f"{path}."))
        for node in gm.graph.nodes
    )


def is_function(node: object, *functions: Callable[..., Any]) -> bool:
    """Check whether `node` calls one of the given functions."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in functions


def has_effect(node: fx.Node) -> bool:
    """Check whether a node must stay even if nothing reads its result.

    These are the nodes that fx takes for impure, and methods that write into their tensor
    (`x.mul_(2)`).
    """
    in_place = node.op == "call_method" and str(node.target).endswith("_")
    return in_place or node.is_impure()


def get_attribute(root: nn.Module, target: str) -> object:
    """Return the attribute at a dotted path, as a `get_attr` node names it."""
    value: object = root
    for atom in target.split("."):
        value = getattr(value, atom)
    return value
