"""Sensitivity: one layer at a time, one calibration for all, and what the worst ones are for."""

import contextlib
import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import fx, nn

from tests.caches import ShortMemory, keep_everything
from tests.modules import conv
from yqc import Context, Pipeline, calls, text
from yqc.errors import PassError, PipelineError
from yqc.facts import OutputForm
from yqc.graph.compare import head_outputs, sqnr_db
from yqc.job.layer_runs import LayerRuns
from yqc.job.sensitivity import measure_sensitivity, most_sensitive
from yqc.testing import nets, traced


def images(count: int = 3) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 16, 16, generator=g) for _ in range(count)]


@pytest.fixture
def gm() -> fx.GraphModule:
    return traced(nets.detector(), (1, 3, 16, 16))


def context() -> Context:
    return Context(example=images()[0], calibration=images)


def test_ranks_every_convolution_and_leaves_the_graph_alone(gm: fx.GraphModule) -> None:
    before, ctx = text(gm), context()
    found = measure_sensitivity(gm, ctx)
    assert {c.name for c in found} == {c.target for c in calls(gm, nn.Conv2d)}
    assert [c.sqnr_db for c in found] == sorted(c.sqnr_db for c in found)
    assert all(math.isfinite(c.sqnr_db) and c.agreement is None for c in found)
    assert (text(gm), ctx.rewrites, ctx.warnings) == (before, [], [])


def test_equals_what_quantizing_that_layer_alone_really_costs() -> None:
    """Every other convolution skipped, the pipeline itself gives the same ratio."""

    def chain() -> fx.GraphModule:
        parts = (nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 1))
        return traced(nets.chain(*parts), (1, 3, 16, 16))

    gm = chain()
    found = {c.name: c.sqnr_db for c in measure_sensitivity(gm, context())}
    for alone, expected in found.items():
        own = chain()
        others = "|".join(name for name in found if name != alone)
        steps = f"reparam,fold-bn,dce,observe{{skip={others}}},calibrate,quantize"
        Pipeline.parse(steps).run(own, context())
        pairs = [(head_outputs(gm, i), head_outputs(own, i)) for i in images()]
        before, after = ([t for pair in pairs for t in pair[side]] for side in (0, 1))
        assert sqnr_db(before, after) == pytest.approx(expected, abs=0.2)


def test_detections_are_compared_where_there_is_a_detector(gm: fx.GraphModule) -> None:
    found = measure_sensitivity(gm, context(), form=OutputForm("yolov8"))
    assert all(c.agreement is None or 0 <= c.agreement <= 1 for c in found)


def test_a_layer_made_fragile_is_the_worst(gm: fx.GraphModule) -> None:
    with torch.no_grad():
        conv(gm, "p4.conv").weight[0, 0, 0, 0] = 300.0
    assert most_sensitive(gm, context(), 1) == ("p4.conv",)


def test_observe_skips_the_worst_and_settles_on_their_names(gm: fx.GraphModule) -> None:
    ctx, expected = context(), most_sensitive(gm, context(), 2)
    ctx.costliest = lambda gm, count: most_sensitive(gm, context(), count)
    steps = Pipeline.parse("int8{skip=worst:2}").run(gm, ctx)
    asked = [node for node, why in ctx.skips if why == "asked to skip it"]
    assert asked == [
        p.replace(".", "_")
        for p in sorted(
            expected,
            key=[c.target for c in calls(traced(nets.detector(), (1, 3, 16, 16)), nn.Conv2d)].index,
        )
    ]
    settled = next(s.chosen for s in steps if s.name == "observe")
    assert str(settled) == f"observe{{skip=[{','.join(expected)}]}}"


def test_by_hand_the_worst_must_be_named(gm: fx.GraphModule) -> None:
    with pytest.raises(PassError, match="ranked by a compile only; name paths"):
        Pipeline.parse("int8{skip=worst:2}").run(gm, context())


def test_a_wrong_count_is_refused_before_any_work() -> None:
    with pytest.raises(PipelineError, match="write worst:3 for the three that cost most"):
        Pipeline.parse("observe{skip=worst:few}")
    with pytest.raises(PipelineError, match="write worst:3"):
        Pipeline.parse("int8{skip=worst:few}").expand()


@pytest.mark.parametrize("layout", [None, "yolov8"])
def test_an_interrupted_measurement_goes_on_between_two_layers(
    gm: fx.GraphModule, layout: Literal["yolov8"] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_sensitivity(gm, context(), form=layout and OutputForm(layout))
    keep_everything(monkeypatch)
    runs, memory = len(whole) * len(images()), ShortMemory(math.inf)
    alone, done = LayerRuns._quantized, list[None]()  # once a run
    monkeypatch.setattr(LayerRuns, "_quantized", lambda *args: done.append(None) or alone(*args))  # type: ignore[func-returns-value]
    for more in (len(whole) + 2, 1, math.inf):
        memory.most = more + (3 if not memory.kept else 0)  # those of the calibration
        ctx = replace(context(), cache=memory)
        with contextlib.suppress(KeyboardInterrupt):
            assert measure_sensitivity(gm, ctx, form=layout and OutputForm(layout)) == whole
    assert runs <= len(done) <= runs + 2


def test_a_graph_without_convolutions_is_refused() -> None:
    with pytest.raises(PassError, match="no convolution that can be quantized"):
        measure_sensitivity(traced(nets.chain(nn.SiLU()), (1, 3, 4, 4)), Context())
