"""Read images of any number of channels as they are stored: PNG, TIFF, NumPy arrays.

A model whose input is neither grey nor RGB takes the bands of a picture as numbers: alpha is one of
them, and nothing is blended or converted.

PNG    red, green, blue, alpha, or grey, alpha
TIFF   the samples of all pages, one behind the other, as stored (TIFF 6.0: strips or tiles, samples
       of a pixel together or in planes); Ultralytics reads many bands as one grey page each
.npy   [H, W, C], or [H, W] for one channel, in the order that the model takes (of three: RGB; what
       Ultralytics caches beside its images is BGR, and is not read)

8 bits, or the high byte of 16.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from yqc.data.formats import FORMATS, MOST, open_image
from yqc.data.tiff import Values, is_tiff, read_pages
from yqc.errors import DataError

Pixels = NDArray[np.uint8]

ARRAY = b"\x93NUMPY"
"""The first bytes of a `.npy` file (NumPy Enhancement Proposal 1)."""


class Bands:
    """A picture of any number of channels, uint8 [H, W, C], with what is used of `Image.Image`."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.size[0]

    def getbands(self) -> tuple[str, ...]:
        """Name the channels by their numbers."""
        return tuple(map(str, range(self.pixels.shape[2])))

    def resize(
        self,
        size: tuple[int, int],
        resample: Image.Resampling = Image.Resampling.BILINEAR,
        box: tuple[float, float, float, float] | None = None,
    ) -> "Bands":
        """Resize each channel as a grey image."""
        planes = (Image.fromarray(np.ascontiguousarray(p)) for p in self.pixels.transpose(2, 0, 1))
        return Bands(np.stack([np.asarray(p.resize(size, resample, box)) for p in planes], -1))

    def transpose(self, method: Image.Transpose) -> "Bands":
        """Turn or mirror each channel."""
        planes = (Image.fromarray(np.ascontiguousarray(p)) for p in self.pixels.transpose(2, 0, 1))
        return Bands(np.stack([np.asarray(p.transpose(method)) for p in planes], -1))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: ANN401  # as NumPy calls it
        """Return the pixels, uint8 [H, W, C]."""
        return np.array(self.pixels, dtype=dtype, copy=copy)

    def to_rgb(self) -> Image.Image:
        """Show the first three channels as red, green and blue, or one as grey."""
        shown = self.pixels[..., :3] if self.pixels.shape[2] > 2 else self.pixels[..., :1]  # noqa: PLR2004
        return Image.fromarray(np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3))))


Picture = Image.Image | Bands


def read_bands(path: Path) -> Bands:
    """Read all channels of an image file.

    Raises:
        DataError: it is of no such format, or its values do not fit 8 bits.
    """
    if is_array(path):
        return Bands(_to_bytes(read_array(path)))
    if is_tiff(path):
        return Bands(_to_bytes(np.concatenate([*read_pages(path)], axis=2)))
    with open_image(path) as image:
        return Bands(_stored(image))


def read_array(path: Path) -> Values:
    """Read `.npy` as [H, W, C].

    Raises:
        DataError: it holds no image of 8 or 16 bits.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"it is no array of numbers ({error})") from error
    if values.ndim == 2:  # noqa: PLR2004  # one channel
        values = values[..., None]
    if values.ndim != 3 or not values.size or math.prod(values.shape[:2]) > MOST:  # noqa: PLR2004
        raise DataError(f"it holds an array of shape {values.shape}; an image is [H, W, C]")
    if values.dtype not in (np.uint8, np.dtype("<u2"), np.dtype(">u2")):
        raise DataError(f"it holds {values.dtype}; an image is uint8 or uint16")
    found: Values = np.asarray(values)
    return found


def is_array(path: Path) -> bool:
    """Return whether a file is a `.npy`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(ARRAY)) == ARRAY


def read_array_size(path: Path) -> tuple[int, int]:
    """Read width and height of a `.npy`; errors as of `read_array`."""
    height, width, _ = read_array(path).shape
    return width, height


def _to_bytes(values: Values) -> Pixels:
    """Return values of 16 bits as their high bytes."""
    return np.asarray(values) if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)


def _stored(image: ImageFile.ImageFile) -> Pixels:
    """Return the pixels of a PNG or another format as they are stored, [H, W, C]."""
    if image.mode in ("P", "1"):
        image.info.pop("transparency", None)
        return np.asarray(image.convert("RGB" if image.mode == "P" else "L")).reshape(
            image.height, image.width, -1
        )
    if image.mode.startswith("F") or image.format not in FORMATS:
        raise DataError(f"its pixels are in mode {image.mode}, which is neither 8 nor 16 bits")
    values = np.asarray(image)
    if values.dtype != np.uint8:
        values = (values >> 8 & 255).astype(np.uint8)
    return values.reshape(image.height, image.width, -1)
