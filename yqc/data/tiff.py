"""Read the samples of a TIFF as they are stored, any number a pixel, on one page or several.

Source: TIFF 6.0, in strips or tiles, samples of a pixel together or in planes. Pillow decodes what
is compressed: a page is shown to it as a grey image that is wider.
"""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from yqc.data.formats import MOST
from yqc.errors import DataError

Values = NDArray[np.uint8] | NDArray[np.uint16]

STARTS = (b"II*\0", b"MM\0*")
"""The first bytes of a TIFF, which say the order of bytes in its numbers."""
MOST_PAGES = 4096
"""Pages of a TIFF at most, so that a file whose pages form a circle ends. Half would do for any
camera; double only reads longer before it is refused."""
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _STRIPS = 256, 257, 258, 262, 273
_SAMPLES, _ROWS, _LENGTHS, _PLANES, _PREDICTOR = 277, 278, 279, 284, 317
_TILE_WIDTH, _TILES, _TILE_LENGTHS, _FORMAT = 322, 324, 325, 339
_KEPT = (_HEIGHT, 259, 266, _ROWS, 323)
"""Tags; what stays as it is: height, compression, order of bits, rows of a strip and of a tile."""
_LONG = 4
"""The type of 32 bits."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE, _YCBCR, _SEPARATE, _DIFFERENCES = 0, 1, 3, 6, 2, 2
"""Values of the tags for colour, planes and predictor."""


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in STARTS


def read_tiff_size(path: Path) -> tuple[int, int]:
    """Read width and height of the first page."""
    with path.open("rb") as file:
        header = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
    return int(tags[_WIDTH]), int(tags[_HEIGHT])


def read_pages(path: Path) -> Iterator[Values]:
    """Yield the pages of a TIFF, [H, W, samples] each.

    Raises:
        DataError: it has values of other than 8 or 16 bits, a palette, or pages of several sizes.
        Exception: Pillow's reader raises anything on a broken file.
    """
    content, size = path.read_bytes(), None
    header = content[:8]
    following = TiffImagePlugin.ImageFileDirectory_v2(header).next
    for _ in range(MOST_PAGES):
        if not following:
            return
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream = io.BytesIO(content)
        stream.seek(following)
        tags.load(stream)
        following = tags.next
        values = _page(content, header, tags)
        size = size or values.shape[:2]
        if values.shape[:2] != size:
            raise DataError("its pages are of different sizes")
        yield values
    raise DataError(f"it has more than {MOST_PAGES} pages")


def _page(content: bytes, header: bytes, tags: TiffImagePlugin.ImageFileDirectory_v2) -> Values:
    """Decode one page: Pillow does it plane by plane, as of grey images that are wider."""
    bits, samples = {*tags.get(_BITS, (1,))}, int(tags.get(_SAMPLES, 1))
    kind, photometric = {*tags.get(_FORMAT, (1,))}, tags.get(_PHOTOMETRIC)
    if bits not in ({8}, {16}) or kind != {1}:
        raise DataError(f"its values have {min(bits)} bits or a sign; 8 or 16 bits are read")
    if photometric in (_PALETTE, _YCBCR):
        raise DataError("it stores colours by a palette or as YCbCr, which are no bands")
    width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    if width * height * samples > MOST:
        raise DataError(f"it has {width} x {height} x {samples} values, more than 2**30")
    apart = tags.get(_PLANES) == _SEPARATE
    planes, joined = (samples, 1) if apart else (1, samples)
    parts = [
        _grey(content, header, tags, joined, plane, planes).reshape(height, width, joined)
        for plane in range(planes)
    ]
    values = cast(Values, np.concatenate(parts, axis=2))
    if tags.get(_PREDICTOR, 1) == _DIFFERENCES:  # Each value is the difference from the one before.
        step = int(tags[_TILE_WIDTH]) if _TILE_WIDTH in tags else width
        for at in range(0, width, step):
            part = values[:, at : at + step]
            values[:, at : at + step] = np.cumsum(part, axis=1, dtype=values.dtype)
    if photometric == _WHITE_IS_ZERO:
        np.bitwise_not(values, out=values)
    return values


def _grey(
    content: bytes,
    header: bytes,
    tags: TiffImagePlugin.ImageFileDirectory_v2,
    joined: int,
    plane: int,
    planes: int,
) -> Values:
    """Decode one plane, `joined` samples a pixel, as one grey image that is so many times wider.

    The strips stay where they are; a directory behind the file describes them anew.
    """
    own = {tag: [int(tags[tag])] for tag in _KEPT if tag in tags}
    own |= {tag: [int(tags[tag]) * joined] for tag in (_WIDTH, _TILE_WIDTH) if tag in tags}
    for tag in (_STRIPS, _LENGTHS, _TILES, _TILE_LENGTHS):
        if tag in tags:
            each: Sequence[int] = tags[tag] if isinstance(tags[tag], tuple) else (tags[tag],)
            count = len(each) // planes
            own[tag] = list(each[plane * count : (plane + 1) * count])
    own |= {_BITS: [tags[_BITS][0]], _PHOTOMETRIC: [_BLACK_IS_ZERO], _SAMPLES: [1]}
    start = len(content) + len(content) % 2
    first, directory = _directory(own, "<" if header[:2] == b"II" else ">", start)
    whole = header[:4] + first + content[8:] + b"\0" * (start - len(content)) + directory
    with TiffImagePlugin.TiffImageFile(io.BytesIO(whole)) as image:
        if image.mode not in ("L", "I;16", "I;16B"):
            raise DataError(f"its pixels are in mode {image.mode}, which is not read")
        values = np.asarray(image)
        return values.copy() if values.dtype == np.uint8 else values.astype(np.uint16)


def _directory(tags: Mapping[int, Sequence[int]], order: str, start: int) -> tuple[bytes, bytes]:
    """Write tags of 32 bits as a directory at an offset; also the pointer to it (TIFF 6.0)."""
    size = 2 + 12 * len(tags) + 4
    entries, values = struct.pack(f"{order}H", len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            data, values = struct.pack(f"{order}I", start + size + len(values)), values + data
        entries += struct.pack(f"{order}HHI", tag, _LONG, len(numbers)) + data
    return struct.pack(f"{order}I", start), entries + bytes(4) + values
