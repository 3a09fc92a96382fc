"""One net, its images, and pipelines on it, for the tests of passes that need several of these."""

import torch
from torch import Tensor, fx

import yqc
from yqc import testing
from yqc.graph.compare import sqnr_db
from yqc.testing import nets

SHAPE = (1, 3, 8, 8)
Residual, Unit = nets.mixed, nets.Unit


def traced(pipeline: str, ctx: yqc.Context | None = None, seed: int = 0) -> fx.GraphModule:
    """Trace the net and run a pipeline on it, by default for the target `portable`."""
    gm = testing.traced(Residual(seed=seed), SHAPE)
    yqc.Pipeline.parse(pipeline).run(gm, ctx or yqc.Context(target="portable", example=X))
    return gm


def images() -> list[Tensor]:
    """Make eight calibration images."""
    return testing.images(testing.traced(Residual(), SHAPE))


X = testing.images(testing.traced(Residual(), SHAPE), 1, seed=0)[0]


def calibrated() -> yqc.Context:
    """Return a context with these images to calibrate on."""
    return yqc.Context(target="portable", example=X, calibration=images)


def quality(gm: fx.GraphModule) -> float:
    """Return the signal-to-noise ratio in dB of a graph's outputs on these images."""
    plain = traced("fold-bn")
    with torch.no_grad():
        return sqnr_db([plain(x) for x in images()], [gm(x) for x in images()])


def expanded(passes: str) -> str:
    """Return the passes that a pipeline text stands for, for the target `portable`."""
    return ",".join(map(str, yqc.Pipeline.parse(passes).expand(given=yqc.Given("portable"))))
