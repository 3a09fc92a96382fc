"""Convert the values of an opened image file to 8 bits of RGB or grey as OpenCV does.

16 bits        grey, PNG, PPM: the high byte v >> 8; colour TIFF: round(v / 257) (libtiff)
CMYK in JPEG   c' = k - ((255 - c) k >> 8) on the inverted values that Adobe files hold
alpha in TIFF  colour is multiplied by it (libtiff's RGBA interface)
grey           PNG: libpng's weights; else 0.299 R + 0.587 G + 0.114 B in fixed point of 14 or
               15 bits; that of a colour JPEG is its Y channel, which the decoder gives
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from yqc.data.formats import open_image
from yqc.errors import DataError

Pixels = NDArray[np.uint8]

JPEGS = ("JPEG", "MPO")
_EXTRA_SAMPLES, _UNASSOCIATED = 338, 2
"""TIFF 6.0, section 18: the tag for the meaning of alpha, and its value for colour that is not yet
multiplied by it."""
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_PLANES, _SEPARATE = 284, 2
"""TIFF 6.0, section 8: grey that counts from white; and colours that are stored one by one."""


def to_rgb(image: ImageFile.ImageFile, path: Path) -> Image.Image:
    """Decode into mode RGB as IMREAD_COLOR does."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_high_byte(image, path)).convert("RGB")
    if image.mode == "CMYK" and image.format in JPEGS:
        stored = 255 - np.asarray(image).astype(np.int32)  # Pillow inverts what Adobe inverted.
        k = stored[..., 3:]
        return Image.fromarray((k - ((255 - stored[..., :3]) * k >> 8)).astype(np.uint8))
    if image.format == "PPM" and _is_wide(image):
        return Image.fromarray(_high_byte(image, path))
    if image.format == "TIFF":
        return _tiff_to_rgb(image, path)
    return _converted(image)


def _converted(image: ImageFile.ImageFile) -> Image.Image:
    """Decode into mode RGB; `Image.convert` would copy what is RGB already."""
    if image.mode != "RGB":
        image.info.pop("transparency", None)  # It is dropped; Pillow would warn of it.
        return image.convert("RGB")
    image.load()
    return image


def to_grey(image: ImageFile.ImageFile, path: Path) -> Image.Image:
    """Decode into mode L as IMREAD_GRAYSCALE does."""
    if image.mode == "L":
        image.load()
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_high_byte(image, path))
    if image.format == "PNG":
        return Image.fromarray(_png_grey(image, path))
    bits = 15 if image.format in ("WEBP", "AVIF", "GIF") else 14  # weights of ITU-R BT.601, rounded
    one = 1 << bits
    r, g = round(0.299 * one), round(0.587 * one)
    weights = np.array([r, g, one - r - g], np.uint32)
    rgb = np.asarray(to_rgb(image, path))
    return Image.fromarray(((rgb @ weights + one // 2) >> bits).astype(np.uint8))


def _high_byte(image: ImageFile.ImageFile, path: Path) -> Pixels:
    """Return the high bytes of 16-bit grey, or of a PPM with 16 bits a value."""
    if image.format == "PPM" and _is_wide(image):
        bands = 3 if image.mode == "RGB" else 1
        values = np.fromfile(path, ">u2", offset=image.tile[0].offset)
        shape = (image.height, image.width, bands)[: 3 if bands > 1 else 2]
        return (values[: int(np.prod(shape))].reshape(shape) >> 8).astype(np.uint8)
    tiff = image.format == "TIFF"
    if image.mode.startswith("F") or (tiff and not _raw_mode(image).startswith("I;16")):
        raise DataError(f"its pixels are in mode {image.mode}, which is neither 8 nor 16 bits")
    high = (np.asarray(image) >> 8 & 255).astype(np.uint8)
    return 255 - high if tiff and image.getexif().get(_PHOTOMETRIC) == _WHITE_IS_ZERO else high


def _is_wide(image: ImageFile.ImageFile) -> bool:
    """Whether a PPM or PGM stores two bytes a value."""
    args = image.tile[0].args
    return isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 255  # noqa: PLR2004


def _tiff_to_rgb(image: ImageFile.ImageFile, path: Path) -> Image.Image:
    """Decode a TIFF as libtiff's RGBA interface does: 16 bits rounded to 8, alpha multiplied in."""
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        raise DataError(f"its pixels are in mode {image.mode}, which is not read")
    raw, tags = _raw_mode(image), image.getexif()
    bits = tags.get(ExifTags.Base.BitsPerSample, 8)
    if tags.get(_PLANES) == _SEPARATE and max(np.atleast_1d(bits)) > 8:  # noqa: PLR2004
        raise DataError("it has 16 bits in separate planes, which Pillow does not decode")
    if image.mode == "CMYK" and ";16" not in raw:
        inverse = 255 - np.asarray(image).astype(np.uint32)
        return Image.fromarray((inverse[..., :3] * inverse[..., 3:] // 255).astype(np.uint8))
    if raw.startswith("RGBa"):  # Colour that is multiplied already: Pillow would divide it.
        _set_raw_mode(image, "RGBA" + raw[4:])
        return Image.fromarray(_eight_bits(image, path)[..., :3])
    if ";16" not in raw and image.mode != "RGBA":
        return _converted(image)
    pixels = _eight_bits(image, path)
    if tags.get(_EXTRA_SAMPLES) in (_UNASSOCIATED, (_UNASSOCIATED,)):
        alpha = pixels[..., 3:].astype(np.uint32)
        pixels = ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return Image.fromarray(pixels[..., :3])


def _eight_bits(image: ImageFile.ImageFile, path: Path) -> Pixels:
    """Return colour [H, W, C] in 8 bits, round(v / 257) where it is stored in 16."""
    if ";16" not in _raw_mode(image):
        return np.asarray(image)
    return ((_sixteen_bits(image, path) + np.uint32(128)) // 257).astype(np.uint8)


def _sixteen_bits(image: ImageFile.ImageFile, path: Path) -> NDArray[np.uint32]:
    """Return colour [H, W, C] in 16 bits; Pillow decodes one byte at a time.

    The byte order in the name of a raw mode says which byte Pillow keeps: the first of each value
    for `;16B`, the second for `;16L`, the machine's high one for `;16N`.
    """
    raw = _raw_mode(image)
    base, order = raw.split(";16")
    native = order.startswith("N")
    low_first = order.startswith("L") or (native and np.little_endian)
    high, low = ("L", "B") if low_first else ("B", "L")
    with open_image(path) as other:
        _set_raw_mode(other, f"{base};16{low}")
        lower = np.asarray(other).astype(np.uint32)
    _set_raw_mode(image, f"{base};16{high}")
    return np.asarray(image).astype(np.uint32) * 256 + lower


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name for how the pixels lie in the file, such as `RGB;16B`."""
    args = image.tile[0].args
    return args[0] if isinstance(args, tuple) else str(args)


def _set_raw_mode(image: ImageFile.ImageFile, raw: str) -> None:
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile
    ]


def _png_grey(image: ImageFile.ImageFile, path: Path) -> Pixels:
    """Weigh the colours of a PNG as libpng's `png_set_rgb_to_gray(0.299, 0.587)` does.

    8 bits are truncated, 16 rounded and then cut; where the file says that its values are not
    linear (gAMA, sRGB), the sum is taken of linear light.
    """
    weights = np.array([9797, 19234, 32768 - 9797 - 19234], np.uint32)
    gamma = 0.45455 if "srgb" in image.info else image.info.get("gamma", 1.0)
    linear = abs(gamma - 1) <= 0.05  # noqa: PLR2004  # libpng's PNG_GAMMA_THRESHOLD
    if _raw_mode(image).startswith("RGB") and ";16" in _raw_mode(image) and linear:
        return ((_sixteen_bits(image, path)[..., :3] @ weights + 16384) >> 23).astype(np.uint8)
    rgb = np.asarray(_converted(image))
    if linear:
        return ((rgb @ weights) >> 15).astype(np.uint8)
    steps = np.arange(256) / 255
    to_linear, from_linear = (
        np.floor(255 * steps**power + 0.5).astype(np.uint32) for power in (1 / gamma, gamma)
    )
    grey = from_linear[(to_linear[rgb] @ weights + 16384) >> 15]
    plain = (rgb == rgb[..., :1]).all(-1)
    return np.where(plain, rgb[..., 0], grey).astype(np.uint8)
