"""Images that passes see: a stream for calibration, and a judge of agreement with the original."""

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor, fx

from yqc import evaluation as ev
from yqc.data import CalibrationImages, KeptImages, Split
from yqc.data.files import content_hash
from yqc.data.images import ENOUGH
from yqc.graph import lay_out
from yqc.graph.compare import fingerprint, macs
from yqc.job.baseline import load_or_detect
from yqc.job.keys import model_key
from yqc.models.source import Source
from yqc.pipeline.base import JUDGES, Context
from yqc.settings import Settings
from yqc.store import user_store
from yqc.training.teacher import fold_batch_norms

JUDGED = 2e11
"""Multiply-accumulates that one judgement of agreement may take, so that it ends within seconds.

Half of it judges large graphs on half as many images, double takes twice as long.
"""
FEWEST = 8
"""Images of a judgement at least, however large the graph."""
TOGETHER = 4
"""Images in a batch: at 320 px batches of four take two thirds of the time of single images."""


class CalibrationStream:
    """The calibration images; warns in the end of what is wrong with them.

    Raises:
        DataError: there are fewer than calibration needs.
    """

    def __init__(
        self,
        split: Split,
        source: Source,
        settings: Settings,
        ctx: Context,
        kept: KeptImages,
        fewest: int = ENOUGH,
    ) -> None:
        self._images = CalibrationImages(
            split,
            source.imgsz,
            settings.calib_images,
            settings.seed,
            channels=source.facts.channels,
            kept=kept,
            fewest=fewest,
            crop=source.task == "classify",
        )
        self._warn = ctx.warn

    def __len__(self) -> int:
        """How many there are if all can be read."""
        return len(self._images)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield each as float32 [1, C, H, W] in 0..1, channels last in memory."""
        for image in self._images:
            yield torch.from_numpy(image)
        for sentence in self._images.complaints():
            self._warn(sentence)


def judges(split: Split, settings: Settings, gm: fx.GraphModule) -> Split:
    """Choose at most `JUDGES` of the calibration images, so many that judging a graph is quick."""
    quick = max(FEWEST, min(JUDGES, int(JUDGED / max(1, macs(gm)))))
    paths = list(split.images)
    random.Random(settings.seed).shuffle(paths)  # noqa: S311  # a choice of images, no secret
    return replace(split, images=tuple(paths[: min(quick, settings.calib_images)]), read=None)


class Agreeing:
    """Judges a graph by the detections of the float one (`source`) on the images of a split.

    The float one's are kept between compiles.
    """

    def __init__(self, source: Source, split: Split, settings: Settings, ctx: Context) -> None:
        self._source, self._split, self._settings, self._ctx = source, split, settings, ctx

    def __call__(self, gm: fx.GraphModule) -> float | None:
        """Return the AP at IoU 0.5 of a graph, the float graph's detections taken as the truth.

        None where the float graph finds nothing. What is judged is kept for a resumed compile.
        """
        name = f"agreement-{fingerprint(gm)}" if self._ctx.cache else ""
        if self._ctx.cache and (kept := self._ctx.cache.load(name)) is not None:
            known: float | None = kept[1]["agreement"]
            return known
        found = self._judge(gm)
        if self._ctx.cache:
            self._ctx.cache.save(name, {}, {"agreement": found})
        return found

    def _judge(self, gm: fx.GraphModule) -> float | None:
        is_same = fingerprint(gm) == fingerprint(self._source.gm)
        return ev.agreement50(self._reference, self._reference if is_same else self._detect(gm))

    @cached_property
    def _reference(self) -> ev.Detections:
        """What the float graph finds."""
        images = [[path.name, content_hash(path)] for path in self._split.images]
        key = {
            **model_key(self._source, self._settings),
            "judged": images,
            "threads": torch.get_num_threads(),
        }
        find = partial(self._detect, self._source.gm)
        return load_or_detect(user_store(), key, self._split, find)[0]

    def _detect(self, gm: fx.GraphModule) -> ev.Detections:
        device = next((p.device for p in gm.parameters()), torch.device("cpu"))
        return ev.detect(
            ev.TorchModel(lay_out(fold_batch_norms(gm)), device),
            self._split,
            imgsz=self._source.imgsz,
            form=self._source.form,
            batch=TOGETHER,
            channels=self._source.facts.channels,
            progress=self._ctx.progress,
        )
