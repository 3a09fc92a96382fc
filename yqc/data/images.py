"""Read images for a model, ahead of the work on them, in a fixed order and in bounded memory."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from yqc.data.files import reason
from yqc.data.letterbox import Letterboxed, fit_image, to_float
from yqc.data.pixels import half_of_huge, read_image
from yqc.data.sets import Split
from yqc.errors import DataError

ENOUGH = 8
"""Calibration on fewer readable images than this is refused (unless `--calib-images` is smaller, or
nothing is evaluated: then all images of a folder calibrate).

Not measured: half of it makes ranges depend on single images; double refuses data sets that are
small but usable."""
DARK = 8
"""Largest value of 255 in an image that counts as black.

Not measured: a covered lens leaves noise of a few steps, which half of it would miss; double would
count night scenes."""

AHEAD = 4
"""Images that a thread may read in advance. Half of it waits for slow disks; double takes more
memory."""
KEPT = 256 << 20
"""Bytes of images that are kept: 218 of 640 x 640 pixels. Half of it reads most of the default 128
anew in every pass at that size; double holds sets that are rarely as large.
"""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Placed:
    """An image that was read and fitted into the model's input."""

    index: int
    """Its position in the list that was read."""
    path: Path
    pixels: NDArray[np.uint8]
    """uint8 [C, H, W]: RGB, grey, or the bands of the file."""
    placement: Letterboxed
    size: tuple[int, int]
    """Width and height of the upright image, in pixels."""


@dataclass(frozen=True)
class Unreadable:
    """An image that was skipped."""

    index: int
    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


Read = Placed | Unreadable
"""What reading an image gives."""


def read_images(
    paths: Sequence[Path],
    imgsz: tuple[int, int],
    *,
    channels: int = 3,
    ahead: int = AHEAD,
    channels_last: bool = False,
    crop: bool = False,
) -> Iterator[Placed | Unreadable]:
    """Read, fit and yield images in the order of `paths`; at most `ahead` lie in memory.

    Args:
        paths: image files.
        imgsz: height and width of the model's input in pixels.
        channels: channels of the model's input: 3 for RGB, 1 for grey, else those of the files.
        ahead: how many images a thread of its own may read in advance.
        channels_last: how the pixels lie in memory, as `letterbox` takes it.
        crop: whether the centre of an image fills the input, as for classifiers; otherwise it is
            letterboxed.
    """
    work = partial(_place, imgsz=imgsz, channels=channels, channels_last=channels_last, crop=crop)
    return prefetch(work, enumerate(paths), ahead=ahead)


def prefetch(work: Callable[[_T], _R], items: Iterable[_T], *, ahead: int) -> Iterator[_R]:
    """Yield `map(work, items)`, computed in a thread up to `ahead` results in advance."""
    waiting: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(1, "yqc-images") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # The reader may leave early; nothing more is read then.
            for future in waiting:
                future.cancel()


def _place(
    item: tuple[int, Path],
    imgsz: tuple[int, int],
    channels: int,
    *,
    channels_last: bool,
    crop: bool,
) -> Placed | Unreadable:
    """Read and fit one image of a numbered list."""
    index, path = item
    try:
        image, size = read_image(path, channels, enough=half_of_huge(imgsz))
        pixels, place = fit_image(image, imgsz, crop=crop, size=size, channels_last=channels_last)
        return Placed(index, path, pixels, place, size)
    except Exception as e:  # noqa: BLE001  # Pillow's decoders raise anything on a broken file
        return Unreadable(index, path, reason(e))


@dataclass
class KeptImages:
    """Fitted images that are kept once they were read, by path, up to `KEPT` bytes."""

    found: dict[Path, Placed] = field(default_factory=dict)
    bytes: int = 0

    def read(self, item: tuple[int, Path], read: Callable[[tuple[int, Path]], Read]) -> Read:
        """Return what is kept of an image of a numbered list, or read and keep it."""
        if (kept := self.found.get(item[1])) is not None:
            return replace(kept, index=item[0])
        image = read(item)
        if isinstance(image, Placed) and self.bytes + image.pixels.nbytes <= KEPT:
            self.found[item[1]] = image
            self.bytes += image.pixels.nbytes
        return image


@dataclass
class CalibrationImages:
    """Images of a split for calibration: iterate as often as needed.

    Yields float32 [1, C, H, W] in 0..1, letterboxed or cropped; channels are last in memory. The
    choice and its order depend on the split and `seed` only. An unreadable image is replaced by the
    next one.
    """

    split: Split
    imgsz: tuple[int, int]
    """Height and width of the model's input in pixels."""
    count: int = 128
    """How many images, or all of fewer."""
    seed: int = 0
    channels: int = 3
    kept: KeptImages = field(default_factory=KeptImages)
    """What is kept of images of this size and number of channels, so that it is read once."""
    fewest: int = ENOUGH
    """How many readable images there must be, or `count`."""
    crop: bool = False
    """Whether the centre of an image fills the input, as for classifiers."""
    skipped: list[Unreadable] = field(default_factory=list)
    """The unreadable images of the last reading, in the order in which they were met."""
    black: int = 0
    """Black images of the last reading."""
    _seen: list[int] = field(default_factory=list, repr=False)
    """A hash of each image of the last reading."""

    def __post_init__(self) -> None:  # a DataError if there are fewer than calibration needs
        self._require(len(self.split.images))

    def __len__(self) -> int:
        """Return how many images there are if all can be read."""
        return min(self.count, len(self.split.images))

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Read the images.

        Raises:
            DataError: fewer than `fewest` can be read.
        """
        paths = list(self.split.images)
        random.Random(self.seed).shuffle(paths)  # noqa: S311  # a choice of images, no secret
        self.skipped.clear()
        self._seen.clear()
        self.black = 0
        size, crop = self.imgsz, self.crop
        place = partial(_place, imgsz=size, channels=self.channels, channels_last=True, crop=crop)
        work = partial(self.kept.read, read=place)
        for image in prefetch(work, enumerate(paths), ahead=AHEAD):
            if isinstance(image, Unreadable):
                self.skipped.append(image)
                self._require(len(paths) - len(self.skipped))
                continue
            self.black += is_black(image)
            self._seen.append(hash(image.pixels.tobytes()))
            yield to_float(image.pixels)
            if len(self._seen) == self.count:
                return

    def complaints(self) -> tuple[str, ...]:
        """Say in sentences what is wrong with the images of the last whole reading."""
        said = list(list_unreadable("calibration", self.skipped))
        count = len(self._seen)
        if self.black:
            said.append(f"{self.black} of the {count} calibration images are black")
        if count > 1 and len(set(self._seen)) == 1:
            said.append(f"all {count} calibration images are alike: ranges are those of one image")
        return tuple(said)

    def _require(self, left: int) -> None:
        if left >= min(self.fewest, self.count):
            return
        split, bad = self.split, len(self.skipped)
        why = split.absent or f"the {split.name} split has {len(split.images)} images"
        why += f", {bad} of them unreadable ({self.skipped[0]})" if bad else ""
        least = min(self.fewest, self.count)
        more = "; with --no-eval all images of a folder calibrate" if least > 1 else ""
        raise DataError(f"calibration needs at least {least} images: {why}{more}.")


def list_unreadable(what: str, skipped: Sequence[Unreadable]) -> tuple[str, ...]:
    """Say which images were left out because they could not be read, in a sentence or none."""
    if not skipped:
        return ()
    return (f"{len(skipped)} {what} images could not be read, the first was {skipped[0]}",)


def is_black(image: Placed) -> bool:
    """Whether no pixel of an image, the padding left out, is brighter than `DARK`."""
    place, size = image.placement, image.size
    width, height = (max(1, round(side * place.scale)) for side in size)
    top, left = max(0, place.dy), max(0, place.dx)
    inside = image.pixels[:, top : place.dy + height, left : place.dx + width]
    return bool(inside.max() <= DARK)
