"""Batches of training images, made in a thread of their own, a few ahead of the training.

The batch of a step depends on the list of images, the seed and the number of the step only, so a
training that is resumed sees what it would have seen. Decoded images are kept, scaled down to the
size that training needs, within a bounded memory.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yqc.data import Picture, fit_image, prefetch, read_image
from yqc.data.files import reason
from yqc.errors import DataError
from yqc.training import augment

MEMORY = 512 << 20
"""Bytes of decoded images that are kept: 500 images of 1.5 times 480 x 480 pixels. With half of it
images are decoded again in every epoch sooner; double takes memory from the training."""
AHEAD = 3
"""Batches that are made in advance. With one the training would wait for large images; more of them
only take memory."""
ENOUGH = 4
"""Smallest number of readable images: a mosaic is made of as many."""
SPARE = 1.5
"""Kept images are at most this many times as large as the letterboxed one. `augment.SCALES`
enlarges them by 1.4 at most; double takes four times the memory, half of it blurs them."""


@dataclass
class TrainingImages:
    """Images to train on.

    Raises:
        DataError: there are too few.
    """

    paths: Sequence[Path]
    imgsz: tuple[int, int]
    """Height and width of the model's input, in pixels."""
    seed: int = 0
    channels: int = 3
    """3 for RGB, 1 for grey, else those of the files."""
    crop: bool = False
    """Whether the model sees the centre of an image, as a classifier does; then no mosaics."""
    memory: int = MEMORY
    workers: int = 1
    """Threads that make the images of a batch; the images do not depend on it."""
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Images that were left out, and why."""
    _kept: dict[Path, Picture] = field(default_factory=dict, repr=False)
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if len(self.paths) < ENOUGH:
            raise DataError(
                f"training needs at least {ENOUGH} images and {len(self.paths)} are given; "
                "name more under train in the data file"
            )

    def order(self, epoch: int) -> list[int]:
        """Return the order of the images in an epoch."""
        order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.paths))
        return [int(i) for i in order]

    def batches(self, size: int, first: int = 0) -> Generator[NDArray[np.uint8], None, None]:
        """Yield the batches of steps `first`, `first + 1`, ..., without end: uint8 [size, C, H, W].

        Raises:
            DataError: too many images cannot be read.
        """
        numbers = iter(range(first, 1 << 62))
        with ThreadPoolExecutor(self.workers, "yqc-training-images") as pool:
            make = partial(self.batch, size=size, each=pool.map if self.workers > 1 else map)
            yield from prefetch(make, numbers, ahead=AHEAD)

    def batch(self, step: int, size: int, each: Callable[..., Any] = map) -> NDArray[np.uint8]:
        """Make the batch of one step, uint8 [size, C, H, W]; `each` is `map` or one of threads."""
        return np.stack(list(each(self._make, range(step * size, (step + 1) * size))))

    def _make(self, number: int) -> NDArray[np.uint8]:
        """Make the training image of a running number."""
        epoch, place = divmod(number, len(self.paths))
        rng = np.random.default_rng((self.seed, 2, number))
        first = self.order(epoch)[place]
        if rng.random() < augment.PLAIN:
            return augment.fit_mirrored(self._near(first), self.imgsz, rng, crop=self.crop)
        mosaic = rng.random() < augment.MOSAIC and not self.crop
        others = rng.integers(len(self.paths), size=3).tolist() if mosaic else []
        return augment.augment([self._near(i) for i in (first, *others)], self.imgsz, rng)

    def _near(self, index: int) -> Picture:
        """Return the image at an index, or the next one that can be read."""
        for i in range(index, index + len(self.paths)):
            path = self.paths[i % len(self.paths)]
            if (image := self.image(path)) is not None:
                return image
            if len(self.paths) - len(self.unreadable) < ENOUGH:
                break
        path, why = next(iter(self.unreadable.items()))
        raise DataError(
            f"training needs at least {ENOUGH} images, and {len(self.unreadable)} of "
            f"{len(self.paths)} cannot be read ({path}: {why})"
        )

    def image(self, path: Path) -> Picture | None:
        """Return a decoded image, at most `SPARE` times as large as the letterboxed one."""
        with self._lock:
            if path in self.unreadable:
                return None
            if (kept := self._kept.get(path)) is not None:
                return kept
        try:
            image = self._read(path)
        except Exception as error:  # noqa: BLE001  # Pillow's decoders raise anything
            with self._lock:
                self.unreadable[path] = reason(error)
            return None
        size = self.channels * image.size[0] * image.size[1]
        with self._lock:
            if self._used + size <= self.memory and path not in self._kept:
                self._kept[path] = image
                self._used += size
        return image

    def _read(self, path: Path) -> Picture:
        image, whole = read_image(path, self.channels, enough=self._enough)
        size = self._enough(whole)
        return image if size == whole else image.resize(size, Image.Resampling.BILINEAR)

    def _enough(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height in which an image is kept."""
        w, h = size
        sides = self.imgsz[1] / w, self.imgsz[0] / h
        scale = SPARE * (max(sides) if self.crop else min(sides))
        return (max(1, round(w * scale)), max(1, round(h * scale))) if scale < 1 else size

    def plain(self, count: int) -> NDArray[np.uint8]:
        """Fit the first images of a seeded choice to the input: uint8 [count, C, H, W]."""
        chosen = np.random.default_rng((self.seed, 3)).permutation(len(self.paths))[:count]
        fitted = (fit_image(self._near(i), self.imgsz, crop=self.crop) for i in chosen.tolist())
        return np.stack([pixels for pixels, _ in fitted])
