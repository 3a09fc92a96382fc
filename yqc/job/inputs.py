"""Inputs of a compile: the model, the data, and the context that passes work in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from yqc.data import Data, KeptImages, Labelling, fit_channels, fit_classes, load_data
from yqc.data.images import ENOUGH
from yqc.errors import DataError
from yqc.job.entering import enter
from yqc.job.judge import Agreeing, CalibrationStream, judges
from yqc.job.sensitivity import most_sensitive
from yqc.models.source import AnyModel, Source, open_model
from yqc.pipeline.base import Context
from yqc.pipeline.pipeline import Pipeline, given_by
from yqc.progress import Progress
from yqc.settings import Settings
from yqc.targets import DecodeForm, find_target


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Let PyTorch take a number of threads for a while; None leaves it what it takes by itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield count or before
    finally:
        torch.set_num_threads(before)


def open_source(model: AnyModel, settings: Settings) -> Source:
    """Load and trace a model as the settings ask.

    Raises:
        CheckpointError: the file cannot be read.
        TraceError: the size does not fit the model, or it cannot be traced.
    """
    return open_model(
        model,
        imgsz=settings.imgsz,
        head=settings.head,
        arch=Path(settings.arch) if settings.arch else None,
        dynamic=settings.dynamic,
    )


def open_for(model: AnyModel, settings: Settings) -> tuple[Source, Settings]:
    """Load and trace a model, with its one-to-many branches where its decoding is cut off.

    Of a snapshot, the settings of its compile hold where no others are given.

    Raises:
        YqcError: as of `open_source`.
    """
    source, settings = enter(open_source(model, settings), settings)
    picks = source.form is not None and source.form.layout == "end2end"
    if picks and decode_of(settings) != "full" and settings.head is None:
        settings = replace(settings, head="one2many")
        source = open_source(model, settings)
    return source, settings


def decode_of(settings: Settings) -> DecodeForm:
    """Return how much of the decoding stays in the file: as asked, else as the target takes."""
    return settings.decode or find_target(settings.target).decode


def find_data(settings: Settings, source: Source, *, evaluate: bool = True) -> Data | None:
    """Load the data that the settings name, if any; of a net that is no detector, the images.

    Raises:
        DataError: it cannot be read, or does not fit the model.
    """
    if settings.data is None:
        return None
    images = Path(settings.images) if settings.images else None
    labelling = Labelling.of(source.form)
    data = load_data(
        Path(settings.data), images=images, strict=settings.strict, labelling=labelling
    )
    data = data if evaluate else data.without_evaluation()
    data = fit_channels(data, source.channels)
    if source.is_detector:
        data = fit_classes(data, source.names, single_class=settings.single_class)
    else:
        data = data.without_labels()
    if settings.held_out is None:
        return data
    return data.hold_out(settings.held_out, settings.seed)


def make_context(
    settings: Settings,
    source: Source,
    data: Data | None,
    progress: Progress,
    *,
    kept: KeptImages | None = None,
    pipeline: Pipeline | None = None,
) -> Context:
    """Make what passes are given beside the graph; calibration images that are `kept` are shared.

    They are by default the context's own.

    Raises:
        DataError: a pass of the pipeline reads images, and there are too few that can be read.
    """
    ctx = Context(
        device=settings.device,
        seed=settings.seed,
        target=settings.target,
        decode=decode_of(settings),
        progress=progress,
        original=source.gm,
        form=source.form,
    )
    ctx.costliest = lambda gm, count: most_sensitive(gm, ctx, count)
    shape = (1, source.facts.channels, *source.imgsz)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(settings.seed))
    ctx.example = noise
    if data is None:
        return ctx
    ctx.warnings.extend(data.warnings)
    if not data.train.images:
        ctx.warn(f"there are no calibration images ({data.train.absent or 'none given'})")
        return ctx

    kept = KeptImages() if kept is None else kept
    fewest = 1 if data.whole else ENOUGH
    stream = partial(CalibrationStream, data.train, source, settings, ctx, kept, fewest)
    ctx.calibration, ctx.train = stream, data.train.images
    if source.form is not None:
        ctx.agreement = Agreeing(source, judges(data.train, settings, source.gm), settings, ctx)
    try:
        ctx.example = next(iter(stream())).contiguous()
    except DataError as error:
        passes = pipeline.expand(given=given_by(ctx)) if pipeline is not None else ()
        if any(each.reads_images for each in passes):
            raise
        ctx.warn(f"outputs are compared on noise, not on an image: {error}")
    if (count := len(data.train.images)) < min(ENOUGH, settings.calib_images):
        images = f"{count} image{'s' * (count > 1)}"
        ctx.warn(f"calibration sees {images}; {ENOUGH} or more say what a usual one looks like")
    return ctx
