"""Foresee the stages of a compile and how long each takes, so that the time left can be shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from yqc.data import Data
from yqc.graph.compare import macs
from yqc.job.baseline import FLOAT_LABEL
from yqc.job.measure import FILE_LABEL, JUDGING_LABEL
from yqc.pipeline.base import JUDGES, Context, Pass, Workload
from yqc.pipeline.step import Watcher
from yqc.progress import Stage, expect
from yqc.quantizing.weights.inputs import BASE
from yqc.settings import Settings

FORWARD, PER_MAC = 0.005, 4.1e-11
"""Seconds to find the objects of an image, and for each multiply-accumulate: YOLOv8n at 320 px
(1.09 G: 0.05 s) and the shapes of the example (0.04 G), one thread of a Xeon at 2.5 GHz.

Half or double of all of them makes no difference: the pace of the machine is measured.
"""
OPENING, PASS, WRITING, JUDGING, LATENCY, REPORT = 2.4, 0.5, 3.4, 6.8, 1.5, 1.3
"""Seconds of what depends little on sizes, on that machine: opening model and data, a pass with its
verification, emitting and checking the file, the interval of the accuracy, timing, and the page."""


@dataclass
class Foresight(Watcher):
    """Announces the stages of a compile before its first pass."""

    passes: Sequence[Pass]
    data: Data | None
    settings: Settings
    evaluate: bool
    latency: bool

    def start(self, gm: fx.GraphModule, ctx: Context) -> None:
        """Announce the passes on `gm`, and what comes behind them."""
        work = measure_work(gm, ctx, self.settings)
        stages = list[Stage]()
        for action in self.passes:
            stages.append(Stage(action.name, PASS))
            stages += (
                Stage(f"{action.name}/{one.label}", one.seconds, one.fixed)
                for one in action.foresee(work)
            )
        stages.append(Stage("writing the file", WRITING))
        if self.evaluate and self.data is not None:
            seconds = work.forward * len(self.data.val.images)
            stages += [Stage(FLOAT_LABEL, seconds), Stage(FILE_LABEL, seconds)]
            stages.append(Stage(JUDGING_LABEL, JUDGING))
        if self.evaluate and self.latency:
            stages.append(Stage("measuring latency", LATENCY))
        expect(ctx.progress, [*stages, Stage("writing the report", REPORT)], past=OPENING)


def measure_work(gm: fx.GraphModule, ctx: Context, settings: Settings) -> Workload:
    """Return the sizes of a graph and its data by which passes foresee their times."""
    images = 0
    if ctx.calibration is not None:
        images = settings.calib_images
    kernels = (m.weight[0].numel() for m in gm.modules() if isinstance(m, nn.Conv2d))
    return Workload(
        images=images,
        judged=min(JUDGES, images),
        forward=FORWARD + PER_MAC * macs(gm),
        columns=sum(BASE + one for one in kernels),
    )
