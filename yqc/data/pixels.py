"""Read image files into the pixels that `cv2.imread` gives, as YOLO trainers read them.

All three projects train on `cv2.imread(path)`: 8 bits a channel, turned as the EXIF orientation
says, alpha dropped. Pillow differs from it in five points, which are settled here:

    orientation    EXIF tag 0x0112 of JPEG, PNG and WebP is applied; TIFF and AVIF turn themselves
    16 bits        grey, PNG, PPM: the high byte v >> 8; colour TIFF: round(v / 257) (libtiff)
    CMYK in JPEG   c' = k - ((255 - c) k >> 8) on the inverted values that Adobe files hold
    alpha in TIFF  colour is multiplied by it (libtiff's RGBA interface)
    grey of colour JPEG: its Y channel; PNG: libpng's weights; else 0.299 R + 0.587 G + 0.114 B in
                   fixed point of 14 or 15 bits

Checked against OpenCV 4.14 and 5.0 (`tests/data/test_pixels.py`).
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from yqc.errors import DataError

Pixels = NDArray[np.uint8]
WidthHeight = tuple[int, int]
Rectangle = tuple[float, float, float, float]

_PLUGINS = (
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    BmpImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    GifImagePlugin,
    Jpeg2KImagePlugin,
    AvifImagePlugin,
    PpmImagePlugin,
)  # Importing them registers them with Pillow.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000", "AVIF", "PPM")
"""What both Pillow and OpenCV read; others (EPS, PSD, HEIC, ...) are refused."""

MOST = 1 << 30
"""Pixels of the largest image that is read: OpenCV's CV_IO_MAX_IMAGE_PIXELS. A smaller bound would
refuse what was trained on; a larger one allocates more than 4 GiB for one image."""
HUGE = 50_000_000
"""A JPEG of more pixels is decoded at half its width and height if the model's input is small.

Pillow takes four bytes a pixel, so one image takes at most 200 MB. With half of this bound,
photographs of 48 megapixels are not exact any more; with double, one image takes 400 MB."""
SPARE = 4
"""The half must be this many times as large as the model's input.

Measured on a 12000 x 9000 JPEG with noise, against resizing the whole: differences of at most 1 of
255 at 4.7 times; at half of that, up to 2; at double, up to 1 in white noise too, but an input of
1280 pixels is then made from the whole image, in 430 MB instead of 110."""

_PREFIX = 16
"""Bytes at the start of a file that decide its format, as Pillow's plugins take them."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation (CIPA DC-008, tag 0x0112) -> what turns the stored pixels upright."""
_SWAPPED = 5
"""Orientations from this one on swap width and height."""
_EXTRA_SAMPLES, _UNASSOCIATED = 338, 2
"""TIFF 6.0, section 18: the tag for the meaning of alpha, and its value for colour that is not yet
multiplied by it."""
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_PLANES, _SEPARATE = 284, 2
"""TIFF 6.0, section 8: grey that counts from white; and colours that are stored one by one."""
_SIZ = b"\xff\x4f\xff\x51"
"""JPEG 2000 (ISO 15444-1, A.5.1): the markers SOC and SIZ, with which the code stream begins."""
_DEPTH = 42
"""Bytes from `_SIZ` to the depth of the first component, less one."""
_JPEGS = ("JPEG", "MPO")
_ORIENTED = (*_JPEGS, "PNG", "WEBP")
"""Formats whose EXIF orientation OpenCV applies and Pillow does not."""


def read_image(
    path: Path, channels: int = 3, *, enough: Callable[[WidthHeight], WidthHeight] | None = None
) -> tuple[Image.Image, WidthHeight]:
    """Read an image as `cv2.imread` does.

    Args:
        path: a regular file in one of `FORMATS`.
        channels: 3 for what IMREAD_COLOR gives (in RGB order), 1 for IMREAD_GRAYSCALE.
        enough: given width and height of the upright image, those that are enough; a JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling) if that is not smaller.

    Returns:
        An upright image in mode RGB or L, and width and height of the whole upright image.

    Raises:
        DataError: it is no regular file, of another format, or of values that do not fit 8 bits.
        Exception: Pillow's decoders raise OSError, SyntaxError, ValueError and others on a broken
            file.
    """
    check_channels(channels)
    with _open(path) as image:
        turn = _orientation(image)
        size = image.size if turn < _SWAPPED else (image.size[1], image.size[0])
        if image.format in _JPEGS:
            width, height = size if enough is None else enough(size)
            wanted = (width, height) if turn < _SWAPPED else (height, width)
            image.draft("L" if channels == 1 else None, wanted)
        upright = _to_grey(image, path) if channels == 1 else _to_rgb(image, path)
    if turn in _TURNS:
        upright = upright.transpose(_TURNS[turn])
    return upright, size


def check_channels(channels: int) -> None:
    """Raise a DataError if images cannot be read for a model of so many input channels."""
    if channels not in (1, 3):
        raise DataError(f"the model takes {channels} channels, and images are read as 1 or 3")


def half_of_huge(imgsz: WidthHeight) -> Callable[[WidthHeight], WidthHeight]:
    """Return what `read_image` takes as `enough` for an input of `imgsz` (height, width)."""

    def enough(size: WidthHeight) -> WidthHeight:
        half = size[0] // 2, size[1] // 2
        small = min(half) >= SPARE * max(imgsz)
        return half if small and size[0] * size[1] > HUGE else size

    return enough


class Frame(NamedTuple):
    """How the pixels of an image file lie, and how the image is looked at."""

    size: WidthHeight
    """Width and height of the upright image."""
    stored: WidthHeight
    """Width and height of the pixels as they are stored."""
    turn: int
    """The EXIF orientation that leads from one to the other, 1 to 8; 1 is none."""

    def turn_box(self, box: Rectangle) -> Rectangle:
        """Turn a box (left, top, width, height) of the stored pixels into the upright image."""
        (x, y, w, h), (width, height) = box, self.stored
        right, below = width - x - w, height - y - h
        return {
            2: (right, y, w, h),
            3: (right, below, w, h),
            4: (x, below, w, h),
            5: (y, x, h, w),
            6: (below, x, h, w),
            7: (below, right, h, w),
            8: (y, right, h, w),
        }.get(self.turn, box)


def read_frame(path: Path) -> Frame:
    """Read size and orientation from the header of an image; no pixel is decoded.

    Raises:
        DataError, Exception: as `read_image`.
    """
    with _open(path) as image:
        size, turn = image.size, _orientation(image)
        swapped = size[1], size[0]
        if image.format == "TIFF":  # Pillow's size of a TIFF is that of the upright image.
            turn = image.getexif().get(ExifTags.Base.Orientation, 1)
            return Frame(size, swapped if turn >= _SWAPPED else size, turn)
        return Frame(swapped if turn >= _SWAPPED else size, size, turn)


def _open(path: Path) -> ImageFile.ImageFile:
    """Open an image; its pixels are not decoded yet.

    `Image.open` would warn of images over 89 megapixels and refuse those over 179.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise DataError("it is no regular file (a pipe, a device or a folder)")
    file = path.open("rb")
    try:
        prefix = file.read(_PREFIX)
        for name in FORMATS:
            factory, accept = Image.OPEN[name]
            if accept is not None and accept(prefix) is True:
                file.seek(0)
                image = factory(file, os.fspath(path))
                break
        else:
            raise DataError("it is in no image format that is read here")
        if image.size[0] * image.size[1] > MOST:
            raise DataError(f"it has {image.size[0]} x {image.size[1]} pixels, more than 2**30")
    except BaseException:
        file.close()
        raise
    image._exclusive_fp = True  # noqa: SLF001  # the image closes the file, as of Image.open
    return image


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation that is left to apply, 1 to 8; 1 is upright.

    `Image.getexif` would also take one from XMP, which OpenCV does not read.
    """
    data = image.info.get("exif")
    if image.format not in _ORIENTED or not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        turn = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  # a broken EXIF block turns nothing
        return 1
    return turn if turn in _TURNS else 1


def _to_rgb(image: ImageFile.ImageFile, path: Path) -> Image.Image:
    """Decode into mode RGB as IMREAD_COLOR does."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_high_byte(image, path)).convert("RGB")
    if image.mode == "CMYK" and image.format in _JPEGS:
        return Image.fromarray(_from_cmyk(np.asarray(image)))
    if image.format == "PPM" and _is_wide(image):
        return Image.fromarray(_high_byte(image, path))
    if image.format == "TIFF":
        return _tiff_to_rgb(image, path)
    if image.format == "JPEG2000" and (depth := _jp2_depth(path)) > 8:  # noqa: PLR2004
        raise DataError(f"it is a JPEG 2000 of {depth} bits a colour, which Pillow does not decode")
    return _converted(image)


def _converted(image: ImageFile.ImageFile) -> Image.Image:
    """Decode into mode RGB; `Image.convert` would copy what is RGB already."""
    if image.mode != "RGB":
        image.info.pop("transparency", None)  # It is dropped; Pillow would warn of it.
        return image.convert("RGB")
    image.load()
    return image


def _to_grey(image: ImageFile.ImageFile, path: Path) -> Image.Image:
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
    bits = 15 if image.format in ("WEBP", "JPEG2000", "AVIF", "GIF") else 14
    return Image.fromarray(_weighted(np.asarray(_to_rgb(image, path)), bits))


def _weighted(rgb: Pixels, bits: int) -> Pixels:
    """Return 0.299 R + 0.587 G + 0.114 B, rounded, with weights of so many bits (ITU-R BT.601)."""
    one = 1 << bits
    r, g = round(0.299 * one), round(0.587 * one)
    weights = np.array([r, g, one - r - g], np.uint32)
    return ((rgb @ weights + one // 2) >> bits).astype(np.uint8)


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


def _from_cmyk(inverted: Pixels) -> Pixels:
    """Convert uint8 [H, W, 4] of a JPEG, as Pillow inverts it, to RGB [H, W, 3] as OpenCV does."""
    stored = 255 - inverted.astype(np.int32)
    k = stored[..., 3:]
    return (k - ((255 - stored[..., :3]) * k >> 8)).astype(np.uint8)


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
    with _open(path) as other:
        _set_raw_mode(other, f"{base};16{low}")
        lower = np.asarray(other).astype(np.uint32)
    _set_raw_mode(image, f"{base};16{high}")
    return np.asarray(image).astype(np.uint32) * 256 + lower


def _jp2_depth(path: Path) -> int:
    """Return the bits of the first component of a JPEG 2000 file."""
    with path.open("rb") as file:
        start = file.read(1 << 16)
    place = start.find(_SIZ) + _DEPTH
    return (start[place] & 127) + 1 if _DEPTH <= place < len(start) else 8


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
