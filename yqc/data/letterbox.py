"""letterbox: fit an image of any size into the model's input without changing its aspect.

    scale = min(W / w, H / h)      x' = x * scale + dx,   dx = (W - round(w * scale)) // 2

Bilinear, enlarging small images too; what is left over is grey (114). The EXIF orientation is not
applied: an image is what `PIL.Image.open(path).convert("RGB")` gives, boxes are in those pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PAD = 114
"""The grey around the image, as YOLO training uses it."""


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the model's input: input pixel = image pixel * scale + (dx, dy)."""

    scale: float
    dx: int
    dy: int


def letterbox(
    image: Image.Image, imgsz: tuple[int, int], *, channels_last: bool = False
) -> tuple[NDArray[np.uint8], Placement]:
    """Place an RGB image in an input of `imgsz`.

    Args:
        image: an image in mode RGB.
        imgsz: height and width of the input in pixels.
        channels_last: leave the three values of a pixel side by side in memory.

    Returns:
        uint8 [3, H, W], channels in the order red, green, blue; and where the image lies in it.
    """
    height, width = imgsz
    w, h = image.size
    scale = min(width / w, height / h)
    new_w, new_h = max(1, round(w * scale)), max(1, round(h * scale))
    dx, dy = (width - new_w) // 2, (height - new_h) // 2
    canvas = np.full((height, width, 3), PAD, np.uint8)
    canvas[dy : dy + new_h, dx : dx + new_w] = np.asarray(
        image.resize((new_w, new_h), Image.Resampling.BILINEAR)
    )
    pixels = canvas.transpose(2, 0, 1)
    placement = Placement(scale, dx, dy)
    return pixels if channels_last else np.ascontiguousarray(pixels), placement


def to_float(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [3, H, W] to the model's float32 [1, 3, H, W] in 0..1, in the same order in memory."""
    return np.divide(pixels[None], np.float32(255))
