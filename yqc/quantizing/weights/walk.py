"""Run a graph in float and with rounded weights side by side, node by node, on many images.

At each convolution to round, the inputs in both graphs are known: x in the float graph, and x'
behind the layers that are rounded already (`yqc.quant.weights.statistics`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from yqc.graph.calls import call
from yqc.graph.run import compute_node, last_uses
from yqc.quant.weights.statistics import convolve_with

BatchValues = list[Any]
"""Values of a node for each batch: a tensor, or a tuple of them."""

RoundingWork = Callable[
    [fx.Node, nn.Conv2d, BatchValues, BatchValues], "tuple[Tensor, Tensor | None] | None"
]
"""Takes a convolution and its inputs of every batch, float and rounded; returns weight and bias, or
None to leave it in float."""


class TwinWalk:
    """Runs a graph on many images, one node at a time, in float and with rounded weights.

    Values wait for their readers in the dtype `store`; batches are float32 [N, 3, H, W].
    """

    def __init__(
        self, gm: fx.GraphModule, batches: Sequence[Tensor], store: torch.dtype = torch.float32
    ) -> None:
        self.gm, self.batches, self.store = gm, batches, store
        self.plain: dict[fx.Node, BatchValues] = {}
        self.other: dict[fx.Node, BatchValues] = {}

    def run(self, last: fx.Node, rounded: RoundingWork) -> None:
        """Run the nodes up to `last`; `rounded` is called at every convolution, in graph order."""
        finished = last_uses(self.gm.graph.nodes)
        with torch.no_grad():
            for node in self.gm.graph.nodes:
                self._step(node, finished[node], rounded)
                for source in finished[node]:
                    del self.plain[source], self.other[source]
                if node is last:
                    return

    def _step(self, node: fx.Node, dying: list[fx.Node], rounded: RoundingWork) -> None:
        """Compute a node for every batch, in both graphs; free the inputs that are read last."""
        plain, other = self.plain, self.other
        if node.op == "placeholder":
            plain[node] = other[node] = list(self.batches)
            return
        conv, new = call(self.gm, node, nn.Conv2d), None
        if conv is not None:
            source = node.all_input_nodes[0]
            new = rounded(node, conv.module, plain[source], other[source])
        same = new is None and all(plain[n] is other[n] for n in node.all_input_nodes)
        plain[node] = []
        other[node] = plain[node] if same else []
        for i in range(len(self.batches)):
            first = self._one(node, plain, i)
            if conv is not None and new is not None:
                x = self._wide(other[node.all_input_nodes[0]][i])
                other[node].append(self._keep(convolve_with(x, conv.module, *new)))
            elif not same:
                other[node].append(self._one(node, other, i))
            plain[node].append(first)
            for source in dying:
                plain[source][i] = other[source][i] = None

    def _one(self, node: fx.Node, values: dict[fx.Node, BatchValues], i: int) -> Any:  # noqa: ANN401  # any value
        inputs = {n: self._wide(values[n][i]) for n in node.all_input_nodes}
        return self._keep(compute_node(self.gm, node, inputs))

    def _keep(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Tensor) and value.dtype == torch.float32 and value.ndim == 4:  # noqa: PLR2004
            return value if self.store == torch.float32 else value.clamp(-6e4, 6e4).to(self.store)
        if isinstance(value, (tuple, list)):
            return type(value)(self._keep(v) for v in value)
        return value

    def _wide(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Tensor) and value.dtype == self.store:
            return value.float()
        if isinstance(value, (tuple, list)):
            return type(value)(self._wide(v) for v in value)
        return value
