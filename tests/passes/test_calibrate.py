from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.passes.nets import Residual, X, calibrated, images, traced
from yqc import Context, Pipeline, calls, trace
from yqc.errors import PassError, PipelineError
from yqc.graph.compare import fingerprint, graph_bytes
from yqc.graph.serial import load_graph, save_graph
from yqc.job.work import Work
from yqc.pipeline import base
from yqc.quant import Int8Weights, Observer
from yqc.quant.ranges import RANGE_METHODS
from yqc.store import Store


def test_minmax_is_the_range_of_the_images_and_one_group_has_one_scale() -> None:
    ctx = calibrated()
    gm = traced("fold-bn,observe,calibrate{ranges=minmax}", ctx)
    by_name = {c.node.all_input_nodes[0].name: c.module for c in calls(gm, Observer)}
    float_gm = traced("fold-bn")
    stem = [
        float_gm.get_submodule("stem.act")(float_gm.get_submodule("stem.conv")(i)) for i in images()
    ]
    low, high = (float(v) for v in torch.cat(stem).detach().aminmax())
    torch.testing.assert_close(float(by_name["stem_act"].scale), (high - low) / 255)
    group = [m for m in by_name.values() if m.group == "a_act"]
    assert len(group) == 4
    assert len({(float(m.scale), int(m.zero_point)) for m in group}) == 1


def test_a_calibrated_graph_comes_back_with_the_same_bytes(tmp_path: Path) -> None:
    gm = traced("fold-bn,observe,calibrate", calibrated())
    save_graph(gm, tmp_path / "a.yqc")
    assert graph_bytes(load_graph(tmp_path / "a.yqc")[0]) == graph_bytes(gm)


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_every_method_gives_every_observer_a_scale(method: str) -> None:
    ctx = calibrated()
    gm = traced(f"fold-bn,observe,calibrate{{ranges={method}}}", ctx)
    assert all(c.module.calibrated for c in calls(gm, Observer))
    assert all(c.module.histogram is None for c in calls(gm, Observer))


def test_images_lose_nothing() -> None:
    gm = traced("fold-bn,observe,calibrate", calibrated())
    module = calls(gm, Observer)[0].module
    assert float(module.scale) == pytest.approx(1 / 255)
    assert int(module.zero_point) == 0


def test_without_data_ranges_follow_from_the_batch_norms() -> None:
    ctx = Context(target="portable", example=X)
    gm = traced("fold-bn,observe,calibrate", ctx)
    by_name = {c.node.all_input_nodes[0].name: c.module for c in calls(gm, Observer)}
    bn = Residual().stem.bn
    reach = (bn.bias + 6 * bn.weight.abs()).detach()
    high = float(torch.nn.functional.silu(reach).max())
    scale = float(by_name["stem_act"].scale)
    assert scale * 255 == pytest.approx(high + 0.2785, rel=2e-2)
    assert any("no data was given" in w for w in ctx.warnings)


def test_values_that_are_not_finite_name_their_node() -> None:
    gm = trace(Residual(), X)
    gm.get_submodule("a.bn").weight.data[1] = torch.inf  # type: ignore[operator]
    pipeline = Pipeline.parse("fold-bn,observe,calibrate")
    with pytest.raises(PassError, match="node a_act computes values that are not finite"):
        pipeline.run(gm, calibrated())


def test_needs_observers() -> None:
    with pytest.raises(PipelineError, match="put observe before it"):
        Pipeline.parse("fold-bn,calibrate").expand()


def test_weights_get_a_scale_a_channel() -> None:
    gm = traced("fold-bn,observe,calibrate", calibrated())
    marks = [n.meta["yqc.int8"] for n in gm.graph.nodes if "yqc.int8" in n.meta]
    assert [
        m.scale.shape[0] for m in marks if isinstance(m, Int8Weights) and m.scale is not None
    ] == [
        4,
        4,
        4,
        2,
    ]


def test_noise_stands_for_images_only() -> None:
    wide = torch.rand(1, 3, 8)
    net = torch.nn.Sequential(torch.nn.Unflatten(1, (3, 1)), torch.nn.Conv2d(3, 4, 1))
    gm = trace(net, wide)
    with pytest.raises(PassError, match="this one does not; give --data"):
        Pipeline.parse("fold-bn,observe,calibrate").run(
            gm, Context(target="portable", example=wide)
        )


def test_needs_an_image_to_tell_what_matters() -> None:
    with pytest.raises(PipelineError, match="images must be 1 or above, not 0"):
        traced(
            "fold-bn,observe,calibrate{images=0}",
            calibrated(),
        )


@pytest.mark.parametrize("after", [1, 5, 8, 9, 20])
def test_a_killed_calibration_goes_on_and_ends_in_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """It is killed in or behind the images that run with gradients."""
    monkeypatch.setattr(base, "PAUSE", 0.0)
    monkeypatch.setattr(base, "LONGEST", 0.0)
    passes = "fold-bn,observe,calibrate{images=4},bias-correct,quantize"
    pictures = [
        torch.rand(1, *X.shape[1:], generator=torch.Generator().manual_seed(i)) for i in range(24)
    ]

    def context(read: list[int], stop: int = 1000, *, resume: bool = True) -> Context:
        def stream() -> Iterator[Tensor]:
            for number, picture in enumerate(pictures):
                if number == stop:
                    raise KeyboardInterrupt
                read.append(number)
                yield picture

        ctx = calibrated()
        ctx.calibration = stream
        ctx.cache = Work([Store(tmp_path / "store")], {}, resume=resume)
        return ctx

    want = traced(passes, context([], resume=False))
    for entry in Store(tmp_path / "store").entries():
        entry.path.unlink()
    with pytest.raises(KeyboardInterrupt):
        traced(passes, context([], after))
    notes = [entry.key["name"] for entry in Store(tmp_path / "store").entries()]
    assert [name.partition("-")[0] for name in notes] == ["calibration"]
    again = traced(passes, context([]))
    assert fingerprint(again) == fingerprint(want)


def test_tensors_of_known_range_need_no_statistics() -> None:
    gm = traced("fold-bn,observe{skip=a.*|b.*|out},calibrate", calibrated())
    (observer,) = calls(gm, Observer)  # of the image
    assert float(observer.module.scale) == pytest.approx(1 / 255)
    assert observer.module.calibrated
