"""relax: the inputs that cost most stay in float, no more than their share."""

from collections.abc import Mapping
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.passes.nets import X, calibrated, images, quality, traced
from yqc import Context, calls, text
from yqc.errors import PipelineError
from yqc.quant import Observer
from yqc.quantizing import FloatTime
from yqc.targets import find_target
from yqc_passes.relax import Relax, find_readers, most_damage, squared_scores

OBSERVED = "fold-bn,observe,calibrate{ranges=minmax}"


def relaxed(share: float, rate: float = 0) -> str:
    return f"{OBSERVED},relax{{share={share} rate={rate}}},quantize"


def read_float(passes: str, ctx: Context | None = None) -> set[str]:
    gm = traced(passes, ctx or calibrated())
    layers = {n.name: n.meta["yqc.layer"] for n in gm.graph.nodes if "yqc.layer" in n.meta}
    assert {layer.weight_bits for layer in layers.values()} == {8}
    return {name for name, layer in layers.items() if layer.activation_bits == 32}


def test_at_most_a_share_of_the_inputs_stays_in_float() -> None:
    assert read_float(relaxed(0.2)) == set()  # of four, less than one
    assert len(read_float(relaxed(0.25))) == 1
    assert len(read_float(relaxed(1))) == 3  # rounding the image loses nothing


def test_what_is_chosen_helps_more_than_the_others() -> None:
    gm = traced(OBSERVED, calibrated())
    groups = list(find_readers(gm))
    alone = {}
    for group in groups:
        for each in calls(gm, Observer):
            each.module.rounding = each.module.group != group
        alone[group] = quality(gm)
    (chosen,) = set(groups) - set(
        find_readers(traced(f"{OBSERVED},relax{{share=0.5 rate=0}}", calibrated()))
    )
    price = {group: len(convs) for group, convs in find_readers(gm).items()}
    assert alone[chosen] == max(alone[g] for g in groups if price[g] <= 2)


def test_a_group_stays_in_float_as_a_whole() -> None:
    before = {c.module.group for c in calls(traced(OBSERVED, calibrated()), Observer)}
    gm = traced(f"{OBSERVED},relax{{share=0.5 rate=0}}", calibrated())
    left = {c.module.group for c in calls(gm, Observer)}
    assert left < before
    assert torch.isfinite(gm(X)).all()


def test_nothing_is_done_without_data() -> None:
    ctx = Context(target="portable", example=X)
    with_it, without = (read_float(relaxed(s), ctx) for s in (1, 0))
    assert with_it == without


@pytest.mark.parametrize("option", ["share=1.5", "share=-0.1"])
def test_refuses(option: str) -> None:
    with pytest.raises(PipelineError, match="share must be between 0 and 1"):
        traced(f"{OBSERVED},relax{{{option}}}", calibrated())


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 9), min_size=1),
    st.integers(0, 8),
    st.data(),
)
def test_the_worst_is_chosen(harm: Mapping[str, float], room: int, data: st.DataObject) -> None:
    price = {name: data.draw(st.integers(1, 4)) for name in harm}
    every = [set(c) for n in range(len(harm) + 1) for c in combinations(harm, n)]
    fits = [c for c in every if sum(price[n] for n in c) <= room]
    chosen = most_damage(harm, price, room)
    assert chosen in fits
    assert sum(harm[n] for n in chosen) == pytest.approx(max(sum(harm[n] for n in c) for c in fits))


def test_a_tensor_stays_in_float_only_where_that_is_worth_its_time() -> None:
    gm = traced(OBSERVED, calibrated())
    readers, time = find_readers(gm), FloatTime(gm, find_target("portable"))
    damage = {c.module.group: float(c.module.damage) for c in calls(gm, Observer)}
    scores = squared_scores(gm, calibrated())
    worth = {g: damage[g] / scores / (100 * time.added(convs)) for g, convs in readers.items()}
    most = max(worth.values())
    assert read_float(relaxed(1, rate=most * 1.01)) == set()
    (best,) = (g for g in worth if worth[g] == most)
    assert read_float(relaxed(1, rate=most * 0.99)) == {n.name for n in readers[best]}


def test_damage_beyond_what_gradients_can_estimate_ranks_nothing() -> None:
    gm, ctx = traced(OBSERVED, calibrated()), calibrated()
    for each in calls(gm, Observer):
        each.module.damage.fill_(1e9)
    before = len(calls(gm, Observer))
    Relax(share=1).run(gm, ctx)
    assert len(calls(gm, Observer)) == before
    assert ctx.records.says == [
        "rounding does more damage than a linear estimate can rank; none stays in float"
    ]


def test_the_default_rate_leaves_none_in_float_where_little_is_lost() -> None:
    assert read_float(f"{OBSERVED},relax{{share=1}},quantize") == set()


def test_onnxruntime_gets_no_integers_between_a_float_convolution_and_its_activation() -> None:
    ctx = Context(example=X, calibration=images)
    gm = traced("fold-bn,decompose-silu,observe,calibrate,relax{share=1 rate=0},quantize", ctx)
    lines = text(gm).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("%a_conv:"))
    assert "sigmoid(%a_conv)" in lines[at + 1]
    assert "mul(%a_conv, %a_act_sigmoid)" in lines[at + 2]
