"""Letterboxing, against the rule written out pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from yqc.data import Letterboxed, letterbox, to_float


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "imgsz", "inner", "placement"),
    [
        ((64, 48), (64, 64), (64, 48), Letterboxed(1.0, 0, 8)),
        ((48, 64), (64, 64), (48, 64), Letterboxed(1.0, 8, 0)),
        ((640, 427), (320, 320), (320, 214), Letterboxed(0.5, 0, 53)),
        ((20, 10), (64, 64), (64, 32), Letterboxed(3.2, 0, 16)),
        ((100, 33), (64, 64), (64, 21), Letterboxed(0.64, 0, 21)),
        ((100, 50), (64, 96), (96, 48), Letterboxed(0.96, 0, 8)),
        ((50, 100), (64, 96), (32, 64), Letterboxed(0.64, 32, 0)),
        ((2000, 1), (32, 32), (32, 1), Letterboxed(0.016, 0, 15)),
    ],
)
def test_places_the_image(
    size: tuple[int, int],
    imgsz: tuple[int, int],
    inner: tuple[int, int],
    placement: Letterboxed,
) -> None:
    image = noise(*size)
    pixels, where = letterbox(image, imgsz)
    assert where == placement
    assert (pixels.dtype.name, pixels.shape) == ("uint8", (3, *imgsz))
    assert pixels.flags.c_contiguous
    left, top = placement.dx, placement.dy
    box = np.s_[:, top : top + inner[1], left : left + inner[0]]
    want = np.asarray(image.resize(inner, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels[box], want)
    outside = np.ones(pixels.shape, bool)
    outside[box] = False
    assert (pixels[outside] == 114).all()


def test_to_float_is_exactly_a_255th() -> None:
    pixels = np.arange(3 * 16 * 16, dtype=np.uint8).reshape(3, 16, 16)
    images = to_float(pixels)
    assert (images.dtype.name, images.shape) == ("float32", (1, 3, 16, 16))
    np.testing.assert_array_equal(images[0], pixels.astype(np.float32) / 255)


def test_grey_has_one_channel() -> None:
    image = noise(40, 20).convert("L")
    pixels, _ = letterbox(image, (32, 32))
    assert pixels.shape == (1, 32, 32)
    want = np.asarray(image.resize((32, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels[0, 8:24], want)
    assert (pixels[0, :8] == 114).all()


def test_an_image_that_was_decoded_smaller_is_placed_as_the_whole() -> None:
    whole, half = noise(401, 200), noise(201, 100)
    assert letterbox(half, (64, 64), size=whole.size)[1] == letterbox(whole, (64, 64))[1]
