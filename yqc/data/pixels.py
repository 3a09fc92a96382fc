"""Read image files into the pixels that `cv2.imread` gives, as YOLO trainers read them.

All three projects train on `cv2.imread(path)`: 8 bits a channel, turned as the EXIF orientation
says, alpha dropped. Pillow differs from it in the orientation of JPEG, PNG and WebP (applied here;
TIFF and AVIF turn themselves), and in how values become 8 bits of RGB or grey (`colours`). For a
model of any other number of channels, the bands of the file are read as they are stored (`bands`).

Checked against OpenCV 4.14 and 5.0 (`tests/data/test_pixels.py`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile

from yqc.data.bands import Bands, Picture, is_array, read_array_size, read_bands
from yqc.data.colours import JPEGS, to_grey, to_rgb
from yqc.data.formats import open_image
from yqc.data.tiff import is_tiff, read_tiff_size
from yqc.errors import DataError

WidthHeight = tuple[int, int]
Rectangle = tuple[float, float, float, float]
"""Left, top, width, height."""

HUGE = 50_000_000
"""A JPEG of more pixels is decoded at half its width and height if the model's input is small.

Pillow takes four bytes a pixel, so one image takes at most 200 MB. With half of this bound,
photographs of 48 megapixels are not exact any more; with double, one image takes 400 MB."""
SPARE = 4
"""The half must be this many times as large as the model's input.

Measured on a 12000 x 9000 JPEG with noise, against resizing the whole: differences of at most 1 of
255 at 4.7 times; at half of that, up to 2; at double, up to 1 in white noise too, but an input of
1280 pixels is then made from the whole image, in 430 MB instead of 110."""

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
_CONVERTED = (1, 3)
"""Numbers of channels that pictures are converted to: grey, and RGB."""
_ORIENTED = (*JPEGS, "PNG", "WEBP")
"""Formats whose EXIF orientation OpenCV applies and Pillow does not."""


def read_image(
    path: Path, channels: int = 3, *, enough: Callable[[WidthHeight], WidthHeight] | None = None
) -> tuple[Picture, WidthHeight]:
    """Read an image as `cv2.imread` does, or its bands.

    Args:
        path: a regular file in one of `FORMATS`, or `.npy`.
        channels: 3 for what IMREAD_COLOR gives (in RGB order), 1 for IMREAD_GRAYSCALE; any other
            number must be the file's own.
        enough: given width and height of the upright image, those that are enough; a JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling) if that is not smaller.

    Returns:
        An upright image, in mode RGB, in mode L, or as bands; and width and height of the whole
        upright image.

    Raises:
        DataError: it is no regular file, of another format, of another number of channels, or of
            values that do not fit 8 bits.
        Exception: Pillow's decoders raise OSError, SyntaxError, ValueError and others on a broken
            file.
    """
    if channels not in _CONVERTED or is_array(path) or _has_odd_samples(path):
        upright = _read_upright_bands(path, channels)
        return upright, upright.size
    with open_image(path) as image:
        turn = _orientation(image)
        size = image.size if turn < _SWAPPED else (image.size[1], image.size[0])
        if image.format in JPEGS:
            width, height = size if enough is None else enough(size)
            wanted = (width, height) if turn < _SWAPPED else (height, width)
            image.draft("L" if channels == 1 else None, wanted)
        flat = to_grey(image, path) if channels == 1 else to_rgb(image, path)
    return flat.transpose(_TURNS[turn]) if turn in _TURNS else flat, size


def show_image(path: Path, channels: int = 3) -> Image.Image:
    """Read an image of a data set for a model of so many channels, to be looked at: RGB or grey."""
    picture, _ = read_image(path, channels)
    return picture.to_rgb() if isinstance(picture, Bands) else picture


def _read_upright_bands(path: Path, channels: int) -> Picture:
    """Read the bands of a file upright; grey and RGB are converted into each other.

    Raises:
        DataError: it has another number of channels.
    """
    bands, frame = read_bands(path), find_frame(path)
    if frame is not None and frame.turn in _TURNS:
        bands = bands.transpose(_TURNS[frame.turn])
    found = len(bands.getbands())
    if {found, channels} <= {*_CONVERTED}:
        return bands.to_rgb().convert("RGB" if channels == _CONVERTED[1] else "L")
    if found != channels:
        raise DataError(f"it has {found} channels, and the model takes {channels}")
    return bands


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

    @property
    def transposition(self) -> Image.Transpose | None:
        """What turns the stored pixels upright; None where they are."""
        return _TURNS.get(self.turn)

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
    if is_array(path):
        return Frame(size := read_array_size(path), size, 1)
    if _has_odd_samples(path):
        return Frame(size := read_tiff_size(path), size, 1)
    with open_image(path) as image:
        from_tiff = image.format == "TIFF"  # Pillow's size of a TIFF is that of the upright image.
        orientation = ExifTags.Base.Orientation
        turn = image.getexif().get(orientation, 1) if from_tiff else _orientation(image)
        other = image.size[::-1] if turn >= _SWAPPED else image.size
        return Frame(image.size, other, turn) if from_tiff else Frame(other, image.size, turn)


def _has_odd_samples(path: Path) -> bool:
    """Return whether a file is a TIFF with samples that Pillow does not know, such as five."""
    if not is_tiff(path):
        return False
    try:
        open_image(path).close()
    except (SyntaxError, DataError):
        return True
    return False


def find_frame(path: Path) -> Frame | None:
    """Read a frame, or return None where it cannot be read; the reader of the pixels says why."""
    try:
        return read_frame(path)
    except Exception:  # noqa: BLE001  # Pillow raises anything
        return None


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
