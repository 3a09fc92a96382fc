"""Linear layers and transposed convolutions that are written as convolutions of one pixel."""

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import Context
from yqc.quantizing import write_as_convolutions
from yqc.testing import assert_same_numbers, assert_text, nets, run, task_nets, traced


def write(gm: fx.GraphModule, skip: tuple[str, ...] = ()) -> Context:
    ctx = Context()
    write_as_convolutions(gm, ctx, skip)
    return ctx


def test_a_linear_layer_of_a_pooled_map_becomes_a_convolution() -> None:
    gm = traced(
        nets.chain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(4, 3)),
        (2, 4, 6, 6),
    )
    want = run(gm)
    assert len(write(gm).rewrites) == 1
    assert_text(
        gm,
        """
        %x: f32[2,4,6,6] = input
        %adaptiveavgpool2d: f32[2,4,1,1] = AdaptiveAvgPool2d(%x)
        %linear_conv: f32[2,3,1,1] = Conv2d(%adaptiveavgpool2d)
        %linear: f32[2,3] = flatten(%linear_conv, 1)
        return %linear
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("factor", [2, 3])
def test_a_transposed_convolution_without_overlap_becomes_one(bias: bool, factor: int) -> None:
    gm = traced(nets.chain(nn.ConvTranspose2d(4, 3, factor, factor, bias=bias)), (2, 4, 3, 5))
    want, made = run(gm), "%convtranspose2d_conv"
    write(gm)
    assert_text(
        gm,
        f"""
        %x: f32[2,4,3,5] = input
        {made}: f32[2,{3 * factor**2},3,5] = Conv2d(%x)
        %convtranspose2d: f32[2,3,{3 * factor},{5 * factor}] = pixel_shuffle({made}, {factor})
        return %convtranspose2d
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(4, 3, 3, 2),
        nn.ConvTranspose2d(4, 3, 2, 2, padding=1),
        nn.ConvTranspose2d(4, 3, 2, 2, output_padding=1),
        nn.ConvTranspose2d(4, 4, 2, 2, groups=2),
        nn.ConvTranspose2d(4, 3, 2, 2, dilation=2),
        nn.ConvTranspose2d(4, 3, (2, 1), (2, 1)),
        nn.Linear(5, 3),
    ],
)
def test_leaves_others_alone(layer: nn.Module) -> None:
    gm = traced(nets.chain(layer), (1, 4, 3, 5))
    assert not write(gm).rewrites
    assert type(layer).__name__ in str(gm.get_submodule(next(iter(gm.graph.nodes)).next.target))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(x.flatten(1))
        return y


def test_leaves_a_linear_layer_of_positions_alone() -> None:
    gm = traced(Flat(), (1, 4, 3, 3))
    assert not write(gm).rewrites


def test_leaves_alone_what_is_skipped() -> None:
    gm = traced(task_nets.task_net("segment"), (1, 3, 32, 32))
    assert not write(gm, skip=("proto.*",)).rewrites
    assert write(gm).rewrites
    assert torch.is_tensor(run(gm)[1])
