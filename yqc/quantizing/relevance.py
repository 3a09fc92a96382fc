"""Relevance of the values that nodes of a graph compute, by one backward pass an image."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from yqc.quant.relevance import Layout, project_outputs


def measure_relevance(
    gm: fx.GraphModule,
    nodes: Collection[fx.Node],
    images: Iterable[Tensor],
    layout: Layout | None,
    seed: int = 0,
) -> Iterator[dict[fx.Node, tuple[Tensor, Tensor]]]:
    """Measure what nodes compute on each image, and the relevance of each value.

    Args:
        gm: a graph that can be differentiated.
        nodes: nodes that compute one float tensor each.
        images: float32 [N, 3, H, W] each.
        layout: how the graph's output is laid out, None if it is no detector's.
        seed: of the random projections.

    Yields:
        For each node its values, float32 [N, C, ...], and their relevance in the same shape, not
        negative; 1 where the outputs do not depend on the node.
    """
    generator = torch.Generator().manual_seed(seed)
    order = [node for node in gm.graph.nodes if node in nodes]
    runner = _ValueKeeper(gm, order)
    for image in images:
        yield _of_batch(runner, order, image, layout, generator)


def _of_batch(
    runner: "_ValueKeeper",
    order: list[fx.Node],
    image: Tensor,
    layout: Layout | None,
    generator: torch.Generator,
) -> dict[fx.Node, tuple[Tensor, Tensor]]:
    """Measure one batch; a function of its own, so that its activations are freed on return."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        output, found = runner.results(image)
        values = [found[node] for node in order]
        slopes = torch.autograd.grad(
            project_outputs(output, layout, generator), values, allow_unused=True
        )
    return {
        node: (y.detach(), torch.ones_like(y) if g is None else g.square())
        for node, y, g in zip(order, values, slopes, strict=True)
    }


class _ValueKeeper(fx.Interpreter):
    """Runs a graph and keeps what some nodes compute."""

    def __init__(self, gm: fx.GraphModule, nodes: Iterable[fx.Node]) -> None:
        super().__init__(gm)
        self.wanted, self.found = set(nodes), dict[fx.Node, Tensor]()
        self.versions: dict[fx.Node, int] = {}
        self.copying = False
        """Whether readers get a copy of the value that is kept, since one of them writes to it."""

    def results(self, image: Tensor) -> tuple[Any, dict[fx.Node, Tensor]]:
        """Return what the graph returns, and what the nodes compute before anything overwrites it.

        Args:
            image: float32 [N, 3, H, W]; only its values are used.
        """
        output = self.run(image.clone().requires_grad_())
        if any(self.found[n]._version != version for n, version in self.versions.items()):  # noqa: SLF001  # it has no other name
            self.copying = True
            output = self.run(image.clone().requires_grad_())
        found, self.found, self.versions = self.found, {}, {}
        return output, found

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401  # any value
        y = super().run_node(n)
        if n not in self.wanted:
            return y
        self.found[n] = y
        if self.copying:
            return y.clone()
        self.versions[n] = y._version  # noqa: SLF001
        return y
