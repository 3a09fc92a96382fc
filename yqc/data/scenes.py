"""Pictures of shapes drawn by code; the boxes are exact because they are read off the drawing.

Six shapes of 9 to 140 pixels lie rotated, stretched and partly over each other on textured
backgrounds of 160 x 160 pixels, amid scribbles that are no object. Colour, texture and lighting say
nothing about the class.

A picture is a function of (seed, split, index) alone, so a longer data set begins with the shorter
one. Every decision and every pixel is integer arithmetic on a PCG64 stream: no font, no rounding
of a machine's own, no drawing library, and so the same picture on every machine.
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
"""Rises with every change to a picture, so that nobody mixes data sets of two editions."""

VISIBLE = (1, 2)
"""The part of an object that must stay visible, as a ratio."""
SHORTEST = 9
"""The least width and height of an object's box, in pixels."""
_FINE = 4  # Each pixel is sampled on a grid of 4 x 4.
_SINES = tuple(round(4096 * math.sin(math.radians(d))) for d in range(360))
_DIAMETERS = (12, 14, 17, 20, 24, 29, 35, 42, 50, 60, 72, 86, 110, 140)
_ROWS, _COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.int32)

_GROUNDS = ("flat", "slope", "stripes", "checks", "clouds", "clouds")
_FILLS = ("flat", "flat", "slope", "stripes")

Ints = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Place = tuple[slice, slice]


@dataclass(frozen=True)
class Scene:
    """One drawn picture and the truth about it, for n objects."""

    pixels: npt.NDArray[np.uint8]
    """[160, 160, 3], RGB."""
    classes: Ints
    """[n], indices into `NAMES`."""
    boxes: Ints
    """[n, 4], x0 y0 x1 y1 in pixels, ends excluded, tight around what is visible of the object."""
    owner: Ints
    """[160, 160], the object that a pixel shows (covers by half or more), or -1."""


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
            stamp = _Stamp.cast(dice)
            if stamp.fits(owner, areas):
                _glue(dice, canvas, owner, stamp, len(areas))
                classes.append(stamp.kind)
                areas.append(stamp.area)
                break
    boxes = [_bounds(owner == i) for i in range(len(areas))]
    return Scene(
        _shine(dice, canvas),
        np.array(classes, np.int32),
        np.array(boxes, np.int32).reshape(-1, 4),
        owner,
    )


class _Dice:
    """Integer chances only: they come out alike on every machine."""

    def __init__(self, stream: np.random.Generator) -> None:
        self.stream = stream

    def below(self, end: int) -> int:
        return int(self.stream.integers(0, end))

    def between(self, first: int, last: int) -> int:
        return int(self.stream.integers(first, last + 1))

    def colour(self) -> Ints:
        return self.stream.integers(16, 240, 3, dtype=np.int32)

    def turn(self) -> tuple[int, int]:
        """Cosine and sine of a whole number of degrees, times 4096."""
        degrees = self.below(360)
        return _SINES[(degrees + 90) % 360], _SINES[degrees]


@dataclass(frozen=True)
class _Stamp:
    """A shape ready to be glued down: coverage in sixteenths on a window that may hang over."""

    kind: int
    top: int
    left: int
    cover: Ints

    @classmethod
    def cast(cls, dice: _Dice) -> "_Stamp":
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
        """Pixels of the whole shape, whether or not they lie in the picture."""
        return int((2 * self.cover >= _FINE * _FINE).sum())

    def window(self) -> tuple[Place, Ints]:
        """The part of the picture that lies under the shape, and the coverage there."""
        height, width = self.cover.shape
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + height, SIZE), min(self.left + width, SIZE)
        cover = self.cover[top - self.top : bottom - self.top, left - self.left : right - self.left]
        return (slice(top, bottom), slice(left, right)), cover

    def fits(self, owner: Ints, areas: list[int]) -> bool:
        """Whether this shape and all that lie under it would stay visible enough to be told."""
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


def _disc(u: Ints, v: Ints, radius: int) -> Mask:
    return np.less_equal(u * u + v * v, (radius * 7 // 8) ** 2)


def _ring(u: Ints, v: Ints, radius: int) -> Mask:
    return _disc(u, v, radius) & (u * u + v * v > (radius // 2) ** 2)


def _square(u: Ints, v: Ints, radius: int) -> Mask:
    return np.less_equal(np.maximum(np.abs(u), np.abs(v)), radius * 3 // 4)


def _cross(u: Ints, v: Ints, radius: int) -> Mask:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.less_equal(long, radius) & (short <= radius * 5 // 16)


def _sides(u: Ints, v: Ints, corners: int, distance: int) -> Ints:
    """In how many of the half planes of a regular polygon's sides a point lies."""
    count = np.zeros(u.shape, np.int32)
    for k in range(corners):
        degrees = 360 * k // corners
        count += _SINES[(degrees + 90) % 360] * u + _SINES[degrees] * v <= 4096 * distance
    return count


def _triangle(u: Ints, v: Ints, radius: int) -> Mask:
    return np.equal(_sides(u, v, 3, radius // 2), 3)


def _star(u: Ints, v: Ints, radius: int) -> Mask:
    # A pentagram's points lie outside one side of its inner pentagon, of 0.309 times its radius.
    return np.greater_equal(_sides(u, v, 5, radius * 309 // 1000), 4)


_SHAPES: dict[str, Callable[[Ints, Ints, int], Mask]] = {
    "circle": _disc,
    "ring": _ring,
    "triangle": _triangle,
    "square": _square,
    "cross": _cross,
    "star": _star,
}


def _glue(dice: _Dice, canvas: Ints, owner: Ints, stamp: _Stamp, number: int) -> None:
    """Paint the shape in colours that stand out from what lies under it."""
    place, cover = stamp.window()
    under = canvas[place].reshape(-1, 3).sum(0) // cover.size
    paint = _paint(dice, place, _FILLS, spread=60, unlike=under)
    alpha = cover[..., None]
    full = _FINE * _FINE
    canvas[place] = (canvas[place] * (full - alpha) + paint * alpha) // full
    owner[place][2 * cover >= full] = number


def _paint(
    dice: _Dice, place: Place, textures: tuple[str, ...], spread: int, unlike: Ints | None = None
) -> Ints:
    """Paint for a place, between two colours that differ by at most `spread` in each channel."""
    first = dice.colour()
    for _ in range(20):
        if unlike is None or np.abs(first - unlike).sum() >= 2 * spread + 60:
            break
        first = dice.colour()
    second = first + dice.stream.integers(-spread, spread + 1, 3, dtype=np.int32)
    field = _texture(dice, textures[dice.below(len(textures))])[place]
    return first + ((second - first) * field[..., None] >> 8)


def _texture(dice: _Dice, name: str) -> Ints:
    """A field [160, 160] of weights between 0 and 256."""
    if name == "flat":
        return np.zeros((SIZE, SIZE), np.int32)
    if name == "clouds":
        return (_clouds(dice, dice.between(3, 7)) * 2 + _clouds(dice, dice.between(12, 40))) // 3
    cos, sin = dice.turn()
    along: Ints = (cos * _COLUMNS + sin * _ROWS) >> 12
    if name == "slope":
        along -= along.min()
        return along * 256 // int(along.max())
    width = dice.between(3, 16)
    bands: Ints = along // width
    if name == "checks":
        bands += ((cos * _ROWS - sin * _COLUMNS) >> 12) // width
    return bands % 2 * 256


def _clouds(dice: _Dice, cells: int) -> Ints:
    """Random values at the corners of `cells` x `cells` cells, linear between them."""
    corners = dice.stream.integers(0, 257, (cells + 1, cells + 1), dtype=np.int32)
    at, part = np.divmod(np.arange(SIZE, dtype=np.int32) * cells * 256 // SIZE, 256)
    rows: Ints = corners[at] * (256 - part[:, None]) + corners[at + 1] * part[:, None]
    field: Ints = (rows[:, at] * (256 - part) + rows[:, at + 1] * part) >> 16
    return field


def _scribble(dice: _Dice, canvas: Ints) -> None:
    """Draw a crooked line of one to three pixels: something to be ignored."""
    colour, width = dice.colour(), dice.between(1, 3)
    x, y = dice.below(SIZE), dice.below(SIZE)
    for _ in range(dice.between(1, 4)):
        dx, dy = dice.between(-50, 50), dice.between(-50, 50)
        along = (_COLUMNS - x) * dx + (_ROWS - y) * dy
        along = np.clip(along * 64 // max(dx * dx + dy * dy, 1), 0, 64)
        off = (64 * (_COLUMNS - x) - along * dx) ** 2 + (64 * (_ROWS - y) - along * dy) ** 2
        canvas[off <= (32 * width) ** 2] = colour
        x, y = x + dx, y + dy


def _shine(dice: _Dice, canvas: Ints) -> npt.NDArray[np.uint8]:
    """Light that falls off across the picture, then noise."""
    dark, bright = dice.between(120, 256), dice.between(220, 290)
    light = dark + ((bright - dark) * _texture(dice, "slope") >> 8)
    grain = dice.below(13)
    noise = dice.stream.integers(-grain, grain + 1, canvas.shape, dtype=np.int32)
    lit: Ints = (canvas * light[..., None] >> 8) + noise
    return np.clip(lit, 0, 255).astype(np.uint8)


def _bounds(mask: Mask) -> tuple[int, int, int, int]:
    """The smallest box x0 y0 x1 y1 around a mask's pixels, ends excluded; 0 if there are none."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
