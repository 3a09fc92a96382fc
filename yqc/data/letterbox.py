"""Fit an image of any size into the model's input without changing its aspect.

Of a detector all of the image is shown (letterboxing):

    scale = min(W / w, H / h)      x' = x * scale + dx,   dx = (W - round(w * scale)) // 2

Bilinear, enlarging small images too; the rest of the input is 114 in every channel. Of a classifier
its centre fills the input, with max in place of min. Sizes and places are those of `yqc.runtime`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yqc.data.bands import Picture
from yqc.runtime import PAD, place_centre, place_whole


@dataclass(frozen=True)
class Letterboxed:
    """The place of an image in the model's input: input = image * scale + (dx, dy), in pixels.

    The shifts are negative where the image is cut.
    """

    scale: float
    dx: int
    dy: int


def letterbox(
    image: Picture,
    imgsz: tuple[int, int],
    *,
    size: tuple[int, int] | None = None,
    channels_last: bool = False,
) -> tuple[NDArray[np.uint8], Letterboxed]:
    """Place an image in an input of `imgsz`.

    Args:
        image: an image in mode RGB or L, or bands.
        imgsz: height and width of the input in pixels.
        size: width and height of the whole image where `image` was decoded smaller.
        channels_last: leave the values of a pixel side by side in memory.

    Returns:
        uint8 [C, H, W], of mode RGB in the order red, green, blue; and the place of the (whole)
        image in it.
    """
    height, width = imgsz
    at, (new_w, new_h) = place_whole(size or image.size, imgsz)
    small = np.asarray(image.resize((new_w, new_h), Image.Resampling.BILINEAR))
    canvas = np.full((height, width, len(image.getbands())), PAD, np.uint8)
    canvas[at.dy : at.dy + new_h, at.dx : at.dx + new_w] = small.reshape(new_h, new_w, -1)
    pixels = canvas.transpose(2, 0, 1)
    place = Letterboxed(at.scale, at.dx, at.dy)
    return pixels if channels_last else np.ascontiguousarray(pixels), place


def centre_crop(
    image: Picture,
    imgsz: tuple[int, int],
    *,
    size: tuple[int, int] | None = None,
    channels_last: bool = False,
) -> tuple[NDArray[np.uint8], Letterboxed]:
    """Fill an input of `imgsz` with the centre of an image, as YOLO classifiers are evaluated.

    The image is resized until its shorter side fits, bilinear; arguments and results are those of
    `letterbox`.
    """
    height, width = imgsz
    at, (new_w, new_h) = place_centre(size or image.size, imgsz)
    left, top = -at.dx, -at.dy
    whole = np.asarray(image.resize((new_w, new_h), Image.Resampling.BILINEAR))
    inside = whole.reshape(new_h, new_w, -1)[top : top + height, left : left + width]
    pixels = inside.transpose(2, 0, 1)
    laid = pixels if channels_last else np.ascontiguousarray(pixels)
    return laid, Letterboxed(at.scale, at.dx, at.dy)


def fit_image(
    image: Picture,
    imgsz: tuple[int, int],
    *,
    crop: bool,
    size: tuple[int, int] | None = None,
    channels_last: bool = False,
) -> tuple[NDArray[np.uint8], Letterboxed]:
    """Fit an image into an input: its centre if `crop`, as for classifiers, else all of it."""
    fit = centre_crop if crop else letterbox
    return fit(image, imgsz, size=size, channels_last=channels_last)


def to_float(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale uint8 [C, H, W] to float32 [1, C, H, W] in 0..1, in the same order in memory."""
    return np.divide(pixels[None], np.float32(255))
