"""Replacing what a pattern matches, with a recorded reason for every match that must stay."""

import re
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any, Protocol, TypeVar

from torch import fx

from yqc.graph.calls import has_effect
from yqc.graph.roles import KEY as ROLE
from yqc.graph.values import KEY as VALUE
from yqc.rewrite.matching import Match, is_erased, matches
from yqc.rewrite.patterns import Pattern

T = TypeVar("T")


class RewriteLog(Protocol):
    """Where rewrites and refusals are recorded: a `yqc.Context`."""

    def rewrote(self, node: fx.Node, what: str) -> None: ...  # noqa: D102
    def skipped(self, node: fx.Node, why: str) -> None: ...  # noqa: D102


def rewrite_all(
    gm: fx.GraphModule,
    ctx: RewriteLog,
    pattern: Pattern,
    rewrite: Callable[..., fx.Node],
    *,
    check: Callable[..., str | None] | None = None,
    what: str = "rewritten",
) -> int:
    """Rewrite every match of a pattern; skip those that must stay, with the reason.

    `rewrite` and `check` are called with the graph and, as keyword arguments, those named nodes of
    the pattern that they have parameters for: a `Call` for `module` patterns, a tuple of them for
    `through`, the node or plain value else. A function of two parameters whose second is no name
    of the pattern gets the `Match`.

    Args:
        gm: the graph, edited in place.
        ctx: rewrites and refusals are recorded here, at the match's root.
        pattern: what to look for. A match with an inner node that is read from outside of it is
            skipped.
        rewrite: returns the node that replaces the match's root. New nodes go before the root, and
            get its shape and role where they have none. Matched nodes without users are erased.
        check: returns why a match must stay as it is, or None.
        what: recorded of each rewrite; `{name}` stands for the node of that name.

    Returns:
        The number of rewrites.

    Raises:
        TypeError: `rewrite` or `check` has a parameter that is no name of the pattern.
    """
    replace = _with_parts(rewrite, pattern)
    obstacle = _with_parts(check, pattern) if check else None
    done = 0
    for match in matches(gm, pattern):
        parts = match.parts()
        if why := _find_outside_user(match) or (obstacle and obstacle(match, parts)):
            ctx.skipped(match.root, why)
            continue
        before = set(gm.graph.nodes)
        with gm.graph.inserting_before(match.root):
            result = replace(match, parts)
        _describe_new_nodes(match, before)
        _replace_root(match, result)
        ctx.rewrote(match.root, _format_names(what, parts))
        done += 1
    return done


def _with_parts(
    function: Callable[..., T], pattern: Pattern
) -> Callable[[Match, Mapping[str, Any]], T]:
    """Adapt a function to a match and its named parts, by the parameters that it has."""
    _, *rest = signature(function).parameters.values()
    names = pattern.names().keys()
    if any(p.kind is Parameter.VAR_KEYWORD for p in rest):
        return lambda match, parts: function(match.gm, **parts)
    if len(rest) == 1 and rest[0].name not in names:
        return lambda match, _: function(match.gm, match)
    wanted = [p.name for p in rest if p.name in names or p.default is Parameter.empty]
    if unknown := [name for name in wanted if name not in names]:
        raise TypeError(
            f"{function} has a parameter {unknown[0]!r}, but the pattern names only "
            f"{', '.join(sorted(names)) or 'nothing'}"
        )
    return lambda match, parts: function(match.gm, **{name: parts[name] for name in wanted})


def _find_outside_user(match: Match) -> str | None:
    """Return why a match must stay if a node outside of it reads one of its inner nodes."""
    inside = {*match.inner, match.root}
    for node in match.inner:
        if not inside.issuperset(node.users):
            return f"{node} has other users"
    return None


def _describe_new_nodes(match: Match, before: set[fx.Node]) -> None:
    """Give new nodes the shape and role of the match's root where they have none."""
    for node in match.gm.graph.nodes:
        if node not in before:
            for key in (VALUE, ROLE):
                if key in match.root.meta:
                    node.meta.setdefault(key, match.root.meta[key])


def _replace_root(match: Match, result: fx.Node) -> None:
    """Replace the match's root by a node, and erase the matched nodes that have no users."""
    if result is not match.root:
        match.root.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)
    for node in reversed((*match.inner, match.root)):
        if not is_erased(node) and not node.users and node is not result and not has_effect(node):
            match.gm.graph.erase_node(node)


def _format_names(what: str, parts: Mapping[str, Any]) -> str:
    """Replace each `{name}` of the pattern by its node; other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda found: str(parts.get(found[1], found[0])), what)
