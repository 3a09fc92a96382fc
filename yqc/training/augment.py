"""Make training images: most are letterboxed only, others scaled, recoloured, put into mosaics.

There are no labels: the outputs of the float original are the target on any image. Every function
is determined by its arguments and the generator that it is given.

Source of the mosaic: Bochkovskiy et al., YOLOv4, 2020.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yqc.data.bands import Picture
from yqc.data.letterbox import fit_image
from yqc.runtime import PAD

Bytes = NDArray[np.uint8]

PLAIN = 0.75
"""Share of images that are letterboxed only. A pruned graph has less capacity than its original:
when trained on mosaics alone, it was farther from the original on plain images than before. With
half of it, more of the training is on images that the model never sees; 1 leaves no
augmentation."""
MOSAIC = 0.5
"""Share of the other images that are mosaics of four. Not measured: half of it shows fewer small
objects; double leaves no single images at a random scale."""
HUE, SATURATION, VALUE = 0.015, 0.5, 0.3
"""Largest changes, as fractions; hue as in YOLO trainers, the others about three quarters of
theirs. Not measured: half of them varies colours less; double makes colours that no camera
gives."""
SCALES = (0.6, 1.4)
"""Smallest and largest size of a placed image, relative to the letterboxed one. A wider range
trains for sizes that the images of the task seldom have."""


def paste(
    canvas: Bytes, image: Picture, scale: float, x: float, y: float, window: tuple[int, ...]
) -> None:
    """Draw an image, resized by `scale`, with its corner at (x, y), inside a window of the canvas.

    The canvas, uint8 [H, W, C], is changed in place. Coordinates are canvas pixels; the window is
    left, upper, right and lower end.
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
    canvas[top:bottom, left:right] = np.asarray(part).reshape(*size[::-1], -1)


def place_single(image: Picture, imgsz: tuple[int, int], rng: np.random.Generator) -> Bytes:
    """Place one image at a random scale and position: uint8 [H, W, C], the rest grey."""
    height, width = imgsz
    w, h = image.size
    scale = min(width / w, height / h) * float(rng.uniform(*SCALES))
    x, y = rng.uniform(0, 1, 2) * (width - w * scale, height - h * scale)
    canvas = np.full((height, width, len(image.getbands())), PAD, np.uint8)
    paste(canvas, image, scale, float(x), float(y), (0, 0, width, height))
    return canvas


def make_mosaic(images: list[Picture], imgsz: tuple[int, int], rng: np.random.Generator) -> Bytes:
    """Put four images around a random point: uint8 [H, W, C]."""
    height, width = imgsz
    canvas = np.full((height, width, len(images[0].getbands())), PAD, np.uint8)
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
    """Change hue, saturation and value of uint8 [H, W, C] by random factors; of grey, the value.

    Bands of any other number are left as they are, as Ultralytics leaves them: their values need
    not be light.
    """
    hue, saturation, value = 1 + rng.uniform(-1, 1, 3) * (HUE, SATURATION, VALUE)
    steps = np.arange(256)
    tables = [
        (steps + round(255 * (hue - 1))) % 256,
        np.clip(steps * saturation, 0, 255),
        np.clip(steps * value, 0, 255),
    ]
    if pixels.shape[2] == 1:
        grey: Bytes = tables[2].astype(np.uint8)[pixels]
        return grey
    if pixels.shape[2] != 3:  # noqa: PLR2004  # RGB
        return pixels
    flat = [int(v) for table in tables for v in table]
    changed = Image.fromarray(pixels).convert("HSV").point(flat).convert("RGB")
    return np.asarray(changed)


def fit_mirrored(
    image: Picture, imgsz: tuple[int, int], rng: np.random.Generator, *, crop: bool = False
) -> Bytes:
    """Letterbox an image to `imgsz`, or `crop` its centre, mirrored or not: uint8 [C, H, W]."""
    return mirror_at_random(fit_image(image, imgsz, crop=crop)[0].transpose(1, 2, 0), rng)


def augment(images: list[Picture], imgsz: tuple[int, int], rng: np.random.Generator) -> Bytes:
    """Make one training image of `imgsz` from one image, or from four: uint8 [C, H, W]."""
    whole = (
        make_mosaic(images, imgsz, rng) if len(images) > 1 else place_single(images[0], imgsz, rng)
    )
    return mirror_at_random(recolour(whole, rng), rng)


def mirror_at_random(pixels: Bytes, rng: np.random.Generator) -> Bytes:
    """Mirror an image, uint8 [H, W, C], with probability 1/2; returns uint8 [C, H, W]."""
    if rng.random() < 0.5:  # noqa: PLR2004
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
