"""recover trains a damaged detector back; what it chose goes into the recipe."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import fx

import yqc
from tests.passes.nets import Residual, X
from yqc.errors import PassError, PipelineError
from yqc.graph.compare import fingerprint, max_abs_error
from yqc.pipeline import Duration
from yqc.pipeline.pipeline import reproducible
from yqc_passes.recover import Recover


@pytest.fixture
def ctx(tmp_path: Path) -> yqc.Context:
    """Eight plain-coloured pictures to learn from, and the undamaged net."""
    paths = []
    for i in range(8):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (8, 8), (30 * i, 255 - 20 * i, (90 * i) % 256)).save(paths[-1])
    return yqc.Context(example=X, train=tuple(paths), original=yqc.trace(Residual(), X))


def damaged(gm: fx.GraphModule) -> fx.GraphModule:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in gm.named_parameters():
            if name.endswith("conv.weight"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return gm


def distance(gm: fx.GraphModule, ctx: yqc.Context) -> float:
    assert ctx.original is not None
    with torch.no_grad():
        return max_abs_error([ctx.original(X)], [gm(X)])


def test_a_damaged_graph_is_trained_back(ctx: yqc.Context) -> None:
    gm = damaged(yqc.trace(Residual(), X))
    nodes, before = yqc.text(gm), distance(gm, ctx)
    Recover(steps=60, batch=8, freeze_bn=True).run(gm, ctx)
    assert yqc.text(gm) == nodes
    assert distance(gm, ctx) < before
    (rewrite,) = ctx.rewrites
    assert rewrite.node == "output"
    assert "values trained for 60 steps (60 epochs): distance to the original" in rewrite.what
    assert ctx.warnings == []
    assert ctx.records.chosen is None


def test_what_is_no_better_is_undone_and_said(ctx: yqc.Context) -> None:
    gm = yqc.trace(Residual(), X)
    before = fingerprint(gm)
    Recover(steps=2, batch=4, lr=0.1).run(gm, ctx)
    assert fingerprint(gm) == before
    assert ctx.warnings == ["recover: it did not come closer to the original and was undone"]


@pytest.mark.parametrize(("after", "undone"), [(0.9, False), (0.8, True)])
def test_what_agrees_less_is_undone(ctx: yqc.Context, after: float, *, undone: bool) -> None:
    """Below what it was and below the option; what stays above one of the two is kept."""
    gm = damaged(yqc.trace(Residual(), X))
    measured = iter((0.85, after))
    ctx.agreement = lambda _: next(measured)
    before = fingerprint(gm)
    Recover(steps=20, batch=4, freeze_bn=True, agreement=0.95).run(gm, ctx)
    assert (fingerprint(gm) == before) == undone
    change = f"20 steps brought the agreement with the float model from 0.850 to {after:.3f}"
    assert ctx.warnings == ([f"recover: {change} and were undone"] if undone else [])
    assert ctx.records.says == ([] if undone else [change])


def test_less_agreement_than_before_is_kept_above_the_option(ctx: yqc.Context) -> None:
    gm = damaged(yqc.trace(Residual(), X))
    measured = iter((1.0, 0.97))
    ctx.agreement = lambda _: next(measured)
    before = fingerprint(gm)
    Recover(steps=20, batch=4, freeze_bn=True, agreement=0.95).run(gm, ctx)
    assert fingerprint(gm) != before
    assert ctx.warnings == []


@pytest.mark.parametrize("agreement", [None, 0.95])
def test_without_the_option_or_detections_no_agreement_counts(
    ctx: yqc.Context, agreement: float | None
) -> None:
    gm = damaged(yqc.trace(Residual(), X))
    calls: list[None] = []
    ctx.agreement = lambda _: calls.append(None)
    before = fingerprint(gm)
    Recover(steps=20, batch=4, freeze_bn=True, agreement=agreement).run(gm, ctx)
    assert fingerprint(gm) != before
    assert len(calls) == (0 if agreement is None else 1)


def test_explains_without_training(ctx: yqc.Context) -> None:
    gm = damaged(yqc.trace(Residual(), X))
    before = fingerprint(gm)
    assert Recover(steps=20, batch=2).explain(gm, ctx) == [
        "20 steps of 2 images, from 8 training images",
        "1 of 15 nodes compute what the original does: not trained",
    ]
    assert fingerprint(gm) == before
    (line,) = Recover().explain(gm, yqc.Context())
    assert line == "600 s, but there are no images to learn from; give some with --data"


def test_a_time_is_written_as_steps(ctx: yqc.Context) -> None:
    pipeline = yqc.Pipeline.parse("fold-bn,recover{time=0.5s batch=4},dce")
    steps = pipeline.run(damaged(yqc.trace(Residual(), X)), ctx)
    settled = steps[1].chosen
    assert isinstance(settled, Recover)
    assert settled.steps is not None
    assert settled.time is None
    text = reproducible(pipeline, steps)
    assert text == f"fold-bn,recover{{steps={settled.steps} batch=4}},dce"
    assert str(yqc.Pipeline.parse(text)) == text
    assert reproducible(yqc.Pipeline.parse("fold-bn"), steps[:1]) == "fold-bn"


@pytest.mark.parametrize("pipeline", ["recover", "fold-bn,recover,observe,calibrate,quantize"])
def test_it_stands_where_it_is_put(pipeline: str) -> None:
    names = [str(action) for action in yqc.Pipeline.parse(pipeline).expand()]
    assert ",".join(names) == pipeline


def test_without_images_or_original_it_says_what_to_give(ctx: yqc.Context) -> None:
    gm = yqc.trace(Residual(), X)
    with pytest.raises(PassError, match="no images to learn from; give some with --data"):
        Recover().run(gm, yqc.Context(original=gm))
    with pytest.raises(PassError, match="there is no float original to learn from"):
        Recover().run(gm, yqc.Context(train=ctx.train))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("steps=5 time=3m", "give one of epochs, steps and time"),
        ("steps=0", "steps must be 1 or above, not 0"),
        ("time=0s", "time must be above 0, not 0s"),
        ("time=soon", "time must be a time such as 90s, 10m or 1.5h or none, not soon"),
        ("lr=-1", "lr must be above 0, not -1"),
        ("batch=0", "batch must be 1 or above, not 0"),
        ("imgsz=0", "imgsz must be 1 or above, not 0"),
        ("bn-l1=-0.1", "bn-l1 must be 0 or above, not -0.1"),
        ("agreement=1.2", "agreement must be above 0 and at most 1, not 1.2"),
    ],
)
def test_options_that_make_no_sense_point_at_themselves(options: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message) as caught:
        yqc.Pipeline.parse(f"fold-bn,recover{{{options}}}")
    assert "^" in str(caught.value)


def test_its_usual_time_is_ten_minutes() -> None:
    assert Recover().plan(3, "cpu").seconds == 600
    assert Recover().plan(3, "cpu").seed == 3
    assert Recover(seed=4, time=Duration(90)).plan(3, "cpu").seed == 4
    assert str(Recover(time=Duration(90))) == "recover{time=90s}"
    assert str(Recover(time=Duration(900))) == "recover{time=15m}"


def test_a_gpu_gets_larger_batches_unless_told_otherwise() -> None:
    assert [Recover().plan(0, device).batch for device in ("cpu", "cuda", "cuda:1")] == [4, 16, 16]
    assert Recover(batch=7).plan(0, "cuda").batch == 7


def test_slim_hands_its_options_on() -> None:
    parse = yqc.Pipeline.parse
    text = "slim{ratio=0.3 of=macs steps=40}"
    assert str(parse(text)) == text
    names = list(map(str, parse(text).expand()))
    assert names == ["channel-prune{ratio=0.3 of=macs}", "recover{steps=40}"]
    assert list(map(str, parse("slim").expand())) == ["channel-prune", "recover"]
    assert list(map(str, parse("slim{time=5m}").expand()))[1] == "recover{time=5m}"


def images(ctx: yqc.Context) -> Iterator[torch.Tensor]:
    return iter(torch.rand(8, 1, 3, 8, 8, generator=torch.Generator().manual_seed(ctx.seed)))


def test_it_trains_what_int8_has_quantized(ctx: yqc.Context) -> None:
    ctx.calibration = lambda: images(ctx)
    gm = damaged(yqc.trace(Residual(), X))
    quantized = "int8,recover{steps=40 batch=8}"
    steps = yqc.Pipeline.parse(quantized).run(gm, ctx)
    assert steps[-1].record.changed
    assert sum("dequantize" in str(n.target) for n in gm.graph.nodes) > 4
    assert not any("trained" in n.name for n in gm.graph.nodes)
    assert not any("trained" in name for name, _ in gm.named_modules())
