"""What nodes of a graph compute for images, and gradients of the label-free loss."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from yqc.facts import OutputForm
from yqc.graph.run import compute_node, run_graph
from yqc.quant.relevance import project_outputs


def watch_outputs(
    gm: fx.GraphModule, nodes: Sequence[fx.Node], images: Iterable[Tensor]
) -> Iterator[dict[fx.Node, Any]]:
    """Yield what nodes compute for each image, float32 [1, C, H, W].

    Tensors are copies, so that operations in place do not change them.
    """
    for image in images:
        kept: dict[fx.Node, Any] = {}

        def keep(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:  # noqa: ANN401
            value = compute_node(gm, node, values)
            kept[node] = value.clone() if isinstance(value, Tensor) else value  # noqa: B023
            return value

        with torch.no_grad():
            found = run_graph(
                gm, [image], [n for n in nodes if n.op == "placeholder"], replace=_all(nodes, keep)
            )
        yield {node: kept.get(node, found.get(node)) for node in nodes}


def watch_gradients(
    gm: fx.GraphModule,
    nodes: Sequence[fx.Node],
    images: Iterable[Tensor],
    form: OutputForm | None,
    seed: int,
) -> Iterator[dict[fx.Node, Tensor]]:
    """Yield, for each image, the gradients of a label-free loss by what nodes compute.

    The loss is a random projection of the detections, whose squared gradient is the relevance; see
    `yqc.quant.relevance`. Gradients have the shapes of the nodes' tensors; they are zero where the
    detections do not depend on a node.
    """
    generator = torch.Generator().manual_seed(seed)
    for image in images:
        kept: dict[fx.Node, Tensor] = {}

        def keep(node: fx.Node, values: Mapping[fx.Node, Any]) -> Tensor:
            value: Tensor = compute_node(gm, node, values)
            kept[node] = value if value.requires_grad else value.detach().requires_grad_()  # noqa: B023
            return kept[node].clone()  # noqa: B023  # an operation in place writes to the copy

        end = gm.graph.output_node()
        with torch.inference_mode(mode=False), torch.enable_grad():
            output = run_graph(gm, [image.clone()], [end], replace=_all(nodes, keep))[end]
            loss = project_outputs(output, form, generator)
            found = torch.autograd.grad(loss, [kept[n] for n in nodes], allow_unused=True)
        yield {
            node: torch.zeros_like(kept[node]) if slope is None else slope
            for node, slope in zip(nodes, found, strict=True)
        }


def _all(nodes: Sequence[fx.Node], function: Any) -> dict[fx.Node, Any]:  # noqa: ANN401
    return dict.fromkeys((node for node in nodes if node.op != "placeholder"), function)
