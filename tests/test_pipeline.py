"""Pipelines: what text stands for, which orders are possible, and what a run records."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

import pytest
import torch
from torch import fx, nn

from yqc import Context, Pass, Pipeline, Recipe, Registry, Watcher, calls, text, trace
from yqc.errors import CheckpointError, PassError, PipelineError
from yqc.graph.serial import load_graph, save_graph
from yqc.pipeline import Step
from yqc.progress import Advance, Silent
from yqc.registry import Found
from yqc.replay import replay
from yqc.watch import Reproducer, Verify

X = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))

Words: TypeAlias = frozenset[str]


@dataclass(frozen=True)
class Fold(Pass):
    name: ClassVar[str] = "fold"
    provides: ClassVar[Words] = frozenset({"folded"})
    removes: ClassVar[Words] = frozenset({"batch-norm"})

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Collect(Fold):
    name: ClassVar[str] = "collect"
    requires: ClassVar[Words] = frozenset({"batch-norm"})
    provides: ClassVar[Words] = frozenset({"collected"})
    removes: ClassVar[Words] = frozenset()


@dataclass(frozen=True)
class Calibrate(Fold):
    name: ClassVar[str] = "calibrate"
    requires: ClassVar[Words] = frozenset({"folded"})
    provides: ClassVar[Words] = frozenset({"calibrated"})
    removes: ClassVar[Words] = frozenset()


@dataclass(frozen=True)
class Quantize(Fold):
    name: ClassVar[str] = "quantize"
    provides: ClassVar[Words] = frozenset({"quantized"})
    removes: ClassVar[Words] = frozenset()

    weights_only: bool = False

    def needs(self) -> frozenset[str]:
        return frozenset() if self.weights_only else frozenset({"calibrated"})


@dataclass(frozen=True)
class Pack(Fold):
    name: ClassVar[str] = "pack"
    requires: ClassVar[Words] = frozenset({"magic"})
    provides: ClassVar[Words] = frozenset()


@dataclass(frozen=True)
class Eight(Recipe):
    name: ClassVar[str] = "eight"

    weights_only: bool = False

    def expand(self) -> str:
        return f"fold,calibrate,quantize{{weights-only={str(self.weights_only).lower()}}}"


@dataclass(frozen=True)
class Both(Recipe):
    name: ClassVar[str] = "both"

    def expand(self) -> str:
        return "collect,eight,idle"


@dataclass(frozen=True)
class Loop(Recipe):
    name: ClassVar[str] = "loop"

    def expand(self) -> str:
        return "fold,loop"


@dataclass(frozen=True)
class Idle(Pass):
    name: ClassVar[str] = "idle"
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for each in calls(gm, nn.Conv2d):
            ctx.skipped(each.node, "there is nothing to do")


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply the weights of every convolution."""

    name: ClassVar[str] = "scale"

    by: float = 2.0

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for each in calls(gm, nn.Conv2d):
            with torch.no_grad():
                each.module.weight *= self.by
            ctx.rewrote(each.node, f"times {self.by:g}")


@dataclass(frozen=True)
class Liar(Scale):
    name: ClassVar[str] = "liar"
    keeps_numbers: ClassVar[bool] = True


@dataclass(frozen=True)
class Crash(Pass):
    name: ClassVar[str] = "crash"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        Scale().run(gm, ctx)
        raise ZeroDivisionError("a channel without weights")


@dataclass(frozen=True)
class Widen(Pass):
    name: ClassVar[str] = "widen"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:  # noqa: ARG002
        gm.set_submodule(calls(gm, nn.Conv2d)[-1].target, nn.Conv2d(4, 5, 1))


@dataclass(frozen=True)
class Misfit(Pass):
    name: ClassVar[str] = "misfit"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:  # noqa: ARG002
        gm.set_submodule(calls(gm, nn.Conv2d)[0].target, nn.Conv2d(3, 7, 1))


@dataclass(frozen=True)
class Break(Pass):
    name: ClassVar[str] = "break"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:  # noqa: ARG002
        first, second = calls(gm, nn.Conv2d)
        first.node.args = (second.node,)


def registry(*kinds: type[Pass] | type[Recipe]) -> Registry:
    made = Registry()
    for kind in kinds:
        made.add(Found(kind.name, f"{__name__}:{kind.__name__}", "tests"))
        made.loaded[kind.name] = kind
    return made


ALL = registry(
    *(Fold, Collect, Calibrate, Quantize, Pack, Eight, Both, Loop),
    *(Idle, Scale, Liar, Crash, Widen, Misfit, Break),
)


def net() -> fx.GraphModule:
    torch.manual_seed(1)
    return trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 1)), X)


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


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ("calibrate", "calibrate needs a graph that is 'folded'; put fold before it"),
        ("idle,quantize", "quantize needs a graph that is 'calibrated'; put calibrate before it"),
        ("fold,collect", TOO_LATE),
        ("fold,both", TOO_LATE),
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
        def start(self, gm: fx.GraphModule, ctx: Context) -> None:  # noqa: ARG002
            raise AssertionError

    gm, ctx = net(), Context()
    before = text(gm)
    with pytest.raises(PipelineError):
        Pipeline.parse("scale,pack", ALL).run(gm, ctx, [Never()])
    assert (text(gm), ctx.rewrites) == (before, [])


# Running


def test_records_what_every_pass_did() -> None:
    gm, ctx = net(), Context()
    first, second = Pipeline((Scale(), Idle())).run(gm, ctx)
    assert (first.index, first.name, first.rewrites, first.changed) == (1, "scale", 2, True)
    assert (second.index, second.name, second.rewrites, second.changed) == (2, "idle", 0, False)
    assert first.skips == ()
    assert second.skips == (("_0", "there is nothing to do"), ("_2", "there is nothing to do"))
    assert first.nodes_before == first.nodes_after == 5
    weights = 4 * (4 * 3 * 9 + 4 + 4 * 4 + 4)
    assert first.weight_bytes_before == first.weight_bytes_after == weights
    assert first.max_abs_error is None, "nobody measured"
    assert min(first.seconds, second.seconds) > 0
    assert {r.by for r in ctx.rewrites} == {"scale"}
    assert ctx.running == ""


def test_measures_instead_of_trusting() -> None:
    """Whether a pass changed anything is told by what the graph is, not by what it recorded."""

    @dataclass(frozen=True)
    class Boast(Pass):
        name: ClassVar[str] = "boast"

        def run(self, gm: fx.GraphModule, ctx: Context) -> None:
            ctx.rewrote(calls(gm, nn.Conv2d)[0].node, "made it better")

    (step,) = Pipeline((Boast(),)).run(net(), Context(), [Verify()])
    assert (step.rewrites, step.changed, step.max_abs_error) == (1, False, 0.0)


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
    assert seen == [("passes", 2), 1, 1]


def failure(passes: str, gm: fx.GraphModule, *watchers: Watcher) -> PassError:
    with pytest.raises(PassError) as caught:
        Pipeline.parse(passes, ALL).run(gm, Context(example=X), watchers)
    return caught.value


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
    assert step.max_abs_error == pytest.approx(float((was - now).abs().max()))
    ratio = was.double().square().sum() / (was - now).double().square().sum()
    assert step.sqnr_db == pytest.approx(10 * float(ratio.log10()))


def test_errors_are_of_one_pass_not_of_all_before_it() -> None:
    gm = net()
    first, second = Pipeline((Scale(2.0), Scale(1.0001))).run(gm, Context(example=X), [Verify()])
    assert first.max_abs_error is not None
    assert second.max_abs_error is not None
    assert 0 < second.max_abs_error < first.max_abs_error / 100


def test_a_broken_promise_to_keep_the_numbers_is_an_error() -> None:
    message = str(failure("liar{by=1.001}", net(), Verify()))
    assert message.startswith(
        "pass 1 of 1, liar{by=1.001}: it declares that it keeps the numbers, and changes the "
        "outputs by "
    )


def test_float_rounding_is_no_broken_promise() -> None:
    (step,) = Pipeline((Liar(1 + 1e-5),)).run(net(), Context(example=X), [Verify()])
    assert step.changed
    assert step.max_abs_error is not None
    assert step.max_abs_error > 0


def test_a_pass_may_not_change_the_shape_of_the_outputs() -> None:
    assert str(failure("widen", net(), Verify())) == (
        "pass 1 of 1, widen: it changed the shapes of the outputs from [[1, 4, 4, 4]] to "
        "[[1, 5, 4, 4]]"
    )


def test_a_pass_may_not_make_outputs_infinite() -> None:
    message = str(failure("scale{by=1e30},scale{by=1e30}", net(), Verify()))
    assert message.endswith("the outputs are no longer finite after it")


def test_verifies_on_noise_of_the_seed_where_there_is_no_example() -> None:
    errors = [
        Pipeline((Scale(1.5),)).run(net(), Context(seed=seed), [Verify()])[0].max_abs_error
        for seed in (0, 0, 1)
    ]
    assert errors[0] == errors[1] != errors[2]


# Reproducers


def test_a_failure_leaves_what_is_needed_to_run_it_again(tmp_path: Path) -> None:
    gm, path = net(), tmp_path / "x.reproducer.yqc"
    before = text(gm)
    error = failure("idle,crash", gm, Verify(), Reproducer(path))
    assert str(error).endswith(f"; run it again with: yqc replay {path}")
    saved, info, more = load_graph(path)
    assert text(saved) == before, "the graph before the pass, not the one it left half done"
    assert torch.equal(saved(X), net()(X))
    assert (info["pass"], info["index"], info["seed"]) == ("crash", 2, 0)
    assert info["error"] == "ZeroDivisionError: a channel without weights"
    assert torch.equal(more["example"], X)
    assert set(info["versions"]) == {"python", "torch"}


def test_replay_fails_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "x.reproducer.yqc"
    failure("liar{by=3}", net(), Verify(), Reproducer(path))
    with pytest.raises(PassError) as caught:
        replay(path, ALL)
    assert "liar{by=3.0}: it declares that it keeps the numbers" in str(caught.value)
    assert "; the first failure was PassError: it declares" in str(caught.value)


def test_replay_says_so_once_the_pass_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "x.reproducer.yqc"
    failure("liar", net(), Verify(), Reproducer(path))

    @dataclass(frozen=True)
    class Mended(Idle):
        name: ClassVar[str] = "liar"

    assert replay(path, registry(Mended)).startswith(
        "liar works on this graph now: 0 rewrites, 2 skips (it failed with PassError: it declares"
    )


def test_replay_does_not_ask_for_the_passes_before(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Late(Crash):
        name: ClassVar[str] = "late"
        requires: ClassVar[Words] = frozenset({"calibrated"})

    path, kinds = tmp_path / "x.reproducer.yqc", registry(Fold, Calibrate, Late)
    with pytest.raises(PassError):
        Pipeline.parse("fold,calibrate,late", kinds).run(net(), Context(), [Reproducer(path)])
    with pytest.raises(PassError, match="pass 1 of 1, late: ZeroDivisionError"):
        replay(path, kinds)


def test_replay_refuses_what_is_no_reproducer(tmp_path: Path) -> None:
    path = tmp_path / "a.yqc"
    with pytest.raises(CheckpointError, match=r"there is no file .*a\.yqc"):
        replay(path, ALL)
    save_graph(net(), path, {"kind": "model"})
    with pytest.raises(CheckpointError, match=r"a\.yqc is no reproducer"):
        replay(path, ALL)
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="it is damaged"):
        replay(path, ALL)


def test_a_reproducer_that_cannot_be_written_does_not_hide_the_failure(tmp_path: Path) -> None:
    error = failure("crash", net(), Reproducer(tmp_path / "absent" / "x.yqc"))
    assert "a channel without weights; no reproducer was written (cannot write" in str(error)


# Watchers


def test_watchers_are_told_before_and_after_every_pass() -> None:
    told: list[str] = []

    class Listening(Watcher):
        def start(self, gm: fx.GraphModule, ctx: Context) -> None:  # noqa: ARG002
            told.append(f"start {len(gm.graph.nodes)}")

        def before(self, step: Step) -> None:
            told.append(f"before {step.name} {step.ctx.running}")

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
            if step.changed:
                raise PassError("nothing may change today")

    assert str(failure("idle,scale", net(), Strict())) == (
        "pass 2 of 2, scale: nothing may change today"
    )


def test_steps_do_not_keep_copies_of_the_graph() -> None:
    """Of ten passes over a large model, ten copies would stay in memory."""
    gm = net()
    steps = Pipeline((Scale(), Scale())).run(gm, Context())
    assert all(step.before is gm for step in steps)
