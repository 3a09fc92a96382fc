import pytest
import torch
from torch import nn

from tests.modules import conv
from yqc import trace
from yqc.facts import Layout, OutputForm
from yqc.quant.relevance import project_outputs, split_rows
from yqc.quantizing import measure_node_relevance

X = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.act = nn.Conv2d(3, 2, 1), nn.SiLU(inplace=True)
        self.dead = nn.Conv2d(3, 2, 1)
        self.last = nn.Conv2d(2, 5, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.last(self.act(self.first(x))), self.dead(x).detach()


def test_values_are_the_graph_s_and_relevance_is_the_squared_slope() -> None:
    gm = trace(Net().eval(), X)
    first = next(n for n in gm.graph.nodes if n.name == "first")
    (found,) = measure_node_relevance(gm, [first], [X], None, seed=3)
    y, weight = found[first]
    torch.testing.assert_close(y, conv(gm, "first")(X))
    leaf = y.clone().requires_grad_()
    output = conv(gm, "last")(torch.nn.functional.silu(leaf)), conv(gm, "dead")(X).detach()
    torch.autograd.backward(project_outputs(output, None, torch.Generator().manual_seed(3)))
    assert leaf.grad is not None
    torch.testing.assert_close(weight, leaf.grad.square())


def test_what_no_output_depends_on_counts_alike_everywhere() -> None:
    gm = trace(Net().eval(), X)
    dead = next(n for n in gm.graph.nodes if n.name == "dead")
    (found,) = measure_node_relevance(gm, [dead], [X], None)
    assert (found[dead][1] == 1).all()


def test_leaves_no_gradients_behind() -> None:
    gm = trace(Net().eval(), X)
    with torch.inference_mode():
        image = X.clone()
    list(measure_node_relevance(gm, list(gm.graph.nodes)[1:2], [image], None))
    assert all(p.grad is None for p in gm.parameters())


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("yolov5", (1, 7, 5 + 2)), ("yolov8", (1, 4 + 2, 7)), ("end2end", (1, 7, 6))],
)
def test_boxes_and_scores_of_every_layout(layout: Layout, shape: tuple[int, ...]) -> None:
    output = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    box, size, score, extra = split_rows(output, OutputForm(layout))
    rows = output.mT if layout == "yolov8" else output
    assert box.shape == size.shape == (1, 7, 4)
    assert extra.shape == (1, 7, 0)
    want = {
        "yolov5": rows[..., 4:5] * rows[..., 5:],
        "yolov8": rows[..., 4:],
        "end2end": rows[..., 4:5],
    }[layout]
    assert torch.equal(score, want)
    width = rows[..., 2] - rows[..., 0] if layout == "end2end" else rows[..., 2]
    assert torch.equal(size[..., 0], width)
    assert torch.equal(size[..., 2], width)
    torch.autograd.backward(
        project_outputs(output, OutputForm(layout), torch.Generator().manual_seed(0))
    )
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())
