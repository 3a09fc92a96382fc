"""Open image files of the formats that both Pillow and OpenCV read, of any size."""

import os
import stat
from pathlib import Path

from PIL import AvifImagePlugin, Image, ImageFile, TiffImagePlugin, WebPImagePlugin

from yqc.errors import DataError

Image.preinit()  # The most usual formats register with Pillow, and these when they are imported.
_IMPORTED = AvifImagePlugin, TiffImagePlugin, WebPImagePlugin
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "PPM")
"""What both Pillow and OpenCV read; others (EPS, PSD, HEIC, JPEG 2000, ...) are refused."""

MOST = 1 << 30
"""Pixels of the largest image that is read: OpenCV's CV_IO_MAX_IMAGE_PIXELS. A smaller bound would
refuse what was trained on; a larger one allocates more than 4 GiB for one image."""
_PREFIX = 16
"""Bytes at the start of a file that decide its format, as Pillow's plugins take them."""


def open_image(path: Path) -> ImageFile.ImageFile:
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
