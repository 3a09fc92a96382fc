"""pack-int4 under a budget: plans keep it and can be replayed; what cannot be kept is refused."""

import math

import pytest
import torch
from torch import fx

from tests.passes.nets import X, calibrated, quality, traced
from yqc import Pipeline
from yqc.emit import emit, roundtrip
from yqc.errors import OptionError, PassError
from yqc.graph import propagate
from yqc.quant.weights.scheme import Scheme
from yqc.quantizing.weights.allocate import finer_schemes, write_plan_line


def held_bytes(gm: fx.GraphModule) -> int:
    """Count the bytes of the tensors that a graph reads."""
    used = {str(n.target) for n in gm.graph.nodes if n.op == "get_attr"}
    held = (t.numel() * t.element_size() for k, t in gm.state_dict().items() if k in used)
    return sum(held)


def test_budget_is_kept_and_the_plan_can_be_replayed() -> None:
    ctx = calibrated()
    gm = traced("fold-bn", ctx)
    (auto,) = Pipeline.parse("pack-int4{granularity=auto bytes=300B}").steps
    again = traced("fold-bn")
    auto.run(gm, ctx)  # type: ignore[union-attr]
    gm.recompile()
    assert held_bytes(gm) <= 300
    settled = ctx.records.chosen
    assert settled is not None
    assert "granularity=auto" not in str(settled)
    (replay,) = Pipeline.parse(str(settled)).steps
    replay.run(again, calibrated())  # type: ignore[union-attr]
    again.recompile()
    assert torch.equal(gm(X), again(X))


def test_mixed_bits_keep_the_budget_and_use_it() -> None:
    """Between the sizes of four and five bits everywhere, the error is between theirs."""
    four, five = (traced(f"fold-bn,pack-int4{{bits={b} spare=0}}", calibrated()) for b in (4, 5))
    size = (held_bytes(four) + held_bytes(five)) // 2
    ctx = calibrated()
    gm = traced("fold-bn", ctx)
    (step,) = Pipeline.parse(f"pack-int4{{mixed=true bytes={size}B}}").steps
    step.run(gm, ctx)  # type: ignore[union-attr]
    gm.recompile()
    assert held_bytes(four) < held_bytes(gm) <= size
    layers = [n.meta["yqc.layer"] for n in gm.graph.nodes if "yqc.layer" in n.meta]
    bits = [layer.weight_bits for layer in layers]
    assert {3, 4, 5, 6} >= set(bits)
    assert len(set(bits)) > 1
    assert {layer.granularity for layer in layers} == {"channel"}
    assert quality(four) < quality(gm) < quality(five)
    weights = [math.prod(layer.shape) for layer in layers]
    mean = sum(b * n for b, n in zip(bits, weights, strict=True)) / sum(weights)
    assert ctx.records.says == [f"{mean:.2f} bits a weight in the mean"]
    again = traced("fold-bn")
    assert ctx.records.chosen is not None
    assert "mixed=true" not in str(ctx.records.chosen)
    ctx.records.chosen.run(again, calibrated())
    again.recompile()
    assert torch.equal(gm(X), again(X))
    propagate(gm)
    assert roundtrip(gm, emit(gm, target="portable"), X).within(values=1e-5)


def test_widths_that_a_target_does_not_decode_are_refused() -> None:
    ctx = calibrated()
    ctx.target = "tensorrt"
    with pytest.raises(PassError, match="tensorrt decodes weights of 4, 8 bits only"):
        traced("fold-bn,pack-int4{mixed=true bytes=300B}", ctx)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("mixed=true", "go with one of ratio_vs_fp16=3.9, bytes=950KB, max_drop=0.01"),
        ("bytes=300B", "go with one of ratio_vs_fp16=3.9, bytes=950KB, max_drop=0.01"),
        ("mixed=true granularity=auto bytes=300B", "leave out mixed or auto"),
    ],
)
def test_mixed_goes_with_a_budget_and_without_auto(options: str, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        Pipeline.parse(f"pack-int4{{{options}}}")


def test_a_budget_too_small_is_refused() -> None:
    with pytest.raises(PassError, match="the budget is 100 bytes, and the smallest choice takes"):
        traced("fold-bn,pack-int4{granularity=auto bytes=100B}", calibrated())


def test_a_drop_that_nothing_can_judge_is_refused() -> None:
    passes, ctx = "fold-bn,pack-int4{granularity=auto max_drop=0.01}", calibrated()
    with pytest.raises(PassError, match="max_drop is judged on calibration images"):
        traced(passes, ctx)
    ctx.agreement = lambda _: None
    with pytest.raises(PassError, match="float model finds nothing in the calibration images"):
        traced(passes, ctx)


@pytest.mark.parametrize("most", [0.3, 0.05])
def test_the_smallest_plan_within_a_drop_is_found_by_bisection(most: float) -> None:
    """A judge that likes bytes: the graph that is taken is just large enough for it."""
    ctx, tried = calibrated(), []

    def agreement(gm: fx.GraphModule) -> float:
        plain = dict(traced("fold-bn").named_parameters())
        error = sum(
            float((p - plain[name]).detach().square().sum() / plain[name].detach().square().sum())
            for name, p in gm.named_parameters()
            if name.endswith("weight")
        )
        tried.append(error)
        return 1 - error

    ctx.agreement = agreement
    gm = traced("fold-bn", ctx)
    (auto,) = Pipeline.parse(f"pack-int4{{granularity=auto max_drop={most}}}").steps
    auto.run(gm, ctx)  # type: ignore[union-attr]
    assert len(tried) == 4
    kept = [error for error in tried if error <= most]
    assert kept, "the judge is content with the larger plans"
    assert "max_drop" not in str(ctx.records.chosen)
    again, replay = traced("fold-bn"), calibrated()
    ctx.records.chosen.run(again, replay)
    for graph in (gm, again):
        graph.recompile()
    assert torch.equal(gm(X), again(X))


def test_spare_bytes_go_where_they_lower_the_damage_most() -> None:
    ctx = calibrated()
    gm = traced("fold-bn", ctx)
    (step,) = Pipeline.parse("pack-int4{spare=0.6}").steps
    step.run(gm, ctx)  # type: ignore[union-attr]
    gm.recompile()
    layers = [n.meta["yqc.layer"] for n in gm.graph.nodes if "yqc.layer" in n.meta]
    bits = {layer.name: layer.weight_bits for layer in layers}
    assert set(bits.values()) == {4, 8}
    assert "spare=0.0" in str(ctx.records.chosen)
    assert all(f"{name}:affine.8" in str(ctx.records.chosen) for name, b in bits.items() if b == 8)
    plain = traced("fold-bn,pack-int4{spare=0}", calibrated())
    assert quality(gm) > quality(plain)
    again = traced("fold-bn")
    ctx.records.chosen.run(again, calibrated())
    again.recompile()
    assert torch.equal(gm(X), again(X))


@pytest.mark.parametrize(
    ("scheme", "others"),
    [
        (
            Scheme("affine", 4),
            {"affine.4.block.128", "affine.4.block.64", "affine.4.block.32", "affine.8.channel"},
        ),
        (
            Scheme("codebook", 4),
            {
                *(f"codebook.4.block.{block}" for block in (128, 64, 32)),
                *(f"codebook.4.channel.rows.{rows}" for rows in (16, 4)),
                "affine.8.channel",
            },
        ),
        (Scheme("pwlq", 4, "block", 64), {"affine.8.channel"}),
        (Scheme("affine", 8, "block", 64), set()),
    ],
)
def test_a_layer_may_get_finer_scales_or_tables_or_eight_bits(
    scheme: Scheme, others: set[str]
) -> None:
    first, *found = finer_schemes(scheme)
    assert first == scheme
    assert {write_plan_line("x", one) for one in found} == {f"x:{other}" for other in others}
