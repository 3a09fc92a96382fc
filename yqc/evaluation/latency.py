"""Time files under one runtime in paired rounds: each round runs every file once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray

from yqc.data import Bands, Picture, centre_crop, letterbox, to_float
from yqc.evaluation.boxes import Floats
from yqc.evaluation.find import Place, find_objects
from yqc.evaluation.forms import find_form, sort_outputs
from yqc.evaluation.runner import FileModel, input_size
from yqc.evaluation.runtimes import Precision, open_file, runtime_version
from yqc.progress import Progress, Silent
from yqc.targets import Runtime

Array = NDArray[np.float64]
Pair = tuple[float, float]

WARM_UP = 3
"""Rounds that are not counted: the first ones allocate memory and fill caches. Of yolov8n at 320 px
the first takes 1.1 to 1.3 times the median's processor time under OpenVINO, the second up to 1.2;
six only take longer."""
FEWEST, MOST = 20, 100
"""Rounds at least and at most. With a spread of 3 % between rounds the interval of the ratio is 3 %
wide after 20 rounds; half as many widen it by 1.4, twice as many narrow it as much."""
SPREAD = 0.02
"""The rounds end when the interval of every ratio is at most this wide, relative to the ratio.
Half of it takes four times as many rounds, double a quarter."""
SECONDS = 10.0
"""The rounds end after this time, too, whatever the spread; at least `FEWEST_SLOW` are run."""
FEWEST_SLOW = 5
LOADS = 3
"""How often each file is opened to measure its load time, of which the median is reported."""
RESAMPLES = 1000
"""Of the bootstrap. The ends of an interval then vary by about 2 % of its width; half as many make
it 3 %, and double takes twice the time."""
PERCENTILES = 2.5, 97.5


@dataclass(frozen=True)
class Timing:
    """How long files take for one run each, and against the first of them."""

    paths: tuple[Path, ...]
    runtime: Runtime
    version: str
    """Of the runtime."""
    threads: int | None
    """Threads within an operator; None if the runtime chose."""
    wall: Array = field(repr=False)
    """Milliseconds of wall time [rounds, files]."""
    processor: Array = field(repr=False)
    """Milliseconds of processor time of all threads of this process [rounds, files]."""
    load_ms: tuple[float, ...]
    """Milliseconds to open each file and make it ready to run, median of `LOADS`."""

    @property
    def rounds(self) -> int:
        """How many rounds were measured."""
        return len(self.wall)

    @property
    def ms(self) -> tuple[float, ...]:
        """Median wall time of each file."""
        return tuple(np.median(self.wall, axis=0).tolist())

    @property
    def cpu_ms(self) -> tuple[float, ...]:
        """Median processor time of each file."""
        return tuple(np.median(self.processor, axis=0).tolist())

    @property
    def p10(self) -> tuple[float, ...]:
        """Wall time that a tenth of the rounds stay below."""
        return tuple(np.percentile(self.wall, 10, axis=0).tolist())

    @property
    def p90(self) -> tuple[float, ...]:
        """Wall time that nine tenths of the rounds stay below."""
        return tuple(np.percentile(self.wall, 90, axis=0).tolist())

    @property
    def ratios(self) -> tuple[float, ...]:
        """The first file's median / this file's; above 1 is faster."""
        return tuple(self.ms[0] / ms for ms in self.ms)

    @property
    def intervals(self) -> tuple[Pair, ...]:
        """95 % interval of each of `ratios`."""
        return ratio_intervals(self.wall)

    @property
    def cpu_ratios(self) -> tuple[float, ...]:
        """As `ratios`, of processor time."""
        return tuple(self.cpu_ms[0] / ms for ms in self.cpu_ms)


def latency(
    paths: Sequence[Path],
    *,
    imgsz: tuple[int, int] | None = None,
    threads: int | None = None,
    runs: int | None = None,
    warm_up: int = WARM_UP,
    runtime: Runtime = "onnxruntime",
    precision: Precision | None = None,
    pictures: Sequence[Picture] = (),
    progress: Progress | None = None,
) -> Timing:
    """Time detectors against each other, on one image of seeded noise or end to end.

    The files take turns within a round and the order turns from round to round, so that a machine
    that slows down slows all of them down.

    Args:
        paths: ONNX files; the first is the one that the others are compared with.
        imgsz: height and width of the input; by default what each file fixes or records, else 640.
        threads: threads within an operator; None leaves it to the runtime.
        runs: how many rounds to measure; None goes on until `SPREAD` is reached, or a limit.
        warm_up: rounds before these that are not counted.
        runtime: what runs the files, on the CPU.
        precision: see `open_file`.
        pictures: images to time end to end, from the decoded picture to suppressed boxes in its
            pixels: letterbox, run, decoding, NMS. A round takes one of them for all files.
        progress: shown a round at a time.

    Raises:
        CheckpointError: a file cannot be run.
        YqcError: the runtime is not installed.
    """
    version = runtime_version(runtime)
    opened = partial(open_file, runtime=runtime, threads=threads, imgsz=imgsz, precision=precision)
    models, load_ms = _open_in_turn(paths, opened)
    kinds = partial(_end_to_end, pictures=pictures) if pictures else _inference
    calls = [kinds(model, input_size(model, imgsz)) for model in models]
    wall, processor = _time_rounds(calls, runs, warm_up, progress or Silent())
    return Timing(tuple(paths), runtime, version, threads, wall, processor, load_ms)


def ratio_intervals(times: Array) -> tuple[Pair, ...]:
    """Estimate 95 % intervals of median of the first column / median of each, of [rounds, files].

    Paired bootstrap (Efron 1979): whole rounds are drawn with replacement, so what slows all files
    of a round down alike does not widen the interval.
    """
    low, high = np.percentile(_resampled_ratios(times), PERCENTILES, axis=0)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def _resampled_ratios(times: Array) -> Array:
    """Draw rounds anew and take the ratios of medians: [resamples, files]."""
    drawn = np.random.default_rng(0).integers(len(times), size=(RESAMPLES, len(times)))
    medians = np.median(times[drawn], axis=1)
    return np.asarray(medians[:, :1] / medians)


def _open_in_turn(
    paths: Sequence[Path], opened: Callable[[Path], FileModel]
) -> tuple[list[FileModel], tuple[float, ...]]:
    """Open every file `LOADS` times in turn; return the last models, and median milliseconds."""
    taken = np.zeros((LOADS, len(paths)))
    models: list[FileModel] = []
    for trial in range(LOADS):
        models = []
        for i, path in enumerate(paths):
            start = perf_counter()
            models.append(opened(path))
            taken[trial, i] = 1000 * (perf_counter() - start)
    return models, tuple(np.median(taken, axis=0).tolist())


def _inference(model: FileModel, imgsz: tuple[int, int]) -> Callable[[int], object]:
    """Return a function that runs a file once on one prepared image."""
    noise = np.random.default_rng(0).random((1, model.channels, *imgsz), dtype=np.float32)
    images = model.prepare(noise)
    return lambda _: model.run_prepared(images)


def convert_picture(picture: Picture, channels: int) -> Picture:
    """Convert a decoded picture between grey and RGB; one of other bands is left as it is."""
    if isinstance(picture, Bands):
        return picture
    return picture.convert("L" if channels == 1 else "RGB")


def _end_to_end(
    model: FileModel, imgsz: tuple[int, int], pictures: Sequence[Picture]
) -> Callable[[int], object]:
    """Return a function that finds the objects in the picture of a round."""
    shown = [convert_picture(picture, model.channels) for picture in pictures]
    fit = centre_crop if model.hints.task == "classify" else letterbox

    def run(picture: Picture) -> tuple[Place, list[Floats]]:
        pixels, placement = fit(picture, imgsz)
        found = [one.astype(np.float32, copy=False) for one in model.run(to_float(pixels))]
        return Place(placement, picture.size, imgsz), list(sort_outputs(found))

    head = find_form(run(shown[0])[1], None, model.hints)

    def find(turn: int) -> object:
        place, outputs = run(shown[turn % len(shown)])
        return find_objects([one[0] for one in outputs], head, place)

    return find


def _time_rounds(
    calls: Sequence[Callable[[int], object]], runs: int | None, warm_up: int, progress: Progress
) -> tuple[Array, Array]:
    """Time calls against each other: milliseconds of wall and of processor time [rounds, calls]."""
    wall, processor = np.zeros((2, 0, len(calls)))
    most, began = runs or MOST, perf_counter()
    with progress.task("measuring latency", total=warm_up + most) as advance:
        for turn in range(warm_up + most):
            began = perf_counter() if turn == warm_up else began
            spent = np.zeros((2, 1, len(calls)))
            for i in np.roll(np.arange(len(calls)), turn).tolist():
                start = perf_counter(), process_time()
                calls[i](turn)
                spent[:, 0, i] = perf_counter() - start[0], process_time() - start[1]
            advance(1)
            if turn >= warm_up:
                wall, processor = np.append(wall, spent[0], 0), np.append(processor, spent[1], 0)
            if runs is None and _is_enough(wall, perf_counter() - began):
                advance(warm_up + most - turn - 1)
                break
    return 1000 * wall, 1000 * processor


def _is_enough(times: Array, seconds: float) -> bool:
    """Say whether the rounds can end: the ratios are known closely enough, or time is up."""
    if seconds > SECONDS and len(times) >= FEWEST_SLOW:
        return True
    if len(times) < FEWEST or len(times) % FEWEST_SLOW:
        return False
    ratios = _resampled_ratios(times)
    low, high = np.percentile(ratios, PERCENTILES, axis=0)
    return bool((high - low <= SPREAD * np.median(ratios, axis=0)).all())
