"""Pipelines: what a run records, verifies, and tells its watchers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import fx, nn

from tests.steps import Idle, Liar, Scale, Widen, X, failure, net
from yqc import Context, Pass, Pipeline, Watcher, calls, text
from yqc.errors import PassError
from yqc.pipeline.step import Step
from yqc.pipeline.watchers import Verify
from yqc.progress import Advance, Silent

# Running


def test_records_what_every_pass_did() -> None:
    gm, ctx = net(), Context()
    first, second = Pipeline((Scale(), Idle())).run(gm, ctx)
    assert (first.index, first.name, first.record.rewrites, first.record.changed) == (
        1,
        "scale",
        2,
        True,
    )
    assert (second.index, second.name, second.record.rewrites, second.record.changed) == (
        2,
        "idle",
        0,
        False,
    )
    assert first.record.skips == ()
    why = "there is nothing to do"
    assert [(s.node, s.why) for s in second.record.skips] == [("_0", why), ("_2", why)]
    assert first.record.nodes_before == first.record.nodes_after == 5
    weights = 4 * (4 * 3 * 9 + 4 + 4 * 4 + 4)
    assert first.record.weight_bytes_before == first.record.weight_bytes_after == weights
    assert first.record.max_abs_error is None, "nobody measured"
    assert all(one.record.seconds for one in (first, second))
    assert {r.by for r in ctx.rewrites} == {"scale"}
    assert ctx.records.running == ""


def test_a_step_is_a_line() -> None:
    first, second = Pipeline((Scale(by=3.0), Idle())).run(net(), Context())
    assert re.fullmatch(
        r"1 scale\{by=3\.0\}: 2 rewrites, 0 skips, 5 -> 5 nodes, \d+ ms", str(first)
    )
    assert str(second).startswith("2 idle: 0 rewrites, 2 skips, 5 -> 5 nodes, ")


def test_measures_instead_of_trusting() -> None:
    """Whether a pass changed anything is told by what the graph is, not by what it recorded."""

    @dataclass(frozen=True)
    class Boast(Pass):
        name: ClassVar[str] = "boast"

        def run(self, gm: fx.GraphModule, ctx: Context) -> None:
            ctx.rewrote(calls(gm, nn.Conv2d)[0].node, "made it better")

    (step,) = Pipeline((Boast(),)).run(net(), Context(), [Verify()])
    assert (step.record.rewrites, step.record.changed, step.record.max_abs_error) == (1, False, 0.0)


def test_the_graph_is_in_order_after_every_pass() -> None:
    gm = net()
    Pipeline((Widen(),)).run(gm, Context())
    assert text(gm).splitlines()[-2] == "%_2: f32[1,5,4,4] = Conv2d(%_1)"
    assert gm(X).shape == (1, 5, 4, 4)


def test_progress_is_shown() -> None:
    seen: list[object] = []

    class Counting(Silent):
        @contextmanager
        def task(self, label: str, total: int) -> Iterator[Advance]:
            seen.append((label, total))
            yield seen.append

    Pipeline((Idle(), Scale())).run(net(), Context(progress=Counting()))
    assert seen == [("passes", 2), ("idle", 0), 1, ("scale", 0), 1]


def test_a_pass_that_fails_is_named_with_its_place() -> None:
    error = failure("idle,crash,scale", net())
    assert str(error) == "pass 2 of 3, crash: ZeroDivisionError: a channel without weights"
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_pass_that_leaves_an_illegal_graph_fails() -> None:
    assert "pass 1 of 1, break: " in str(failure("break", net()))


def test_a_pass_that_leaves_shapes_that_do_not_fit_names_the_node() -> None:
    message = str(failure("misfit", net()))
    assert message.startswith("pass 1 of 1, misfit: TraceError: node _2 does not fit its inputs")


# Verifying


def test_measures_the_error_of_every_pass() -> None:
    gm = net()
    was = gm(X).detach()
    (step,) = Pipeline((Scale(1.5),)).run(gm, Context(example=X), [Verify()])
    now = gm(X).detach()
    assert step.record.max_abs_error == pytest.approx(float((was - now).abs().max()))
    ratio = was.double().square().sum() / (was - now).double().square().sum()
    assert step.record.sqnr_db == pytest.approx(10 * float(ratio.log10()))


def test_errors_are_of_one_pass_not_of_all_before_it() -> None:
    gm = net()
    first, second = Pipeline((Scale(2.0), Scale(1.0001))).run(gm, Context(example=X), [Verify()])
    assert first.record.max_abs_error is not None
    assert second.record.max_abs_error is not None
    assert 0 < second.record.max_abs_error < first.record.max_abs_error / 100


def test_a_broken_promise_to_keep_the_numbers_is_an_error() -> None:
    message = str(failure("liar{by=1.001}", net(), Verify()))
    assert message.startswith(
        "pass 1 of 1, liar{by=1.001}: it declares that it keeps the numbers, and changes the "
        "outputs by "
    )


def test_a_small_error_that_rounding_does_not_explain_breaks_it_too() -> None:
    assert "and rounding explains " in str(failure("liar{by=1.00001}", net(), Verify()))


def test_float_rounding_is_no_broken_promise() -> None:
    (step,) = Pipeline((Liar(1 + 3e-7),)).run(net(), Context(example=X), [Verify()])
    assert step.record.changed
    assert step.record.max_abs_error is not None
    assert step.record.max_abs_error > 0


def test_a_pass_may_not_change_the_shape_of_the_outputs() -> None:
    assert str(failure("widen", net(), Verify())) == (
        "pass 1 of 1, widen: it changed the shapes of the outputs from [[1, 4, 4, 4]] to "
        "[[1, 5, 4, 4]]"
    )


def test_a_pass_may_not_make_outputs_infinite() -> None:
    message = str(failure("scale{by=1e30},scale{by=1e30}", net(), Verify()))
    assert message.endswith("the outputs are no longer finite after it, first at _2")


def test_verifies_on_noise_of_the_seed_where_there_is_no_example() -> None:
    errors = [
        Pipeline((Scale(1.5),)).run(net(), Context(seed=seed), [Verify()])[0].record.max_abs_error
        for seed in (0, 0, 1)
    ]
    assert errors[0] == errors[1] != errors[2]


# Watchers


def test_watchers_are_told_before_and_after_every_pass() -> None:
    told: list[str] = []

    class Listening(Watcher):
        def start(self, gm: fx.GraphModule, ctx: Context) -> None:
            told.append(f"start {len(gm.graph.nodes)}")

        def before(self, step: Step) -> None:
            told.append(f"before {step.name} {step.ctx.records.running}")

        def after(self, step: Step) -> None:
            weights = [
                float(calls(g, nn.Conv2d)[0].module.weight.detach().abs().sum())
                for g in (step.before, step.gm)
            ]
            told.append(f"after {step.name} {weights[1] / weights[0]:.3g}")

        def failed(self, step: Step, error: Exception) -> str:
            told.append(f"failed {step.name} {type(error).__name__}")
            return "told"

    error = failure("scale,crash,idle", net(), Listening())
    assert told == [
        "start 5",
        "before scale scale",
        "after scale 2",
        "before crash crash",
        "failed crash ZeroDivisionError",
    ]
    assert str(error).endswith("without weights; told")


def test_a_watcher_can_fail_a_pass() -> None:
    class Strict(Watcher):
        def after(self, step: Step) -> None:
            if step.record.changed:
                raise PassError("nothing may change today")

    assert str(failure("idle,scale", net(), Strict())) == (
        "pass 2 of 2, scale: nothing may change today"
    )


def test_steps_do_not_keep_copies_of_the_graph() -> None:
    """Of ten passes over a large model, ten copies would stay in memory."""
    gm = net()
    steps = Pipeline((Scale(), Scale())).run(gm, Context())
    assert all(step.before is gm for step in steps)
