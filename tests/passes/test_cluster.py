"""cluster: what the graph becomes, what its tables hold, what is refused and why."""

import re

import pytest
import torch
from torch import Tensor, fx, nn

from tests.passes.nets import X, calibrated, quality, traced
from yqc import Context, Pipeline, text, trace
from yqc.errors import PipelineError
from yqc.quant.weights.packing import unpack

ROUND = "fold-bn,cluster{rounding=nearest"


def parts(gm: fx.GraphModule, path: str, bits: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes [O, N], table [16] and scales [O, 1] of a layer of one table."""
    scale = gm.get_buffer(f"{path}.weight_scale").float().view(-1, 1)
    packed = gm.get_buffer(f"{path}.weight_packed")
    count = packed.numel() * 8 // bits
    table = gm.get_buffer(f"{path}.weight_table").float().squeeze(0)
    return unpack(packed, count, bits).long().view(len(scale), -1), table, scale


def test_the_graph_holds_indices_and_a_table() -> None:
    gm = traced("fold-bn,cluster", calibrated())
    lines = text(gm).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("%a_conv_weight_packed"))
    assert lines[at : at + 8] == [
        "%a_conv_weight_packed: u8[8] = attr(a.conv.weight_packed)",
        "%a_conv_weight_scale: f16[4] = attr(a.conv.weight_scale)",
        "%a_conv_weight_table: f16[1,16] = attr(a.conv.weight_table)",
        "%a_conv_bias_q: i16[4] = attr(a.conv.bias_q)",
        "%a_conv_bias_scale: f32[] = attr(a.conv.bias_scale)",
        (
            "%a_conv_weight: f32[4,4,1,1] = yqc.unpack_table(%a_conv_weight_packed, "
            "%a_conv_weight_table, %a_conv_weight_scale, [4, 4, 1, 1], 4, 0)"
        ),
        "%a_conv_bias: f32[4] = yqc.dequantize_linear(%a_conv_bias_q, %a_conv_bias_scale)",
        (
            "%a_conv: f32[1,4,8,8] = conv2d(%stem_act, %a_conv_weight, %a_conv_bias, "
            "(1, 1), (0, 0), (1, 1), 1)"
        ),
    ]


@pytest.mark.parametrize("table", ["codebook", "pwlq", "pot"])
def test_nearest_takes_the_nearest_entry(table: str) -> None:
    gm, plain = traced(f"{ROUND} table={table}}}", calibrated()), traced("fold-bn")
    for path in ("stem.conv", "a.conv", "b.conv", "out"):
        codes, entries, scale = parts(gm, path)
        weight = plain.get_parameter(f"{path}.weight").detach().flatten(1)
        error = (entries[codes] * scale - weight).abs()
        best = (entries * scale.unsqueeze(2) - weight.unsqueeze(2)).abs().amin(2)
        torch.testing.assert_close(error, best, rtol=1e-3, atol=1e-6)


def test_more_bits_are_nearer() -> None:
    found = [
        quality(traced(f"{ROUND} {more}}}", calibrated()))
        for more in ("bits=2", "bits=3", "bits=4", "bits=8")
    ]
    assert found == sorted(found)
    assert found[-1] > 40


def test_without_data_it_says_what_it_went_by() -> None:
    ctx = Context(target="portable", example=X)
    gm = traced("fold-bn,cluster", ctx)
    assert quality(gm) > 15
    assert ctx.warnings == [
        "no data was given: weights were rounded by what the batch norms tell of inputs"
    ]


class Others(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.edge = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.up = nn.ConvTranspose2d(4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.edge(self.down(self.down(self.conv(x)))))
        return y


def test_what_cannot_be_packed_stays_and_why() -> None:
    gm, ctx = trace(Others(), X), calibrated()
    (step,) = Pipeline.parse("cluster{skip=conv}").steps
    before = text(gm)
    step.run(gm, ctx)  # type: ignore[union-attr]
    assert ctx.skips == [
        ("conv", "asked to skip it"),
        ("down", "down is called from more than one place"),
        ("down_1", "down is called from more than one place"),
        ("edge", "it pads with circular"),
        ("up", "ConvTranspose2d stays in float"),
    ]
    assert (text(gm), ctx.rewrites) == (before, [])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("bits=7", "bits must be one of 2, 3, 4, 5, 6, 8, not 7"),
        ("rows=-1", "rows must be 0 or above, not -1"),
        ("block=1", "block must be 2 or above, not 1"),
        ("table=fourier", "table must be one of codebook, pwlq, pot, not fourier"),
    ],
)
def test_options_that_make_no_sense(options: str, why: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(why)):
        Pipeline.parse(f"cluster{{{options}}}")


def test_needs_folded_batch_norms() -> None:
    with pytest.raises(PipelineError, match="cluster needs a graph that is 'bn-folded'"):
        Pipeline.parse("cluster").expand()
