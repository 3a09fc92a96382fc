"""Batches of training images, made in a thread of their own, a few ahead of the training.

The batch of a step depends on the list of images, the seed and the number of the step only, so a
training that goes on after a stop sees what it would have seen. Decoded images are kept, scaled
down to what training needs, as long as they fit into a bounded memory.
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

from yqc.data.files import reason
from yqc.data.images import prefetch
from yqc.data.letterbox import letterbox
from yqc.data.pixels import read_image
from yqc.errors import DataError
from yqc.training import augment

MEMORY = 512 << 20
"""So many bytes of decoded images are kept."""
ROOM = 1.5
"""Decoded images are kept at most this many times as large as letterboxed ones.

Augmentation enlarges them by up to 1.4 (`augment.SCALES`). Half of it blurs these; double takes
four times the memory."""
AHEAD = 3
ENOUGH = 4
"""Fewer readable images than this teach nothing: a mosaic is made of as many."""


@dataclass
class Pictures:
    """Images to train on.

    Raises:
        DataError: there are too few.
    """

    paths: Sequence[Path]
    imgsz: tuple[int, int]
    """Height and width of what is made of them, in pixels."""
    seed: int = 0
    channels: int = 3
    """Channels of the model's input: 3 for RGB, 1 for grey."""
    memory: int = MEMORY
    workers: int = 1
    """Threads that make the images of a batch; what they make does not depend on it."""
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Images that were left out, and why."""
    _kept: dict[Path, Image.Image] = field(default_factory=dict, repr=False)
    _used: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if len(self.paths) < ENOUGH:
            raise DataError(
                f"training needs at least {ENOUGH} images and {len(self.paths)} are given; "
                "name more under train in the data file"
            )

    def order(self, epoch: int) -> list[int]:
        """Return the order in which an epoch goes through the images."""
        order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.paths))
        return [int(i) for i in order]

    def batches(self, size: int, first: int = 0) -> Generator[NDArray[np.uint8], None, None]:
        """Yield the batches of steps `first`, `first + 1`, ..., without end.

        Args:
            size: images a batch.
            first: number of the first step.

        Yields:
            uint8 [size, C, H, W], RGB or grey.

        Raises:
            DataError: too many images cannot be read.
        """
        numbers = iter(range(first, 1 << 62))
        with ThreadPoolExecutor(self.workers, "yqc-pictures") as pool:
            make = partial(self.batch, size=size, each=pool.map if self.workers > 1 else map)
            yield from prefetch(make, numbers, ahead=AHEAD)

    def batch(self, step: int, size: int, each: Callable[..., Any] = map) -> NDArray[np.uint8]:
        """Make the batch of one step: uint8 [size, C, H, W]; `each` is how to map."""
        numbers = range(step * size, (step + 1) * size)
        return np.stack(list(each(self._one, numbers)))[:, : self.channels]

    def _one(self, number: int) -> NDArray[np.uint8]:
        """Make the training image of a running number."""
        epoch, place = divmod(number, len(self.paths))
        rng = np.random.default_rng((self.seed, 2, number))
        first = self.order(epoch)[place]
        if rng.random() < augment.PLAIN:
            return augment.plain(self._near(first), self.imgsz, rng)
        others = (
            rng.integers(len(self.paths), size=3).tolist() if rng.random() < augment.MOSAIC else []
        )
        return augment.varied([self._near(i) for i in (first, *others)], self.imgsz, rng)

    def _near(self, index: int) -> Image.Image:
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

    def image(self, path: Path) -> Image.Image | None:
        """Return a decoded image in RGB, at most half again as large as training needs."""
        with self._lock:
            if path in self.unreadable:
                return None
            if (kept := self._kept.get(path)) is not None:
                return kept
        try:
            image = _read(path, self.imgsz, self.channels)
        except Exception as error:  # noqa: BLE001  # PIL's decoders raise anything
            with self._lock:
                self.unreadable[path] = reason(error)
            return None
        size = 3 * image.size[0] * image.size[1]
        with self._lock:
            if self._used + size <= self.memory and path not in self._kept:
                self._kept[path] = image
                self._used += size
        return image

    def plain(self, count: int) -> NDArray[np.uint8]:
        """Letterbox the first images of a seeded choice: uint8 [count, C, H, W]."""
        chosen = np.random.default_rng((self.seed, 3)).permutation(len(self.paths))[:count]
        images = [letterbox(self._near(i), self.imgsz)[0] for i in chosen.tolist()]
        return np.stack(images)[:, : self.channels]


def _read(path: Path, imgsz: tuple[int, int], channels: int) -> Image.Image:
    """Read an image in RGB, at most `ROOM` times as large as it is when letterboxed."""

    def enough(size: tuple[int, int]) -> tuple[int, int]:
        scale = ROOM * min(imgsz[1] / size[0], imgsz[0] / size[1])
        if scale >= 1:
            return size
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    image, size = read_image(path, channels, enough=enough)
    image = image.convert("RGB")  # Grey is repeated: augmentation works on three channels.
    small = enough(size)
    return image if small == size else image.resize(small, Image.Resampling.BILINEAR)
