"""Place the nodes of a drawing in layers (Sugiyama et al. 1981).

A node's layer is the longest path to it; within a layer nodes follow their neighbours' mean row.
"""

import networkx as nx

from yqc.look.view import View

SWEEPS = 4
"""Passes over the layers, in turn forward and backward; fewer leave more edges crossed."""


def place_nodes(view: View, names: list[str]) -> dict[str, tuple[float, float]]:
    """Return column and row of nodes; columns go by what must come before, rows avoid crossings.

    Args:
        view: the graph.
        names: the nodes to place, in graph order; edges through others are not followed.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(names)
    by_name = {item.name: item for item in view.items}
    known = set(names)
    graph.add_edges_from((s, n) for n in names for s in by_name[n].inputs if s in known)
    layers = [list(layer) for layer in nx.topological_generations(graph)]
    order = {name: index for index, name in enumerate(names)}
    for layer in layers:
        layer.sort(key=order.__getitem__)
    row = {n: i - (len(layer) - 1) / 2 for layer in layers for i, n in enumerate(layer)}
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for layer in layers if forward else reversed(layers):
            wish = {}
            for name in layer:
                near = list(graph.predecessors(name) if forward else graph.successors(name))
                wish[name] = sum(row[n] for n in near) / len(near) if near else row[name]
            layer.sort(key=lambda n: (wish[n], order[n]))
            row |= _separate(layer, wish)
    return {
        name: (float(column), row[name]) for column, layer in enumerate(layers) for name in layer
    }


def _separate(layer: list[str], wish: dict[str, float]) -> dict[str, float]:
    """Give the nodes of a layer rows near their wishes, at least one apart."""
    rows: dict[str, float] = {}
    last = None
    for name in layer:
        at = wish[name] if last is None else max(wish[name], last + 1)
        rows[name] = last = at
    shift = sum(wish[n] - rows[n] for n in layer) / len(layer)
    return {name: at + shift for name, at in rows.items()}
