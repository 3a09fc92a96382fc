"""Reading images ahead of the work that needs them, in a fixed order and in bounded memory."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yqc.data.files import reason
from yqc.data.letterbox import Placement, letterbox, to_float
from yqc.data.sets import Split
from yqc.errors import DataError

ENOUGH = 8
"""Calibration on fewer readable images than this is refused (unless fewer were asked for)."""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Placed:
    """An image in the model's input, still in bytes."""

    index: int
    """Its position in the list that was read."""
    path: Path
    pixels: NDArray[np.uint8]
    """uint8 [3, H, W], RGB."""
    placement: Placement
    size: tuple[int, int]
    """Width and height of the image file, in pixels."""


@dataclass(frozen=True)
class Unreadable:
    """An image that was skipped."""

    index: int
    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def read_images(
    paths: Sequence[Path], imgsz: tuple[int, int], *, ahead: int = 4, channels_last: bool = False
) -> Iterator[Placed | Unreadable]:
    """Read, letterbox and yield images in the order of `paths`; at most `ahead` lie in memory.

    Args:
        paths: image files.
        imgsz: height and width of the model's input in pixels.
        ahead: how many images a thread of its own may read in advance.
        channels_last: how the pixels lie in memory, as `letterbox` takes it.
    """
    work = partial(_read, imgsz=imgsz, channels_last=channels_last)
    return prefetch(work, enumerate(paths), ahead=ahead)


def prefetch(work: Callable[[_T], _R], items: Iterable[_T], *, ahead: int) -> Iterator[_R]:
    """`map(work, items)`, computed in a thread up to `ahead` results before they are asked for."""
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


def _read(
    item: tuple[int, Path], imgsz: tuple[int, int], *, channels_last: bool
) -> Placed | Unreadable:
    index, path = item
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
        pixels, placement = letterbox(image, imgsz, channels_last=channels_last)
        return Placed(index, path, pixels, placement, image.size)
    except Exception as e:  # noqa: BLE001  # PIL's decoders raise anything on a broken file
        return Unreadable(index, path, reason(e))


@dataclass
class CalibrationImages:
    """Images of a split for calibration: iterate as often as needed, each time they are read anew.

    Yields float32 [1, 3, H, W] in 0..1, RGB, letterboxed; channels are last in memory. The choice
    and its order depend on the split and `seed` only. An unreadable image is replaced by the next
    one.
    """

    split: Split
    imgsz: tuple[int, int]
    count: int
    seed: int = 0
    skipped: list[Unreadable] = field(default_factory=list)
    """The unreadable images of the last reading, in the order in which they were met."""

    def __post_init__(self) -> None:
        self._require(len(self.split.images))

    def __len__(self) -> int:
        """How many images there are if all can be read."""
        return min(self.count, len(self.split.images))

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Read the images.

        Raises:
            DataError: so few can be read that calibration would mean nothing.
        """
        paths = list(self.split.images)
        random.Random(self.seed).shuffle(paths)  # noqa: S311  # a choice of images, no secret
        self.skipped.clear()
        done = 0
        for image in read_images(paths, self.imgsz, channels_last=True):
            if isinstance(image, Unreadable):
                self.skipped.append(image)
                self._require(len(paths) - len(self.skipped))
                continue
            yield to_float(image.pixels)
            done += 1
            if done == self.count:
                return

    def _require(self, left: int) -> None:
        if left >= min(ENOUGH, self.count):
            return
        why = (
            self.split.absent or f"the {self.split.name} split has {len(self.split.images)} images"
        )
        bad = (
            f", {len(self.skipped)} of them unreadable ({self.skipped[0]})" if self.skipped else ""
        )
        raise DataError(f"calibration needs at least {min(ENOUGH, self.count)} images: {why}{bad}.")


def calibration_images(
    split: Split, imgsz: tuple[int, int], count: int = 128, seed: int = 0
) -> CalibrationImages:
    """A seeded choice of `count` images of `split`, or all of fewer, at `imgsz` (height, width).

    Raises:
        DataError: the split has fewer images than calibration needs.
    """
    return CalibrationImages(split, imgsz, count, seed)
