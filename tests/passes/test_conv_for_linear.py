"""conv-for-linear: text, numbers, and what stays with its reason."""

import pytest
import torch
from torch import Tensor, nn

from yqc.testing import apply, assert_same_numbers, assert_text, nets, run, traced
from yqc_passes.conv_for_linear import ConvForLinear


class Product(nn.Module):
    """Vectors times a constant matrix."""

    matrix: Tensor

    def __init__(self, *, swapped: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("matrix", torch.randn(5, 3) if not swapped else torch.randn(2, 1))
        self.swapped = swapped

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.matrix, x) if self.swapped else x @ self.matrix


def test_behind_a_flattened_pixel() -> None:
    body = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(3, 5)]
    gm = traced(nets.chain(*body), (2, 3, 4, 4))
    want = run(gm)
    done = apply(ConvForLinear(), gm)
    assert_text(
        gm,
        """
        %x: f32[2,3,4,4] = input
        %adaptiveavgpool2d: f32[2,3,1,1] = AdaptiveAvgPool2d(%x)
        %linear_conv: f32[2,5,1,1] = Conv2d(%adaptiveavgpool2d)
        %linear: f32[2,5] = flatten(%linear_conv, 1)
        return %linear
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-6)
    assert done.rewrites == [("linear", "became a 1x1 convolution")]
    assert isinstance(gm.get_submodule("linear"), nn.Conv2d)


@pytest.mark.parametrize("net", [nets.chain(nn.Linear(5, 4, bias=False)), Product()])
def test_vectors_become_images_of_one_pixel(net: nn.Module) -> None:
    gm = traced(net, (2, 5))
    want = run(gm)
    assert len(apply(ConvForLinear(), gm).rewrites) == 1
    assert_same_numbers(run(gm), want, tolerance=1e-6)
    names = [n.name.rpartition("_")[2] for n in gm.graph.nodes][1:3]
    assert names == ["image", "conv"]


def test_near_misses_stay() -> None:
    gm = traced(nets.chain(nn.Linear(5, 4)), (2, 3, 5))
    done = apply(ConvForLinear(), gm)
    why = "it works on something else than one vector an image"
    assert (done.skips, done.changed) == ([("linear", why)], False)
    gm = traced(Product(swapped=True), (1, 5))
    done = apply(ConvForLinear(), gm)
    why = "it multiplies by no constant matrix"
    assert (done.skips, done.changed) == ([("matmul", why)], False)


def test_a_layer_that_is_called_twice_stays() -> None:
    layer = nn.Linear(5, 5)
    done = apply(ConvForLinear(), traced(nn.Sequential(layer, nn.ReLU(), layer), (1, 5)))
    assert [why for _, why in done.skips] == ["0 is called from more than one place"] * 2
