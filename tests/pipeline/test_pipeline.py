"""Pipelines: what text stands for, and which orders are possible."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import fx

from tests.steps import (
    ALL,
    Calibrate,
    Eight,
    Fold,
    Idle,
    Quantize,
    Scale,
    Words,
    net,
    registry,
)
from yqc import Context, Given, Pipeline, Recipe, Watcher, text
from yqc.errors import OptionError, PipelineError
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
    assert expand("eight", frozenset({"folded"})) == "calibrate,quantize"


@pytest.mark.parametrize(
    ("passes", "reason"),
    [
        (
            "eight,eight",
            "quantize finds a graph that is 'quantized' already, by quantize (of eight)",
        ),
        (
            "fold,calibrate,quantize,eight",
            "quantize finds a graph that is 'quantized' already, by quantize",
        ),
    ],
)
def test_a_recipe_that_is_dropped_as_a_whole_is_refused(passes: str, reason: str) -> None:
    with pytest.raises(PipelineError) as caught:
        expand(passes)
    assert str(caught.value) == f"eight would do nothing here: {reason}; leave one of them out"


def test_what_was_dropped_is_recorded_with_the_reason() -> None:
    gm, ctx = net(), Context()
    Pipeline.parse("fold,eight", ALL).run(gm, ctx)
    assert ctx.records.dropped == ["fold (of eight): a graph that is 'folded' already, by fold"]


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


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        (
            "eight,late",
            (
                "late cannot work on a graph that is 'quantized', and quantize (of eight) "
                "before it makes it that; put late before eight"
            ),
        ),
        (
            "eight,later",
            (
                "late (of later) cannot work on a graph that is 'quantized', and quantize "
                "(of eight) before it makes it that; put later before eight"
            ),
        ),
        (
            "twice,twice",
            (
                "twice cannot work on a graph that is 'done', and twice before it makes it that; "
                "leave one twice out"
            ),
        ),
    ],
)
def test_a_pass_that_excludes_what_is_there_is_refused(passes: str, message: str) -> None:
    @dataclass(frozen=True)
    class Late(Idle):
        name: ClassVar[str] = "late"
        excludes: ClassVar[Words] = frozenset({"quantized"})

    @dataclass(frozen=True)
    class Later(Recipe):
        name: ClassVar[str] = "later"

        def expand(self, given: Given) -> str:
            return "late"

    @dataclass(frozen=True)
    class Twice(Idle):
        name: ClassVar[str] = "twice"
        excludes: ClassVar[Words] = frozenset({"done"})
        provides: ClassVar[Words] = frozenset({"done"})

    kinds = registry(Fold, Calibrate, Quantize, Eight, Late, Later, Twice)
    with pytest.raises(PipelineError) as caught:
        Pipeline.parse(passes, kinds).expand()
    assert str(caught.value) == message
    assert Pipeline.parse("late,eight", kinds).expand()


def test_what_only_a_pass_of_a_recipe_refuses_points_at_the_recipe() -> None:
    @dataclass(frozen=True)
    class Deep(Recipe):
        name: ClassVar[str] = "deep"

        by: str = "1"
        idle: bool = False

        def expand(self, given: Given) -> str:
            return f"scale{{by={self.by}}}"

    @dataclass(frozen=True)
    class Deeper(Deep):
        name: ClassVar[str] = "deeper"

        def expand(self, given: Given) -> str:
            return f"deep{{by={self.by}}}"

    kinds = registry(Scale, Deep, Deeper)
    with pytest.raises(OptionError) as caught:
        Pipeline.parse("scale,deeper{idle=true by=much}", kinds).expand()
    assert str(caught.value).splitlines() == [
        "deeper: by must be a number, not much",
        "  scale,deeper{idle=true by=much}",
        "                            ^^^^",
    ]
    with pytest.raises(OptionError) as caught:
        Pipeline([Scale(), Deeper(by="much")], kinds).expand()
    assert str(caught.value) == "deeper: by must be a number, not much"


def test_passes_and_text_can_be_mixed() -> None:
    pipeline = Pipeline([Scale(3.0), " idle, eight ", Fold()], ALL)
    assert str(pipeline) == "scale{by=3.0},idle,eight,fold"
    assert pipeline == Pipeline.parse(str(pipeline), ALL)
    assert Pipeline.of(Scale(3.0)) == Pipeline.of([Scale(3.0)])
    assert Pipeline.of("").steps == Pipeline.of([]).steps == ()
    assert Pipeline.of(pipeline) is pipeline


@pytest.mark.parametrize("wrong", [Scale, 3, None])
def test_a_pipeline_is_made_of_nothing_else(wrong: object) -> None:
    with pytest.raises(PipelineError, match="a pipeline is made of passes and text, not of"):
        Pipeline([wrong], ALL)  # type: ignore[list-item]


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
