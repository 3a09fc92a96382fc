"""half: text, numbers, what stays in float32 and why."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from yqc import Pipeline, calls, trace
from yqc.emit import emit, roundtrip, weight_bytes
from yqc.errors import PipelineError
from yqc.graph.half import half_kernels, holds_half, widened
from yqc.quantizing.half_error import LARGEST
from yqc.testing import apply, assert_same_numbers, assert_text, calibrated, nets, run, traced
from yqc_passes.half import Half

SHAPE = (1, 3, 8, 8)


class Steps(nn.Module):
    """Three convolutions; the second gives large values, the third brings them back."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.first, self.loud, self.quiet = (
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 2, 1),
        )
        nets.seeded(self)
        with torch.no_grad():
            for parameter in self.loud.parameters():
                parameter.mul_(gain)
            self.quiet.weight.div_(gain)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.quiet(self.loud(self.first(x)))
        return y


def test_stores_and_computes_in_half_between_float32_ends() -> None:
    gm = traced(nets.chain(nn.Conv2d(3, 4, 1), nn.SiLU()), SHAPE)
    want = run(gm)
    done = apply(Half(), gm)
    assert_text(
        gm,
        """
        %x: f32[1,3,8,8] = input
        %x_half: f16[1,3,8,8] = to(%x, float16)
        %conv2d: f16[1,4,8,8] = Conv2d(%x_half)
        %silu: f16[1,4,8,8] = SiLU(%conv2d)
        %silu_float: f32[1,4,8,8] = to(%silu, float32)
        return %silu_float
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=2e-3)
    assert not torch.equal(run(gm)[0], want[0])
    assert {p.dtype for p in gm.parameters()} == {torch.float16}
    assert done.rewrites == [
        ("x_half", "converted"),
        ("silu_float", "converted"),
        ("conv2d", "computed in half"),
        ("silu", "computed in half"),
    ]
    assert done.skips == []
    assert "2 of 2 operations before the decoding are in half" in done.context.records.says


def test_the_decoding_stays_in_float32() -> None:
    gm = traced(nets.detector(), (1, 3, 16, 16))
    apply("fold-bn,half", gm)
    for node in gm.graph.nodes:
        value = node.meta["yqc.value"]
        if node.meta["yqc.role"] == "head.decode" and node.op != "output":
            assert value.dtype == torch.float32, node
    assert {c.module.weight.dtype for c in calls(gm, nn.Conv2d)} == {torch.float16}


def test_what_would_overflow_stays_in_float32_and_is_named() -> None:
    gm = traced(Steps(1e6), SHAPE)
    want = run(gm)
    done = apply(Half(), gm, calibrated(gm))
    (loud, why), (quiet, other) = done.skips
    assert (loud, quiet) == ("loud", "quiet")
    assert why.startswith("its values reach ")
    assert why.endswith(", and half ends at 65504")
    assert other == "it overflows in half"  # as its input does
    assert [c.module.weight.dtype for c in calls(gm, nn.Conv2d)] == [
        *(torch.float16, torch.float32, torch.float32),
    ]
    assert_same_numbers(run(gm), want, tolerance=5e-3)


def test_what_would_lose_its_digits_stays_in_float32_and_is_named() -> None:
    gm = traced(Steps(1e-7), SHAPE)
    want = run(gm)
    done = apply(Half(), gm, calibrated(gm))
    assert [node for node, _ in done.skips] == ["loud", "quiet"]
    assert done.skips[0][1].endswith("of its values' size in half")
    assert_same_numbers(run(gm), want, tolerance=5e-3)


@settings(max_examples=40)
@given(st.floats(-12, 12))
def test_whatever_the_range_the_numbers_are_kept(exponent: float) -> None:
    gm = traced(Steps(10.0**exponent), SHAPE)
    want = run(gm)
    apply(Half(), gm, calibrated(gm, 2))
    assert_same_numbers(run(gm), want, tolerance=1e-2)


def test_without_data_batch_norms_bound_the_values() -> None:
    net = nets.conv_bn()
    gm = traced(net, SHAPE)
    with torch.no_grad():
        bn = next(m for m in gm.modules() if isinstance(m, nn.BatchNorm2d))
        bn.weight.fill_(LARGEST / 4)  # noise reaches about three deviations, the range six
    done = apply("fold-bn,half", gm)
    assert [node for node, _ in done.skips] == ["conv"]
    assert not holds_half(gm)
    assert any("no data" in said for said in done.context.records.says)


def test_skips_what_it_is_asked_to() -> None:
    gm = traced(Steps(1.0), SHAPE)
    done = apply(Half(skip=("l*",)), gm)
    assert done.skips == [("loud", "asked to skip it")]


class Shared(nn.Module):
    """One convolution, called before and after the values grow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        nets.seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.other(self.conv(x)) * 1e6)
        return y * 1e-6


def test_all_calls_of_a_module_stay_together() -> None:
    gm = traced(Shared(), SHAPE)
    want = run(gm)
    done = apply(Half(), gm, calibrated(gm))
    assert ("conv", "conv_1 stays in float32") in done.skips
    assert_same_numbers(run(gm), want, tolerance=2e-3)


class Split(nn.Module):
    """A split of which one part is far larger than the other."""

    def forward(self, x: Tensor) -> Tensor:
        small, large = torch.cat((x, x * 1e6), 1).chunk(2, 1)
        return small + large * 1e-6


class InPlace(nn.Module):
    """An activation that writes over what something else reads later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 1), nn.SiLU(inplace=True)
        nets.seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.act(y) * 1e6
        made: Tensor = z * 1e-6 + y
        return made


class Typed(nn.Module):
    """Nodes that name a dtype, a number of the graph, a comparison, and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 4, 1), nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        nets.seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * self.scale
        mask = (y > 0.1).to(torch.float32)
        best, _ = torch.topk(y.flatten(2), 3, 2)
        made: Tensor = torch.where(y > 0, y.float(), mask) + best.mean()
        return made


@pytest.mark.parametrize("net", [Split(), InPlace(), Typed(), nets.csp(), nets.mixed()])
def test_any_graph_stays_legal_and_keeps_its_numbers(net: nn.Module) -> None:
    gm = traced(net, SHAPE)
    want = run(gm)
    apply(Half(), gm, calibrated(gm))
    gm.graph.lint()
    assert_same_numbers(run(gm), want, tolerance=5e-3)
    example = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    trip = roundtrip(widened(gm), emit(gm), example)
    assert max(trip.plain.values, trip.optimised.values) < 2e-3


def test_a_second_time_changes_nothing() -> None:
    gm = traced(nets.csp(), SHAPE)
    apply("fold-bn,half", gm)
    assert not apply(Half(), gm).changed


def test_the_file_holds_halves_and_reads_them_without_a_cast() -> None:
    gm = traced(nets.residual(), SHAPE)
    apply("fold-bn", gm)
    before = weight_bytes(emit(gm))
    apply(Half(), gm)
    model = emit(gm)
    assert weight_bytes(model) == before / 2
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    for conv in (n for n in model.graph.node if n.op_type == "Conv"):
        assert {kinds[name] for name in conv.input[1:]} == {onnx.TensorProto.FLOAT16}
    assert [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)] == [
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT,
    ]


def test_quantizing_after_it_is_an_error_that_names_it() -> None:
    with pytest.raises(PipelineError, match=r"half \(of fp16\) before it.*put int8 before fp16"):
        Pipeline.parse("fp16,int8").expand()


@pytest.mark.parametrize("later", ["int4", "codebook", "prune", "slim", "equalize", "recover"])
def test_so_is_all_that_computes_with_float32(later: str) -> None:
    with pytest.raises(PipelineError, match=f"put {later} before fp16"):
        Pipeline.parse(f"fp16,{later}").expand()


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(PipelineError, match="images must be 1 or above"):
        Pipeline.parse("half{images=0}")


def test_fast_kernels_compute_what_half_kernels_do() -> None:
    conv = nets.chain(nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(288, 5))
    gm = trace(conv, torch.zeros(1, 16, 8, 8))
    apply(Half(), gm)
    x = torch.rand(1, 16, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        slow = gm(x)
        with half_kernels(gm):
            fast = gm(x)
    np.testing.assert_allclose(fast, slow, atol=2e-3 * float(slow.abs().max()))
    assert fast.dtype == torch.float32
