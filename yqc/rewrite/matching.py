"""Finding patterns in a graph.

Modules are matched by class, functions and methods by what is called; torch.fx's own matcher
compares the paths of modules.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from torch import fx, nn

from yqc.graph.calls import Call, call
from yqc.rewrite.patterns import Pattern


@dataclass(frozen=True)
class Match:
    """One place where a pattern was found."""

    gm: fx.GraphModule
    root: fx.Node
    """What the outermost pattern matched."""
    named: Mapping[str, Any]
    inner: tuple[fx.Node, ...]
    """The matched nodes but the root and those that variables matched, in graph order."""
    pattern: Pattern

    def __getitem__(self, name: str) -> fx.Node:
        """Return the node of that name in the pattern.

        Raises:
            KeyError: the pattern has no such name.
            TypeError: a plain value was matched; see `value`.
        """
        found = self.named[name]
        if not isinstance(found, fx.Node):
            raise TypeError(f"{name!r} matched the value {found!r}, which is no node")
        return found

    def value(self, name: str) -> Any:  # noqa: ANN401  # any argument of a node
        """Return the node or plain value of that name."""
        return self.named[name]

    def call(self, name: str) -> Call[Any]:
        """Return the module call of that name."""
        found = call(self.gm, self[name], nn.Module)
        if found is None:
            raise TypeError(f"{name!r} matched {self[name]}, which calls no module")
        return found

    def parts(self) -> dict[str, Any]:
        """Return what the names of the pattern matched: a `Call` for modules, else the node."""
        return {
            name: self.call(name) if part.op == "call_module" else self.named[name]
            for name, part in self.pattern.names().items()
        }


def matches(gm: fx.GraphModule, pattern: Pattern) -> Iterator[Match]:
    """Yield every match of a pattern in graph order, also where others read its inner nodes.

    The graph may be edited on the way: erased nodes are left out from then on.
    """
    for node in list(gm.graph.nodes):
        found = _Found()
        if not is_erased(node) and _fits(gm, node, pattern, found):
            inside = set(found.nodes) - {node}
            yield Match(gm, node, found.named, tuple(sorted(inside)), pattern)


def is_erased(node: fx.Node) -> bool:
    """Check whether a node was erased from its graph."""
    return bool(getattr(node, "_erased", False))


class _Found:
    """The nodes matched so far, and values by name."""

    def __init__(self) -> None:
        self.nodes: list[fx.Node] = []
        self.named: dict[str, Any] = {}

    def save(self) -> tuple[int, dict[str, Any]]:
        return len(self.nodes), dict(self.named)

    def restore(self, state: tuple[int, dict[str, Any]]) -> None:
        del self.nodes[state[0] :]
        self.named = dict(state[1])

    def bind(self, name: str, value: object) -> bool:
        """Give a value a name; False if the name belongs to another value."""
        if not name:
            return True
        if name in self.named:
            return self.named[name] is value or (
                not isinstance(value, fx.Node) and bool(self.named[name] == value)
            )
        self.named[name] = value
        return True


def _fits(gm: fx.GraphModule, value: object, pattern: object, found: _Found) -> bool:
    """Match a node, a value, or a list of them."""
    if not isinstance(pattern, Pattern):
        return _is_equal(gm, value, pattern, found)
    if pattern.op == "var":
        return found.bind(pattern.name, value)
    if pattern.op == "through":
        return _fits_through(gm, value, pattern, found)
    if not isinstance(value, fx.Node) or not _is_called(gm, value, pattern):
        return False
    state = found.save()
    for args in permutations(pattern.args) if pattern.commutative else (pattern.args,):
        if _fits_arguments(gm, value, args, pattern, found) and found.bind(pattern.name, value):
            found.nodes.append(value)
            return True
        found.restore(state)
    return False


def _fits_through(gm: fx.GraphModule, value: object, pattern: Pattern, found: _Found) -> bool:
    """Walk a chain of module calls up to its first node that the end's pattern matches."""
    passed: list[Call[nn.Module]] = []
    state = found.save()
    while not _fits(gm, value, pattern.args[0], found):
        found.restore(state)
        step = call(gm, value, pattern.targets)
        if step is None or not step.node.args:
            return False
        passed.insert(0, step)
        value = step.node.args[0]
    found.nodes += [step.node for step in passed]
    return found.bind(pattern.name, tuple(passed))


def _is_equal(gm: fx.GraphModule, value: object, pattern: object, found: _Found) -> bool:
    if isinstance(pattern, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(pattern)
            and all(_fits(gm, v, p, found) for v, p in zip(value, pattern, strict=True))
        )
    return not isinstance(value, fx.Node) and type(value) is type(pattern) and value == pattern


def _is_called(gm: fx.GraphModule, node: fx.Node, pattern: Pattern) -> bool:
    if node.op != pattern.op:
        return False
    if node.op == "call_module":
        return call(gm, node, pattern.targets) is not None
    return node.target in pattern.targets


def _fits_arguments(
    gm: fx.GraphModule, node: fx.Node, args: Sequence[object], pattern: Pattern, found: _Found
) -> bool:
    extra = len(node.args) > len(args) or node.kwargs.keys() - pattern.kwargs.keys()
    if len(node.args) < len(args) or (extra and not pattern.more):
        return False
    return all(
        _fits(gm, value, wanted, found) for value, wanted in zip(node.args, args, strict=False)
    ) and all(
        key in node.kwargs and _fits(gm, node.kwargs[key], wanted, found)
        for key, wanted in pattern.kwargs.items()
    )
