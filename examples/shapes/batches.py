"""Training batches: drawn once into one array, then turned, mirrored and recoloured at random."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from loss import Objects
from torch import Tensor

from yqc.data import scenes
from yqc.progress import Progress

MOST = 8
"""Objects that a batch has room for in each picture; a scene holds at most 7."""


@dataclass(frozen=True)
class Pictures:
    """Drawn pictures and their objects, padded with class -1."""

    pixels: npt.NDArray[np.uint8]
    """[n, 160, 160, 3], RGB."""
    classes: npt.NDArray[np.int64]
    """[n, 8], -1 where there is no object."""
    boxes: npt.NDArray[np.float32]
    """[n, 8, 4], x0 y0 x1 y1 in pixels."""

    def part(self, which: slice) -> "Pictures":
        """A view of some of the pictures."""
        return Pictures(self.pixels[which], self.classes[which], self.boxes[which])


def drawn(count: int, seed: int, folder: Path, progress: Progress) -> Pictures:
    """The first `count` pictures of the train split, from the folder if they were drawn before."""
    path = folder / f"train-edition{scenes.EDITION}-seed{seed}-{count}.npz"
    if not path.exists():
        _save(path, _draw(count, seed, progress))
    with np.load(path) as kept:
        return Pictures(kept["pixels"], kept["classes"], kept["boxes"])


def _draw(count: int, seed: int, progress: Progress) -> Pictures:
    pixels = np.zeros((count, scenes.SIZE, scenes.SIZE, 3), np.uint8)
    classes = np.full((count, MOST), -1, np.int64)
    boxes = np.zeros((count, MOST, 4), np.float32)
    with progress.task("drawing", total=count) as advance:
        for i in range(count):
            scene = scenes.draw(seed, "train", i)
            pixels[i] = scene.pixels
            classes[i, : len(scene.classes)] = scene.classes
            boxes[i, : len(scene.boxes)] = scene.boxes
            advance(1)
    return Pictures(pixels, classes, boxes)


def _save(path: Path, pictures: Pictures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, pixels=pictures.pixels, classes=pictures.classes, boxes=pictures.boxes)
    partial.replace(path)


def plain(pictures: Pictures, batch: int) -> Iterator[tuple[Tensor, Objects]]:
    """The pictures as they are, in order: float32 [N, 3, 160, 160] in 0..1, and their objects."""
    for start in range(0, len(pictures.pixels), batch):
        yield tensors(pictures.part(slice(start, start + batch)))


def varied(pictures: Pictures, batch: int, seed: int) -> Iterator[tuple[Tensor, Objects]]:
    """The pictures shuffled, turned, mirrored and recoloured; a last odd batch is left out."""
    dice = np.random.default_rng(seed)
    order = dice.permutation(len(pictures.pixels))
    for start in range(0, len(order) - batch + 1, batch):
        chosen = order[start : start + batch]
        mix = Pictures(
            pictures.pixels[chosen], pictures.classes[chosen], pictures.boxes[chosen].copy()
        )
        for i in range(batch):
            turn(mix, i, quarters=int(dice.integers(4)), mirror=bool(dice.integers(2)))
        images, objects = tensors(mix)
        yield recolour(images, dice), objects


def turn(pictures: Pictures, i: int, *, quarters: int, mirror: bool) -> None:
    """Turn one picture left by quarters, then mirror it left to right; its boxes go along."""
    square, boxes = pictures.pixels[i], pictures.boxes[i]
    side = len(square)
    for _ in range(quarters):
        x0, y0, x1, y1 = boxes.T.copy()
        boxes[:] = np.stack((y0, side - x1, y1, side - x0), -1)
    if mirror:
        boxes[:, [0, 2]] = side - boxes[:, [2, 0]]
    turned = np.rot90(square, quarters)
    pictures.pixels[i] = turned[:, ::-1] if mirror else turned.copy()


def recolour(images: Tensor, dice: np.random.Generator) -> Tensor:
    """Shuffle each picture's channels and change its contrast and brightness a little."""
    for i in range(len(images)):
        images[i] = images[i, dice.permutation(3)]
    n = len(images)
    gain = torch.from_numpy(dice.uniform(0.7, 1.3, (n, 3, 1, 1)).astype(np.float32))
    lift = torch.from_numpy(dice.uniform(-0.1, 0.1, (n, 1, 1, 1)).astype(np.float32))
    return ((images - 0.5) * gain + 0.5 + lift).clamp(0, 1)


def tensors(pictures: Pictures) -> tuple[Tensor, Objects]:
    """Return the input of the model, and the objects to find."""
    images = torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2).float().div_(255)
    classes = torch.from_numpy(pictures.classes)
    there = classes >= 0
    return images, Objects(classes.clamp(0), torch.from_numpy(pictures.boxes), there)
