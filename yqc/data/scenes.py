"""Draw pictures of shapes by code; the boxes are exact because they come from the drawing itself.

Six shapes of 9 to 140 pixels lie rotated, stretched and partly over each other on textured
backgrounds of 160 x 160 pixels, amid scribbles that are no object. Colour, texture and lighting do
not depend on the class.

A picture is a function of (seed, split, index) alone, so a longer data set begins with the shorter
one. Every choice and every pixel is integer arithmetic on a PCG64 stream, without fonts, floating
point or a drawing library, so that pictures are the same on every machine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SIZE = 160
"""Height and width of every picture in pixels."""
NAMES = ("circle", "ring", "triangle", "square", "cross", "star")
SPLITS = ("train", "val")
EDITION = 1
"""Rises with every change to a picture, so that data sets of two editions are not mixed up."""

VISIBLE = (1, 2)
"""The part of an object that must stay visible, as a ratio. Not measured: less gives objects whose
class cannot be seen, more gives pictures without occlusion."""
SHORTEST = 9
"""The least width and height of an object's box, in pixels: a little more than the finest stride of
a detector (8), below which most objects are missed; double leaves no small objects."""
_FINE = 4  # Each pixel is sampled on a grid of 4 x 4.
_SINES = tuple(round(4096 * math.sin(math.radians(d))) for d in range(360))
_DIAMETERS = (12, 14, 17, 20, 24, 29, 35, 42, 50, 60, 72, 86, 110, 140)
_ROWS, _COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.int32)

_GROUNDS = ("flat", "slope", "stripes", "checks", "clouds", "clouds")
_FILLS = ("flat", "flat", "slope", "stripes")

Integers = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Scene:
    """One drawn picture and the labels of its n objects."""

    pixels: npt.NDArray[np.uint8]
    """[160, 160, 3], RGB."""
    classes: Integers
    """[n], indices into `NAMES`."""
    boxes: Integers
    """[n, 4], x0 y0 x1 y1 in pixels, ends excluded, tight around what is visible of the object."""
    owner: Integers
    """[160, 160], the number of the object that covers half of a pixel or more, or -1."""


def draw(seed: int, split: str, index: int) -> Scene:
    """Draw one picture: background, scribbles, objects, light and noise, in this order."""
    key = np.random.SeedSequence((seed, SPLITS.index(split), index))
    dice = _Dice(np.random.Generator(np.random.PCG64(key)))
    everywhere = slice(None), slice(None)
    canvas = _paint(dice, everywhere, _GROUNDS, spread=90)
    for _ in range(dice.below(4)):
        _scribble(dice, canvas)
    owner = np.full((SIZE, SIZE), -1, np.int32)
    classes: list[int] = []
    areas: list[int] = []
    for _ in range(dice.between(1, 7)):
        for _ in range(6):
            stamp = _Stamp.make(dice)
            if stamp.fits(owner, areas):
                _draw_shape(dice, canvas, owner, stamp, len(areas))
                classes.append(stamp.kind)
                areas.append(stamp.area)
                break
    boxes = [_bounds(owner == i) for i in range(len(areas))]
    return Scene(
        _light(dice, canvas),
        np.array(classes, np.int32),
        np.array(boxes, np.int32).reshape(-1, 4),
        owner,
    )


class _Dice:
    """Random integers from one stream; they are equal on every machine."""

    def __init__(self, stream: np.random.Generator) -> None:
        self.stream = stream

    def below(self, end: int) -> int:
        """Return a number from 0 to `end` - 1."""
        return int(self.stream.integers(0, end))

    def between(self, first: int, last: int) -> int:
        """Return a number from `first` to `last`."""
        return int(self.stream.integers(first, last + 1))

    def colour(self) -> Integers:
        return self.stream.integers(16, 240, 3, dtype=np.int32)

    def turn(self) -> tuple[int, int]:
        """Return cosine and sine of a random whole number of degrees, times 4096."""
        degrees = self.below(360)
        return _SINES[(degrees + 90) % 360], _SINES[degrees]


@dataclass(frozen=True)
class _Stamp:
    """A shape to be drawn: its coverage in sixteenths on a window that may reach over the edge."""

    kind: int
    top: int
    left: int
    cover: Integers

    @classmethod
    def make(cls, dice: _Dice) -> "_Stamp":
        kind, step = dice.below(len(NAMES)), dice.below(len(_DIAMETERS) - 1)
        radius = dice.between(_DIAMETERS[step], _DIAMETERS[step + 1]) * _FINE // 2
        reach = radius // _FINE + 1
        top, left = (dice.between(-reach // 2, SIZE - 3 * reach // 2) for _ in range(2))
        cos, sin = dice.turn()
        offset = [dice.below(_FINE) for _ in range(2)]
        rows, columns = (
            np.arange(2 * reach * _FINE, dtype=np.int32) - reach * _FINE + o for o in offset
        )
        u = (cos * columns[None] + sin * rows[:, None]) >> 12
        v = (cos * rows[:, None] - sin * columns[None]) >> 12
        v = v * 16 // dice.between(12, 16)  # as if seen at a slant
        inside = _SHAPES[NAMES[kind]](u, v, radius)
        strips = inside.reshape(2 * reach, _FINE, -1).sum(1, dtype=np.uint8)
        cover = strips.reshape(2 * reach, 2 * reach, _FINE).sum(2, dtype=np.int32)
        return cls(kind, top, left, cover)

    @property
    def area(self) -> int:
        """Pixels of the whole shape, those outside the picture too."""
        return int((2 * self.cover >= _FINE * _FINE).sum())

    def window(self) -> tuple[Window, Integers]:
        """Return the part of the picture under the shape, and the coverage there."""
        height, width = self.cover.shape
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + height, SIZE), min(self.left + width, SIZE)
        cover = self.cover[top - self.top : bottom - self.top, left - self.left : right - self.left]
        return (slice(top, bottom), slice(left, right)), cover

    def fits(self, owner: Integers, areas: list[int]) -> bool:
        """Whether this shape and all below it would stay visible by `VISIBLE` and `SHORTEST`."""
        after = owner.copy()
        place, cover = self.window()
        after[place][2 * cover >= _FINE * _FINE] = len(areas)
        visible = np.bincount(after.ravel() + 1, minlength=len(areas) + 2)[1:]
        part, whole = VISIBLE
        if any(
            whole * int(v) < part * a for v, a in zip(visible, [*areas, self.area], strict=True)
        ):
            return False
        boxes = [_bounds(after == i) for i in range(len(areas) + 1)]
        return all(min(x1 - x0, y1 - y0) >= SHORTEST for x0, y0, x1, y1 in boxes)


def _disc(u: Integers, v: Integers, radius: int) -> BoolArray:
    return np.less_equal(u * u + v * v, (radius * 7 // 8) ** 2)


def _cross(u: Integers, v: Integers, radius: int) -> BoolArray:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.less_equal(long, radius) & (short <= radius * 5 // 16)


def _sides(u: Integers, v: Integers, corners: int, distance: int) -> Integers:
    """Count for each point the half planes of a regular polygon's sides that it lies in."""
    count = np.zeros(u.shape, np.int32)
    for k in range(corners):
        degrees = 360 * k // corners
        count += _SINES[(degrees + 90) % 360] * u + _SINES[degrees] * v <= 4096 * distance
    return count


_SHAPES: dict[str, Callable[[Integers, Integers, int], BoolArray]] = {
    "circle": _disc,
    "ring": lambda u, v, radius: _disc(u, v, radius) & (u * u + v * v > (radius // 2) ** 2),
    "triangle": lambda u, v, radius: np.equal(_sides(u, v, 3, radius // 2), 3),
    "square": lambda u, v, radius: np.maximum(np.abs(u), np.abs(v)) <= radius * 3 // 4,
    "cross": _cross,
    # A pentagram's points lie outside one side of its inner pentagon, of 0.309 times its radius.
    "star": lambda u, v, radius: _sides(u, v, 5, radius * 309 // 1000) >= 4,  # noqa: PLR2004
}


def _draw_shape(dice: _Dice, canvas: Integers, owner: Integers, stamp: _Stamp, number: int) -> None:
    """Draw a shape in colours that differ from the background under it."""
    place, cover = stamp.window()
    under = canvas[place].reshape(-1, 3).sum(0) // cover.size
    paint = _paint(dice, place, _FILLS, spread=60, unlike=under)
    alpha = cover[..., None]
    full = _FINE * _FINE
    canvas[place] = (canvas[place] * (full - alpha) + paint * alpha) // full
    owner[place][2 * cover >= full] = number


def _paint(
    dice: _Dice,
    place: Window,
    textures: tuple[str, ...],
    spread: int,
    unlike: Integers | None = None,
) -> Integers:
    """Return colours [h, w, 3] between two that differ by at most `spread` in each channel."""
    first = dice.colour()
    for _ in range(20):
        if unlike is None or np.abs(first - unlike).sum() >= 2 * spread + 60:
            break
        first = dice.colour()
    second = first + dice.stream.integers(-spread, spread + 1, 3, dtype=np.int32)
    field = _texture(dice, textures[dice.below(len(textures))])[place]
    return first + ((second - first) * field[..., None] >> 8)


def _texture(dice: _Dice, name: str) -> Integers:
    """Return a texture [160, 160] of weights between 0 and 256."""
    if name == "flat":
        return np.zeros((SIZE, SIZE), np.int32)
    if name == "clouds":
        return (_clouds(dice, dice.between(3, 7)) * 2 + _clouds(dice, dice.between(12, 40))) // 3
    cos, sin = dice.turn()
    along: Integers = (cos * _COLUMNS + sin * _ROWS) >> 12
    if name == "slope":
        along -= along.min()
        return along * 256 // int(along.max())
    width = dice.between(3, 16)
    bands: Integers = along // width
    if name == "checks":
        bands += ((cos * _ROWS - sin * _COLUMNS) >> 12) // width
    return bands % 2 * 256


def _clouds(dice: _Dice, cells: int) -> Integers:
    """Interpolate linearly between random values at the corners of `cells` x `cells` cells."""
    corners = dice.stream.integers(0, 257, (cells + 1, cells + 1), dtype=np.int32)
    at, part = np.divmod(np.arange(SIZE, dtype=np.int32) * cells * 256 // SIZE, 256)
    rows: Integers = corners[at] * (256 - part[:, None]) + corners[at + 1] * part[:, None]
    field: Integers = (rows[:, at] * (256 - part) + rows[:, at + 1] * part) >> 16
    return field


def _scribble(dice: _Dice, canvas: Integers) -> None:
    """Draw a crooked line of one to three pixels, which is no object."""
    colour, width = dice.colour(), dice.between(1, 3)
    x, y = dice.below(SIZE), dice.below(SIZE)
    for _ in range(dice.between(1, 4)):
        dx, dy = dice.between(-50, 50), dice.between(-50, 50)
        along = (_COLUMNS - x) * dx + (_ROWS - y) * dy
        along = np.clip(along * 64 // max(dx * dx + dy * dy, 1), 0, 64)
        off = (64 * (_COLUMNS - x) - along * dx) ** 2 + (64 * (_ROWS - y) - along * dy) ** 2
        canvas[off <= (32 * width) ** 2] = colour
        x, y = x + dx, y + dy


def _light(dice: _Dice, canvas: Integers) -> npt.NDArray[np.uint8]:
    """Darken the picture towards one side, then add noise; returns uint8 [160, 160, 3]."""
    dark, bright = dice.between(120, 256), dice.between(220, 290)
    light = dark + ((bright - dark) * _texture(dice, "slope") >> 8)
    grain = dice.below(13)
    noise = dice.stream.integers(-grain, grain + 1, canvas.shape, dtype=np.int32)
    lit: Integers = (canvas * light[..., None] >> 8) + noise
    return np.clip(lit, 0, 255).astype(np.uint8)


def _bounds(mask: BoolArray) -> tuple[int, int, int, int]:
    """Return the box x0 y0 x1 y1 around a mask's pixels, ends excluded; zeros if there are none."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
