"""Pipelines: what text stands for, and which orders are possible."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import fx

from tests.steps import ALL, Calibrate, Eight, Fold, Idle, Scale, net, registry
from yqc import Context, Pipeline, Watcher, text
from yqc.errors import PipelineError
from yqc.pipeline.registry import Found


def expand(passes: str, state: frozenset[str] = frozenset({"batch-norm"})) -> str:
    return ",".join(map(str, Pipeline.parse(passes, ALL).expand(state)))


# Text


def test_prints_what_it_parsed() -> None:
    pipeline = Pipeline.parse(" scale{by=3} , idle,eight{weights-only=true}", ALL)
    assert str(pipeline) == "scale{by=3.0},idle,eight{weights_only=true}"
    assert Pipeline.parse(str(pipeline), ALL) == pipeline
    assert pipeline == Pipeline((Scale(3.0), Idle(), Eight(weights_only=True)))


def test_an_unknown_pass_is_pointed_at() -> None:
    with pytest.raises(PipelineError) as caught:
        Pipeline.parse("idle,quantise{bits=4}", ALL)
    assert str(caught.value).splitlines() == [
        "unknown pass 'quantise'; did you mean 'quantize'?",
        "  idle,quantise{bits=4}",
        "       ^^^^^^^^",
    ]


def test_nothing_near_sends_to_the_list() -> None:
    with pytest.raises(PipelineError, match="unknown pass 'xyz'; `yqc passes` lists what there is"):
        Pipeline.parse("xyz", ALL)


# What recipes stand for


def test_recipes_expand_to_the_bottom() -> None:
    assert expand("eight") == "fold,calibrate,quantize"
    assert expand("both,scale") == "collect,fold,calibrate,quantize,idle,scale"
    assert expand("eight{weights-only=true}") == "fold,calibrate,quantize{weights_only=true}"


def test_a_step_whose_result_is_there_is_dropped_from_a_recipe() -> None:
    assert expand("fold,eight") == "fold,calibrate,quantize"
    assert expand("fold,calibrate,eight") == "fold,calibrate,quantize"
    assert expand("eight,eight") == "fold,calibrate,quantize"
    assert expand("eight", frozenset({"folded"})) == "calibrate,quantize"


def test_what_a_user_writes_is_never_dropped() -> None:
    assert expand("fold,fold,eight,quantize") == "fold,fold,calibrate,quantize,quantize"


def test_a_step_that_provides_nothing_is_never_dropped() -> None:
    assert expand("both,idle") == "collect,fold,calibrate,quantize,idle,idle"


def test_a_recipe_of_itself_is_refused() -> None:
    with pytest.raises(PipelineError, match="recipe 'loop' stands for itself"):
        expand("loop")


# Which orders are possible


TOO_LATE = (
    "collect needs a graph that is 'batch-norm', and fold before it ends that; "
    "put collect before fold"
)
OF_RECIPE = (
    "collect (of both) needs a graph that is 'batch-norm', and fold before it ends that; "
    "put both before fold"
)


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ("calibrate", "calibrate needs a graph that is 'folded'; put fold before it"),
        ("idle,quantize", "quantize needs a graph that is 'calibrated'; put calibrate before it"),
        ("fold,collect", TOO_LATE),
        ("fold,both", OF_RECIPE),
        ("pack", "pack needs a graph that is 'magic'; no pass provides that"),
    ],
)
def test_an_impossible_order_names_the_missing_pass(passes: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        expand(passes)
    assert str(caught.value) == message


def test_what_a_pass_needs_may_depend_on_its_options() -> None:
    assert expand("quantize{weights-only=true}") == "quantize{weights_only=true}"


def test_every_pass_that_would_do_is_named() -> None:
    @dataclass(frozen=True)
    class Other(Fold):
        name: ClassVar[str] = "other-fold"

    with pytest.raises(PipelineError, match="put fold or other-fold before it"):
        Pipeline.parse("calibrate", registry(Fold, Other, Calibrate)).expand()


def test_a_package_that_cannot_be_imported_does_not_hide_the_advice() -> None:
    broken = registry(Fold, Calibrate)
    broken.add(Found("acme", "no_such_package:Acme", "acme 1.0"))
    with pytest.raises(PipelineError, match="put fold before it"):
        Pipeline.parse("calibrate", broken).expand()


def test_nothing_runs_in_an_impossible_order() -> None:
    class Never(Watcher):
        def start(self, gm: fx.GraphModule, ctx: Context) -> None:
            raise AssertionError

    gm, ctx = net(), Context()
    before = text(gm)
    with pytest.raises(PipelineError):
        Pipeline.parse("scale,pack", ALL).run(gm, ctx, [Never()])
    assert (text(gm), ctx.rewrites) == (before, [])
