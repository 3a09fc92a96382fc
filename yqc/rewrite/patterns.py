"""Patterns: descriptions of the nodes that a rewrite looks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, eq=False)
class Pattern:
    """Describe one node; made by `var`, `module`, `function`, `method` and `through`."""

    op: str
    """`var`, `through`, or the op of an fx node."""
    targets: tuple[Any, ...] = ()
    """Classes, functions or method names, any of which matches."""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    commutative: bool = False
    more: bool = False
    """Whether further arguments may follow those that are given."""

    def names(self) -> dict[str, "Pattern"]:
        """Return the named patterns in this one, itself included, by name."""
        found = {self.name: self} if self.name else {}
        for inner in tree_leaves((self.args, dict(self.kwargs))):
            if isinstance(inner, Pattern):
                found |= inner.names()
        return found


def var(name: str) -> Pattern:
    """Match any node or value; where a name occurs twice, both must be the same."""
    return Pattern("var", name=name)


def module(
    kinds: type[nn.Module] | tuple[type[nn.Module], ...], *args: object, name: str = ""
) -> Pattern:
    """Match the call of a module of one of these classes, on these inputs."""
    return _pattern("call_module", kinds, args, {}, name)


def through(
    kinds: type[nn.Module] | tuple[type[nn.Module], ...], end: Pattern, *, name: str = ""
) -> Pattern:
    """Match `end`, or a chain of module calls behind it, each on the one before.

    Args:
        kinds: classes of the modules in the chain.
        end: where the chain begins; the match nearest to the chain's last call is taken.
        name: names the chain, a tuple of `Call`s in graph order; empty if `end` matches at once.
    """
    targets = kinds if isinstance(kinds, tuple) else (kinds,)
    return Pattern("through", targets, (end,), name=name)


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
        name: names the node.
        commutative: whether the arguments may stand in any order.
        kwargs: as args.
    """
    return _pattern("call_function", functions, args, kwargs, name, commutative=commutative)


def method(
    names: str | tuple[str, ...], *args: object, name: str = "", **kwargs: object
) -> Pattern:
    """Match the call of a tensor method of one of these names; the tensor is the first argument."""
    return _pattern("call_method", names, args, kwargs, name)


def _pattern(
    op: str,
    targets: object,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    name: str,
    *,
    commutative: bool = False,
) -> Pattern:
    given = targets if isinstance(targets, tuple) else (targets,)
    more = bool(args) and args[-1] is ...
    return Pattern(op, given, args[:-1] if more else args, kwargs, name, commutative, more)
