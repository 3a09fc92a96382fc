"""Training batches: drawn once into one array, then turned, mirrored and recoloured at random."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from loss import Objects
from PIL import Image
from torch import Tensor

from yqc.data import centre_crop, scene_labels, scenes
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
    owner: npt.NDArray[np.int8] | None = None
    """[n, 160, 160], the object that each pixel shows, or -1; None where masks are not needed."""
    points: npt.NDArray[np.float32] | None = None
    """[n, 8, 8, 2], the four extreme points of each object, then the corners of its rectangle."""

    def part(self, which: slice | npt.NDArray[np.intp]) -> "Pictures":
        """Some of the pictures: a view of them for a slice, else a copy."""
        return Pictures(**{name: values[which] for name, values in self.arrays().items()})

    def arrays(self) -> dict[str, Any]:
        """The arrays that there are, by name."""
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: values for name, values in held.items() if values is not None}


def drawn(
    count: int, seed: int, folder: Path, progress: Progress, *, tasks: bool = False
) -> Pictures:
    """The first `count` pictures of the train split, from the folder if they were drawn before.

    With `tasks` the labels of all tasks come with them.
    """
    kind = "tasks" if tasks else "train"
    path = folder / f"{kind}-edition{scenes.EDITION}-seed{seed}-{count}.npz"
    if not path.exists():
        draw = _draw_tasks if tasks else _draw
        _save(path, draw(count, seed, progress))
    with np.load(path) as kept:
        return Pictures(**kept)


def _draw_tasks(count: int, seed: int, progress: Progress) -> Pictures:
    plain = _draw(count, seed, progress)
    owner = np.full((count, scenes.SIZE, scenes.SIZE), -1, np.int8)
    points = np.zeros((count, MOST, 8, 2), np.float32)
    with progress.task("labelling", total=count) as advance:
        for i in range(count):
            scene = scenes.draw(seed, "train", i)
            owner[i] = scene.owner
            for number in range(len(scene.classes)):
                mask = scene.owner == number
                points[i, number, :4] = scene_labels.extreme_points(mask)
                points[i, number, 4:] = scene_labels.tight_corners(mask)
            advance(1)
    return Pictures(plain.pixels, plain.classes, plain.boxes, owner, points)


def crops(count: int, seed: int, folder: Path, progress: Progress, side: int) -> Pictures:
    """The objects of the first `count` pictures of the train split, cut out for a classifier.

    Each is one picture of `side` x `side` pixels, as yqc reads the crops of the data set.
    """
    path = folder / f"crops{side}-edition{scenes.EDITION}-seed{seed}-{count}.npz"
    if not path.exists():
        pixels, classes = list[npt.NDArray[np.uint8]](), list[int]()
        with progress.task("cutting", total=count) as advance:
            for i in range(count):
                scene = scenes.draw(seed, "train", i)
                for crop in scene_labels.cut_crops(scene):
                    fitted, _ = centre_crop(Image.fromarray(crop), (side, side))
                    pixels.append(fitted.transpose(1, 2, 0))
                classes += scene.classes.tolist()
                advance(1)
        nowhere = np.zeros((len(classes), 1, 4), np.float32)
        _save(path, Pictures(np.stack(pixels), np.array(classes, np.int64)[:, None], nowhere))
    with np.load(path) as kept:
        return Pictures(**kept)


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
        np.savez(file, **pictures.arrays())
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
        mix = pictures.part(order[start : start + batch])
        for i in range(batch):
            turn(mix, i, quarters=int(dice.integers(4)), mirror=bool(dice.integers(2)))
        images, objects = tensors(mix)
        yield recolour(images, dice), objects


def turn(pictures: Pictures, i: int, *, quarters: int, mirror: bool) -> None:
    """Turn one picture left by quarters, then mirror it left to right; its labels go along."""
    square, boxes = pictures.pixels[i], pictures.boxes[i]
    side = len(square)
    if pictures.owner is not None:
        owner = np.rot90(pictures.owner[i], quarters)
        pictures.owner[i] = owner[:, ::-1] if mirror else owner.copy()
    if pictures.points is not None:
        pictures.points[i] = turn_points(pictures.points[i], side, quarters, mirror=mirror)
    for _ in range(quarters):
        x0, y0, x1, y1 = boxes.T.copy()
        boxes[:] = np.stack((y0, side - x1, y1, side - x0), -1)
    if mirror:
        boxes[:, [0, 2]] = side - boxes[:, [2, 0]]
    turned = np.rot90(square, quarters)
    pictures.pixels[i] = turned[:, ::-1] if mirror else turned.copy()


def turn_points(
    points: npt.NDArray[np.float32], side: int, quarters: int, *, mirror: bool
) -> npt.NDArray[np.float32]:
    """Turn points [n, 8, 2] as `turn` does; both fours stay in order, clockwise from the top."""
    fours = points.reshape(-1, 2, 4, 2)
    for _ in range(quarters):
        x, y = fours[..., 0], fours[..., 1]
        fours = np.roll(np.stack((y, side - x), -1), -1, 2)
    if mirror:
        x, y = fours[..., 0], fours[..., 1]
        fours = np.stack((side - x, y), -1)[:, :, scene_labels.MIRRORED]
    return fours.reshape(points.shape)


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
    owner, points = (
        None if values is None else torch.from_numpy(values)
        for values in (pictures.owner, pictures.points)
    )
    boxes = torch.from_numpy(pictures.boxes)
    return images, Objects(classes.clamp(0), boxes, there, owner, points)
