"""Rewriting by pattern, check, rewrite: what to look for, why not, and what to put there.

    x = var("x")
    relu = module(nn.ReLU, module(nn.ReLU, x, name="first"), name="second")

    def rewrite(gm: fx.GraphModule, m: Match) -> fx.Node:
        return m["first"]

    rewrite_all(gm, ctx, relu, rewrite, what="two ReLUs became one")

Patterns are matched by the class of a module or the function that is called, where torch.fx's own
matcher compares the paths of modules and passes over a near-match without a word. Here a match
whose inner results something else reads is refused with the reason, and so is what `check` refuses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Protocol, TypeAlias

from torch import fx, nn

from yqc.graph.calls import Call, call
from yqc.graph.edit import has_effect
from yqc.graph.roles import KEY as ROLE
from yqc.graph.values import KEY as VALUE


@dataclass(frozen=True, eq=False)
class Pattern:
    """One node to look for; made by `var`, `module`, `function` and `method`."""

    op: str
    targets: tuple[Any, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    commutative: bool = False
    more: bool = False
    """Whether further arguments may follow those that are given."""


def var(name: str) -> Pattern:
    """Match whatever stands there, a node or a value; the same name means the same thing."""
    return Pattern("var", name=name)


def module(
    kinds: type[nn.Module] | tuple[type[nn.Module], ...], *args: object, name: str = ""
) -> Pattern:
    """Match the call of a module of one of these classes, on these inputs."""
    targets = kinds if isinstance(kinds, tuple) else (kinds,)
    return _pattern("call_module", targets, args, {}, name, commutative=False)


def function(
    functions: Callable[..., Any] | tuple[Callable[..., Any], ...],
    *args: object,
    name: str = "",
    commutative: bool = False,
    **kwargs: object,
) -> Pattern:
    """Match the call of one of these functions.

    Args:
        functions: one, or alternatives (`(operator.add, torch.add)`).
        args: patterns, values that must be equal, lists of these; a last `...` allows any more.
        name: what the match calls the node.
        commutative: whether the arguments may stand in any order.
        kwargs: as args.
    """
    targets = functions if isinstance(functions, tuple) else (functions,)
    return _pattern("call_function", targets, args, kwargs, name, commutative=commutative)


def method(
    names: str | tuple[str, ...], *args: object, name: str = "", **kwargs: object
) -> Pattern:
    """Match the call of a tensor method of one of these names; the tensor is the first argument."""
    targets = names if isinstance(names, tuple) else (names,)
    return _pattern("call_method", targets, args, kwargs, name, commutative=False)


def _pattern(
    op: str,
    targets: tuple[Any, ...],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    name: str,
    *,
    commutative: bool,
) -> Pattern:
    more = bool(args) and args[-1] is ...
    return Pattern(op, targets, args[:-1] if more else args, kwargs, name, commutative, more)


@dataclass(frozen=True)
class Match:
    """Where a pattern was found."""

    gm: fx.GraphModule
    root: fx.Node
    """What the outermost pattern matched."""
    named: Mapping[str, Any]
    inner: tuple[fx.Node, ...]
    """The matched nodes but the root and what variables stand for, in graph order."""

    def __getitem__(self, name: str) -> fx.Node:
        """Return the node of that name in the pattern.

        Raises:
            KeyError: the pattern has no such name.
            TypeError: a plain value stands there; see `value`.
        """
        found = self.named[name]
        if not isinstance(found, fx.Node):
            raise TypeError(f"{name!r} matched the value {found!r}, which is no node")
        return found

    def value(self, name: str) -> Any:  # noqa: ANN401  # whatever the graph holds there
        """Return what stands there, a node or a plain value."""
        return self.named[name]

    def call(self, name: str) -> Call[Any]:
        """Return the module call of that name."""
        found = call(self.gm, self[name], nn.Module)
        if found is None:
            raise TypeError(f"{name!r} matched {self[name]}, which calls no module")
        return found


class Records(Protocol):
    """Where rewrites and refusals are recorded: a `yqc.Context`."""

    def rewrote(self, node: fx.Node, what: str) -> None: ...  # noqa: D102
    def skipped(self, node: fx.Node, why: str) -> None: ...  # noqa: D102


Check: TypeAlias = Callable[[fx.GraphModule, Match], str | None]
Rewrite: TypeAlias = Callable[[fx.GraphModule, Match], fx.Node]


def matches(gm: fx.GraphModule, pattern: Pattern) -> Iterator[Match]:
    """Yield every place where a pattern stands, in graph order, whoever else reads inside it.

    The graph may be edited on the way: what was erased is not looked at any more.
    """
    for node in list(gm.graph.nodes):
        found = _Found()
        if not _erased(node) and _fits(gm, node, pattern, found):
            inside = {n for _, n in found.nodes} - {node}
            yield Match(gm, node, found.named, tuple(sorted(inside)))


def rewrite_all(
    gm: fx.GraphModule,
    ctx: Records,
    pattern: Pattern,
    rewrite: Rewrite,
    *,
    check: Check | None = None,
    what: str = "rewritten",
) -> int:
    """Rewrite every place where a pattern stands; refuse, with a reason, what may not be.

    Args:
        gm: the graph, edited in place.
        ctx: rewrites and refusals are recorded here.
        pattern: what to look for.
        rewrite: returns the node whose result takes the place of the match's. New nodes go before
            the match's root, and get its shape and role where they have none.
        check: returns why a match must stay as it is, or None.
        what: recorded of each rewrite.

    Returns:
        The number of rewrites.
    """
    done = 0
    for match in matches(gm, pattern):
        if why := _tapped(match) or (check and check(gm, match)):
            ctx.skipped(match.root, why)
            continue
        before = set(gm.graph.nodes)
        with gm.graph.inserting_before(match.root):
            result = rewrite(gm, match)
        for node in gm.graph.nodes:
            if node not in before:
                for key in (VALUE, ROLE):
                    if key in match.root.meta:
                        node.meta.setdefault(key, match.root.meta[key])
        _replace(match, result)
        ctx.rewrote(match.root, what)
        done += 1
    return done


def _replace(match: Match, result: fx.Node) -> None:
    """Let a node take the place of a match, and erase what nothing reads any more."""
    if result is not match.root:
        match.root.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)
    for node in reversed((*match.inner, match.root)):
        if not _erased(node) and not node.users and node is not result and not has_effect(node):
            match.gm.graph.erase_node(node)


def _tapped(match: Match) -> str | None:
    """Say which inner result something outside the match reads."""
    inside = {*match.inner, match.root}
    for node in match.inner:
        if not inside.issuperset(node.users):
            return f"{node} has other users"
    return None


def _erased(node: fx.Node) -> bool:
    return bool(getattr(node, "_erased", False))


class _Found:
    """What was matched so far: nodes by pattern, and values by name."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Pattern, fx.Node]] = []
        self.named: dict[str, Any] = {}

    def save(self) -> tuple[int, dict[str, Any]]:
        return len(self.nodes), dict(self.named)

    def restore(self, state: tuple[int, dict[str, Any]]) -> None:
        del self.nodes[state[0] :]
        self.named = state[1]

    def bind(self, name: str, value: object) -> bool:
        """Let a name stand for a value, unless it stands for another one."""
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
        return _equal(gm, value, pattern, found)
    if pattern.op == "var":
        return found.bind(pattern.name, value)
    if not isinstance(value, fx.Node) or not _is_called(gm, value, pattern):
        return False
    state = found.save()
    for args in _orders(pattern):
        if _arguments(gm, value, args, pattern, found) and found.bind(pattern.name, value):
            found.nodes.append((pattern, value))
            return True
        found.restore(state)
        state = found.save()
    return False


def _equal(gm: fx.GraphModule, value: object, pattern: object, found: _Found) -> bool:
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


def _orders(pattern: Pattern) -> Iterator[Sequence[object]]:
    if pattern.commutative:
        yield from permutations(pattern.args)
    else:
        yield pattern.args


def _arguments(
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
