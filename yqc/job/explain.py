"""Explain what a pass would do to a model, and every refusal with its reason."""

import copy
import re
from collections.abc import Iterable
from dataclasses import replace

import networkx as nx
from torch import fx

from yqc.errors import PipelineError
from yqc.job.staged import prepared
from yqc.look.explained import Explained, Explanation, Group
from yqc.look.fxview import of_graph
from yqc.look.printers import as_dot, groups_dot
from yqc.models.source import AnyModel
from yqc.pipeline.base import Context, Pass, Recipe
from yqc.pipeline.pipeline import Pipeline, given_by
from yqc.pipeline.registry import Registry
from yqc.pipeline.state import TRACED
from yqc.progress import Progress
from yqc.report.parts import NodeNumbers
from yqc.settings import Settings

REWRITTEN, REFUSED = "#7bc47f", "#ffd54a"


def explain(
    passes: str,
    model: AnyModel,
    settings: Settings | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
    *,
    draw: bool = False,
) -> Explanation:
    """Run a pass on a copy of a model's graph, and list its rewrites and refusals.

    Of several passes the last one is explained; what it requires runs before it. Returns one entry
    for a pass, one for each of a recipe's passes, with a drawing of the graph if `draw`.

    Raises:
        YqcError: no such pass, no such model, or the pass fails.
    """
    asked = Pipeline.parse(passes, registry)
    before, pipeline = _with_needs(asked)
    gm, ctx, given = prepared(model, pipeline, settings, progress)
    parts = pipeline.expand_each(TRACED | given, given_by(ctx))
    done = [action for part in parts[: len(before.steps)] for action in part]
    asked_for = [action for part in parts[len(before.steps) :] for action in part]
    if done:
        Pipeline(done, asked.registry).run(gm, ctx, known=given)
    found = []
    for action in asked_for:
        view = of_graph(gm) if draw else None
        own = action.drawing(copy.deepcopy(gm), ctx)
        one = _explain(action, gm, ctx, last=action is asked_for[-1], after=done)
        if own is not None:
            one = replace(one, drawing=groups_dot(own), groups=nx.node_link_data(own))
        elif view is not None:  # green is what the pass rewrites, yellow what it refuses
            marked = {name: REWRITTEN for group in one.rewrites for name in group.nodes}
            marked |= {name: REFUSED for group in one.skips for name in group.nodes}
            one = replace(one, drawing=as_dot(view, marked))
        found.append(one)
        done.append(action)
    return Explanation(tuple(found))


def _explain(
    action: Pass, gm: fx.GraphModule, ctx: Context, *, last: bool, after: list[Pass]
) -> Explained:
    """Return a pass's own explanation, or else run it and read what it recorded."""
    rewrites, skips, values = len(ctx.rewrites), len(ctx.skips), len(ctx.values)
    names = {n.name for n in gm.graph.nodes}
    names |= {str(n.target) for n in gm.graph.nodes if n.op == "call_module"}
    lines = action.explain(copy.deepcopy(gm), ctx)
    recorded = ctx.rewrites[rewrites:], ctx.skips[skips:]
    if lines is None or not last:
        Pipeline([action]).run(gm, ctx, known=action.needs())
    if lines is None:
        recorded = ctx.rewrites[rewrites:], ctx.skips[skips:]
    return Explained(
        name=action.name,
        text=str(action),
        after=",".join(map(str, after)),
        lines=tuple(lines or ()),
        rewrites=group(((r.node, r.what) for r in recorded[0]), names),
        skips=group(recorded[1], names),
        values=tuple(NodeNumbers(node=n, numbers=found) for n, found in ctx.values[values:]),
    )


def _with_needs(asked: Pipeline) -> tuple[Pipeline, Pipeline]:
    """Put before the last step what it requires: return what is not explained, and the whole."""
    head, last = list(asked.steps[:-1]), asked.steps[-1]
    while isinstance(last, Pass):
        state = TRACED
        for step in Pipeline(head, asked.registry).expand():
            state = (state - step.removes) | step.provides
        missing = sorted(last.needs() - state)
        if not missing:
            break
        head = _provide(missing[0], head, asked.registry, depth=0)
    return Pipeline(head, asked.registry), Pipeline((*head, last), asked.registry)


def _provide(
    state: str, head: list[Pass | Recipe], registry: Registry, depth: int
) -> list[Pass | Recipe]:
    """Add the pass that provides a state, and before it what that one requires."""
    makers = registry.makers(state)
    if not makers or depth > 8:  # noqa: PLR2004  # a circle of passes
        raise PipelineError(f"no pass provides {state!r}; run what does before, `passes,pass`")
    maker = registry.load(makers[0])()
    known = TRACED.union(*(s.provides for s in head if isinstance(s, Pass)))
    for need in sorted(maker.needs() - known) if isinstance(maker, Pass) else ():
        head = _provide(need, head, registry, depth + 1)
    return [*head, maker]


def group(records: Iterable[tuple[str, str]], names: set[str]) -> tuple[Group, ...]:
    """Group records by their texts, the most frequent first.

    A record is the name of a node and what is said of it; numbers in it and `names`, those of
    nodes and modules, make no difference.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for node, said in records:
        words = re.split(r"([A-Za-z_][\w.]*|-?\d[\d.e+-]*)", said)
        plain = (".." if w in names or re.fullmatch(r"-?\d[\d.e+-]*", w) else w for w in words)
        found.setdefault("".join(plain), []).append((node, said))
    groups = []
    for shape, members in found.items():
        nodes, texts = zip(*members, strict=True)
        groups.append(Group(what=texts[0] if len(set(texts)) == 1 else shape, nodes=nodes))
    return tuple(sorted(groups, key=lambda g: -len(g.nodes)))
