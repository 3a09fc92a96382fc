"""How much each value inside a detector matters to what it detects.

A detector's loss of precision is what its rounding does to the scores and boxes of objects, and
nearly all of an image is background. So errors are weighed by the squared gradient of the outputs,
the diagonal of the Gauss-Newton matrix: for outputs o_k that count with c_k,

    relevance(y_i) = sum over k of c_k^2 (d o_k / d y_i)^2  =  E (d (r . o) / d y_i)^2

for independent r_k of mean 0 and variance c_k^2, so one backward pass an image estimates it without
bias (Hutchinson 1990). The sigmoid's slope makes the scores of background count little by itself;
a box counts with its best score, and in units of its own width and height.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, fx

Layout: TypeAlias = Literal["yolov5", "yolov8", "end2end"]


def boxes_and_scores(output: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Take a decoded output apart.

    Args:
        output: `yolov5` [N, A, 5+nc], `yolov8` [N, 4+nc, A], or `end2end` [N, A, 6].
        layout: which of them.

    Returns:
        Box coordinates in pixels [N, A, 4], the boxes' sizes in the same order [N, A, 4], and
        scores [N, A, nc], or [N, A, 1] for `end2end`.
    """
    rows = output.transpose(1, 2) if layout == "yolov8" else output
    box = rows[..., :4]
    if layout == "end2end":
        return box, (box[..., 2:] - box[..., :2]).repeat(1, 1, 2), rows[..., 4:5]
    scores = rows[..., 4:] if layout == "yolov8" else rows[..., 4:5] * rows[..., 5:]
    return box, box[..., 2:].repeat(1, 1, 2), scores


def counted(output: Any, layout: Layout | None) -> list[tuple[Tensor, Tensor]]:  # noqa: ANN401  # whatever a graph returns
    """Tell what counts in a graph's outputs, and how much a change of it does.

    Args:
        output: what the graph returned.
        layout: how a detector's output is laid out; None takes all outputs as they are, each in
            units of its deviation.

    Returns:
        Values, and what they are to be multiplied by, without gradients, in a shape that fits.
    """
    if layout is None:
        return [(o, 1 / o.detach().std().clamp(min=1e-12)) for o in _floats(output)]
    box, size, score = boxes_and_scores(output, layout)
    best = score.detach().amax(-1, keepdim=True)
    return [(score, torch.ones(())), (box, best / size.detach().clamp(min=1))]


def projected(output: Any, layout: Layout | None, generator: torch.Generator) -> Tensor:  # noqa: ANN401  # whatever a graph returns
    """Return one random projection r . o of a graph's outputs, a scalar to differentiate.

    Args:
        output: what the graph returned.
        layout: as `counted` takes it.
        generator: draws r.
    """
    total = torch.zeros(())
    for values, weight in counted(output, layout):
        total = total + (values * weight * torch.randn(values.shape, generator=generator)).sum()
    return total


def relevance(
    gm: fx.GraphModule,
    nodes: Collection[fx.Node],
    images: Iterable[Tensor],
    layout: Layout | None,
    seed: int = 0,
) -> Iterator[dict[fx.Node, tuple[Tensor, Tensor]]]:
    """Tell for each image what some nodes compute, and how much each value matters.

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
    runner = _Keep(gm, order)
    for image in images:
        yield _of_image(runner, order, image, layout, generator)


def _of_image(
    runner: "_Keep",
    order: list[fx.Node],
    image: Tensor,
    layout: Layout | None,
    generator: torch.Generator,
) -> dict[fx.Node, tuple[Tensor, Tensor]]:
    """Do it for one batch; nothing of it stays in memory but what is returned."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        output, found = runner.results(image)
        values = [found[node] for node in order]
        slopes = torch.autograd.grad(
            projected(output, layout, generator), values, allow_unused=True
        )
    return {
        node: (y.detach(), torch.ones_like(y) if g is None else g.square())
        for node, y, g in zip(order, values, slopes, strict=True)
    }


class _Keep(fx.Interpreter):
    """Runs a graph and keeps what some nodes compute."""

    def __init__(self, gm: fx.GraphModule, nodes: Iterable[fx.Node]) -> None:
        super().__init__(gm)
        self.wanted, self.found = set(nodes), dict[fx.Node, Tensor]()
        self.versions: dict[fx.Node, int] = {}
        self.copying = False
        """Whether what is read is a copy of what is kept, since something writes into it."""

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

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401  # whatever the node computes
        y = super().run_node(n)
        if n not in self.wanted:
            return y
        self.found[n] = y
        if self.copying:
            return y.clone()
        self.versions[n] = y._version  # noqa: SLF001
        return y


def _floats(output: Any) -> list[Tensor]:  # noqa: ANN401  # nests of tensors
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    values = output.values() if isinstance(output, dict) else output
    if not isinstance(values, list | tuple) and not isinstance(output, dict):
        return []
    return [tensor for value in values for tensor in _floats(value)]
