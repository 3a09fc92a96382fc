"""Images for training: mostly as they are, the rest at a random scale, in mosaics, recoloured.

A pruned graph has less room than its original, and spends it on what it is trained on: on mosaics
alone, one that was close to its original on plain images is farther from it afterwards.

Nothing here knows of labels: what is right on such an image, the teacher says. Every function is
determined by its arguments and the generator that it is given.

Source of the mosaic: Bochkovskiy et al., YOLOv4, 2020.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yqc.data.letterbox import PAD, letterbox

Bytes = NDArray[np.uint8]

PLAIN = 0.75
"""Share of images that are letterboxed as they are; every other one is mirrored."""
MOSAIC = 0.5
"""Share of the rest that are put together from four."""
HUE, SATURATION, VALUE = 0.015, 0.5, 0.3
"""Largest changes, as fractions."""
SCALES = (0.6, 1.4)
"""Smallest and largest size of a placed image, relative to the letterboxed one."""


def paste(
    canvas: Bytes, image: Image.Image, scale: float, x: float, y: float, window: tuple[int, ...]
) -> None:
    """Draw an image, resized by `scale`, with its corner at (x, y), inside a window of the canvas.

    Args:
        canvas: uint8 [H, W, 3], changed in place.
        image: RGB.
        scale: canvas pixels an image pixel.
        x: where the image's left edge goes, in canvas pixels; may lie outside.
        y: where its upper edge goes.
        window: left, upper, right and lower end of what may be drawn on, in canvas pixels.
    """
    w, h = image.size
    left, top = max(window[0], round(x)), max(window[1], round(y))
    right = min(window[2], round(x + w * scale))
    bottom = min(window[3], round(y + h * scale))
    if right <= left or bottom <= top:
        return
    xs = [min(max(0.0, (v - x) / scale), float(w)) for v in (left, right)]
    ys = [min(max(0.0, (v - y) / scale), float(h)) for v in (top, bottom)]
    box = (xs[0], ys[0], xs[1], ys[1])
    size = (right - left, bottom - top)
    part = image.resize(size, Image.Resampling.BILINEAR, box=box)
    canvas[top:bottom, left:right] = np.asarray(part)


def single(image: Image.Image, imgsz: tuple[int, int], rng: np.random.Generator) -> Bytes:
    """Place one image at a random scale and position: uint8 [H, W, 3], the rest grey."""
    height, width = imgsz
    w, h = image.size
    scale = min(width / w, height / h) * float(rng.uniform(*SCALES))
    x, y = rng.uniform(0, 1, 2) * (width - w * scale, height - h * scale)
    canvas = np.full((height, width, 3), PAD, np.uint8)
    paste(canvas, image, scale, float(x), float(y), (0, 0, width, height))
    return canvas


def mosaic(images: list[Image.Image], imgsz: tuple[int, int], rng: np.random.Generator) -> Bytes:
    """Put four images around a random point: uint8 [H, W, 3]."""
    height, width = imgsz
    canvas = np.full((height, width, 3), PAD, np.uint8)
    cx, cy = (rng.uniform(0.3, 0.7, 2) * (width, height)).round().astype(int).tolist()
    for place, image in enumerate(images):
        w, h = image.size
        scale = min(width / w, height / h) * float(rng.uniform(*SCALES)) * 0.75
        right, below = place % 2, place // 2
        window = (cx * right, cy * below, width if right else cx, height if below else cy)
        x = cx if right else cx - w * scale
        y = cy if below else cy - h * scale
        paste(canvas, image, scale, x, y, window)
    return canvas


def recolour(pixels: Bytes, rng: np.random.Generator) -> Bytes:
    """Change hue, saturation and value of uint8 [H, W, 3] RGB by random factors."""
    hue, saturation, value = 1 + rng.uniform(-1, 1, 3) * (HUE, SATURATION, VALUE)
    steps = np.arange(256)
    tables = [
        (steps + round(255 * (hue - 1))) % 256,
        np.clip(steps * saturation, 0, 255),
        np.clip(steps * value, 0, 255),
    ]
    flat = [int(v) for table in tables for v in table]
    changed = Image.fromarray(pixels).convert("HSV").point(flat).convert("RGB")
    return np.asarray(changed)


def plain(image: Image.Image, imgsz: tuple[int, int], rng: np.random.Generator) -> Bytes:
    """Letterbox an image to `imgsz`, mirrored or not: uint8 [3, H, W]."""
    return mirrored(letterbox(image, imgsz)[0].transpose(1, 2, 0), rng)


def varied(images: list[Image.Image], imgsz: tuple[int, int], rng: np.random.Generator) -> Bytes:
    """Make one training image of `imgsz` from one image, or from four: uint8 [3, H, W]."""
    whole = mosaic(images, imgsz, rng) if len(images) > 1 else single(images[0], imgsz, rng)
    return mirrored(recolour(whole, rng), rng)


def mirrored(pixels: Bytes, rng: np.random.Generator) -> Bytes:
    """Mirror every other image, uint8 [H, W, 3]; returns uint8 [3, H, W]."""
    if rng.random() < 0.5:  # noqa: PLR2004  # every other one
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
