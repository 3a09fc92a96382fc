"""slim is prune and recover: fewer channels, trained to answer as before."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import fx, nn

from tests.passes.nets import Unit, expanded
from yqc import Context, Given, Pipeline, calls, trace
from yqc.emit import emit, roundtrip
from yqc.errors import PassError
from yqc.graph.compare import max_abs_error, parameter_count

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net() -> fx.GraphModule:
    torch.manual_seed(2)
    body = nn.Sequential(Unit(3, 32, 3), Unit(32, 32, 3), nn.Conv2d(32, 2, 1))
    return trace(body.eval(), X)


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    """Pictures to measure on and to learn from, and the net as it was."""
    pictures = tuple(tmp_path / f"{i}.png" for i in range(8))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    for path, picture in zip(pictures, pixels, strict=True):
        Image.fromarray(picture).save(path)
    images = [torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    return Context(example=X, calibration=lambda: images, train=pictures, original=net())


def distance(gm: fx.GraphModule) -> float:
    with torch.no_grad():
        return max_abs_error([net()(X)], [gm(X)])


def test_stands_for_its_steps_and_hands_options_on() -> None:
    assert expanded("slim") == "channel-prune,recover"
    assert expanded("slim{ratio=0.3 of=macs time=10m}") == (
        "channel-prune{ratio=0.3 of=macs},recover{time=10m}"
    )
    assert expanded("slim{ratio=0.25 steps=40}") == "channel-prune{ratio=0.25},recover{steps=40}"


def test_pruning_goes_before_rounding() -> None:
    assert expanded("slim,int8") == f"channel-prune,recover,{expanded('int8')}"


def test_each_slim_prunes_again_and_the_last_trains() -> None:
    assert expanded("slim,slim") == "channel-prune,channel-prune,recover"
    assert expanded("prune{ratio=0.2},slim") == "channel-prune{ratio=0.2},channel-prune,recover"


@pytest.mark.parametrize("passes", ["slim", "prune,slim", "slim{steps=5},recover{steps=5}"])
def test_nothing_is_trained_twice(passes: str) -> None:
    given = Given(has_data=True, can_train=True)
    names = [action.name for action in Pipeline.parse(passes).expand(given=given)]
    assert names.count("recover") == 1
    assert names[-1] == "recover"


def test_a_share_of_the_parameters_goes_and_the_rest_learns(ctx: Context) -> None:
    gm, whole = net(), parameter_count(net())
    pruned = net()
    Pipeline.parse("prune{ratio=0.4}").run(pruned, Context(example=X, original=net()))
    Pipeline.parse("slim{ratio=0.4 steps=30}").run(gm, ctx)
    left = parameter_count(gm)
    assert 0.45 * whole < left < 0.75 * whole
    widths = [c.module.out_channels for c in calls(gm, nn.Conv2d)]
    assert widths[-1] == 2, "the outputs stay"
    assert max(widths) < 32
    assert {r.by for r in ctx.rewrites} == {"channel-prune", "recover"}
    assert distance(gm) < distance(pruned)


def test_the_file_computes_what_the_graph_computes(ctx: Context) -> None:
    gm = net()
    Pipeline.parse("slim{ratio=0.4 steps=2},fuse").run(gm, ctx)
    trip = roundtrip(gm, emit(gm), X)
    assert max(trip.plain.values, trip.optimised.values) < 1e-4


def test_without_pictures_there_is_nothing_to_learn_from() -> None:
    ctx = Context(example=X, original=net())
    with pytest.raises(PassError, match="there are no images to learn from; give some with --data"):
        Pipeline.parse("slim{ratio=0.4 steps=2}").run(net(), ctx)
