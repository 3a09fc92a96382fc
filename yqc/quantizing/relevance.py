"""Relevance of the values that nodes of a graph compute, by one backward pass an image."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from yqc.facts import OutputForm
from yqc.graph.run import NodeValues, compute_node, run_graph
from yqc.quant.relevance import project_outputs


def measure_node_relevance(
    gm: fx.GraphModule,
    nodes: Collection[fx.Node],
    images: Iterable[Tensor],
    form: OutputForm | None,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Iterator[dict[fx.Node, tuple[Tensor, Tensor]]]:
    """Measure what nodes compute on each batch of images, [N, 3, H, W], and its relevance.

    Each node computes one float tensor. The form is that of the graph's outputs, None if it is no
    detector's; the seed that of the random projections, unless their generator is given.

    Yields:
        For each node its values, float32 [N, C, ...], and their relevance in the same shape, not
        negative; 1 where the outputs do not depend on the node.
    """
    generator = generator or torch.Generator().manual_seed(seed)
    order = [node for node in gm.graph.nodes if node in nodes]
    overwritten: set[fx.Node] = set()
    for image in images:
        yield _measure_batch(gm, order, image, form, generator, overwritten)


def _measure_batch(
    gm: fx.GraphModule,
    nodes: Sequence[fx.Node],
    image: Tensor,
    form: OutputForm | None,
    generator: torch.Generator,
    overwritten: set[fx.Node],
) -> dict[fx.Node, tuple[Tensor, Tensor]]:
    """Measure one batch; a function of its own, so that its activations are freed on return."""
    if not nodes:
        return {}
    with torch.inference_mode(mode=False), torch.enable_grad():
        output, values = _run_with_gradients(gm, nodes, image, overwritten)
        slopes = torch.autograd.grad(
            project_outputs(output, form, generator), values, allow_unused=True
        )
    return {
        node: (y.detach(), torch.ones_like(y) if g is None else g.square())
        for node, y, g in zip(nodes, values, slopes, strict=True)
    }


def _run_with_gradients(
    gm: fx.GraphModule, nodes: Sequence[fx.Node], image: Tensor, overwritten: set[fx.Node]
) -> tuple[Any, list[Tensor]]:
    """Return what the graph returns, and what nodes compute before an operation overwrites it.

    The readers of `overwritten` nodes get copies, since one of them writes to the value. If a
    further such node is found, it is added, and the graph is run again.
    """
    found: dict[fx.Node, Tensor] = {}
    versions: dict[fx.Node, int] = {}

    def keep(node: fx.Node, values: NodeValues) -> Tensor:
        y: Tensor = compute_node(gm, node, values)
        found[node], versions[node] = y, y._version  # noqa: SLF001  # it has no other name
        return y.clone() if node in overwritten else y

    end = gm.graph.output_node()
    replace = dict.fromkeys(nodes, keep)
    output = run_graph(gm, [image.clone().requires_grad_()], [end], replace=replace)[end]
    if changed := {n for n in nodes if found[n]._version != versions[n]}:  # noqa: SLF001
        overwritten |= changed
        return _run_with_gradients(gm, nodes, image, overwritten)
    return output, [found[node] for node in nodes]
