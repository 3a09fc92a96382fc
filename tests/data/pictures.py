"""Image files of many formats and modes, for the comparison with OpenCV."""

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Save = Callable[[Path], object]

ORIENTATION = 0x0112


def noise(bands: int, bits: int = 8, size: tuple[int, int] = (37, 53), seed: int = 0) -> Array:
    """Values [H, W, bands] of so many bits."""
    kind = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng((seed, bands, bits)).integers(0, 1 << bits, (*size, bands), kind)


def smooth(size: tuple[int, int] = (37, 53)) -> Image.Image:
    """A picture as photographs are: neighbours are alike, the four corners are not."""
    y, x = np.mgrid[: size[0], : size[1]]
    bands = [128 + 100 * np.sin(x / 7 + k) + 20 * np.cos(y / 5 * k) for k in (1, 2, 3)]
    return Image.fromarray(np.stack(bands, -1).clip(0, 255).astype(np.uint8))


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values: Array, bits: int, kind: int, *chunks: bytes) -> bytes:
    """A PNG of values [H, W, bands] at any bit depth and colour type (ISO 15948), unfiltered."""
    height, width, bands = values.shape
    rows = values.reshape(height, width * bands)
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    else:
        shifts = np.arange(bits - 1, -1, -1, dtype=np.uint8)
        ones = (rows[..., None] >> shifts & 1).reshape(height, -1)
        lines = [row.tobytes() for row in np.packbits(ones, axis=1)]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body + chunk(b"IEND", b"")


def tiff(
    values: Array, order: str, photometric: int, sample_format: int = 1, *, planes: bool = False
) -> bytes:
    """An uncompressed TIFF (6.0) of values [H, W, bands], in byte order `<` or `>`."""
    height, width, bands = values.shape
    data = (values.transpose(2, 0, 1) if planes else values).astype(f"{order}u2").tobytes()
    start = 8 + 2 + 12 * 9 + 4
    at = [start + i * len(data) // bands for i in range(bands)] if planes else [start]
    tables = b"".join(
        struct.pack(f"{order}{bands}{kind}", *row)
        for kind, row in (
            ("H", [16] * bands),
            ("I", (at * bands)[:bands]),
            ("I", [len(data) // bands] * bands),
        )
        if bands > 1
    )
    after = start + len(data)
    many = len(at) > 1
    fields = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, bands, after if bands > 1 else None),
        (262, 3, 1, photometric),
        (273, 4, len(at), after + 2 * bands if many else start),
        (277, 3, 1, bands),
        (279, 4, len(at), after + 6 * bands if many else len(data)),
        (284, 3, 1, 2 if planes else 1),
        (339, 3, 1, sample_format),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (
            struct.pack(f"{order}HH", 16 if value is None else value, 0)
            if kind == 3 and (count == 1)
            else struct.pack(f"{order}I", value)
        )
        for tag, kind, count, value in fields
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(fields))
    return head + entries + b"\0\0\0\0" + data + tables


def tiff_files() -> Iterator[tuple[str, Save]]:
    """16 bits in both byte orders, counted from white, and signed."""

    def write(*arguments: Any) -> Save:
        return lambda path: path.write_bytes(tiff(*arguments))

    for order, name in (("<", "little"), (">", "big")):
        yield f"grey16-{name}.tif", write(noise(1, 16), order, 1)
        yield f"grey16-{name}-signed.tif", write(noise(1, 16), order, 1, 2)
        yield f"rgb16-{name}.tif", write(noise(3, 16), order, 2)
    yield "grey16-from-white.tif", write(noise(1, 16), "<", 0)  # Pillow reads no big-endian one.


def png_files() -> Iterator[tuple[str, Save]]:
    """Every colour type and depth of PNG, with and without transparency and gamma."""

    def write(values: Array, bits: int, kind: int, *chunks: bytes) -> Save:
        return lambda path: path.write_bytes(png(values, bits, kind, *chunks))

    palette = np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes()
    for bits in (1, 2, 4, 8):
        few = noise(1) >> (8 - bits)
        plte = chunk(b"PLTE", palette[: 3 << bits])
        yield f"grey{bits}.png", write(few, bits, 0)
        yield f"palette{bits}.png", write(few, bits, 3, plte)
        yield f"palette{bits}-transparent.png", write(few, bits, 3, plte, chunk(b"tRNS", b"\0d"))
    yield "grey16.png", write(noise(1, 16), 16, 0)
    yield "grey16-transparent.png", write(noise(1, 16), 16, 0, chunk(b"tRNS", b"\1\2"))
    for bits in (8, 16):
        yield f"rgb{bits}.png", write(noise(3, bits), bits, 2)
        yield (
            f"rgb{bits}-transparent.png",
            write(noise(3, bits), bits, 2, chunk(b"tRNS", b"\0\1" * 3)),
        )
        yield f"greyalpha{bits}.png", write(noise(2, bits), bits, 4)
        yield f"rgba{bits}.png", write(noise(4, bits), bits, 6)
    yield "rgb8-srgb.png", write(noise(3), 8, 2, chunk(b"sRGB", b"\0"))
    for gamma in (30000, 45455, 100000):
        yield (
            f"rgb8-gamma{gamma}.png",
            write(noise(3), 8, 2, chunk(b"gAMA", struct.pack(">I", gamma))),
        )
        yield (
            f"grey8-gamma{gamma}.png",
            write(noise(1), 8, 0, chunk(b"gAMA", struct.pack(">I", gamma))),
        )


def pillow_files() -> Iterator[tuple[str, Save]]:
    """What Pillow writes: BMP, TIFF, WebP, GIF, AVIF, PPM, MPO."""

    def write(image: Image.Image, **options: Any) -> Save:
        return lambda path: image.save(path, **options)

    rgb, grey = Image.fromarray(noise(3)), Image.fromarray(noise(1)[..., 0])
    rgba, grey_alpha = Image.fromarray(noise(4)), Image.fromarray(noise(2), "LA")
    wide = Image.fromarray(noise(1, 16)[..., 0])
    kinds = {"rgb": rgb, "grey": grey, "palette": rgb.quantize(200), "1": grey.convert("1")}
    for name, image in (kinds | {"rgba": rgba}).items():
        yield f"{name}.bmp", write(image)
        for how in ("raw", "tiff_lzw", "tiff_deflate", "packbits"):
            yield f"{name}-{how}.tif", write(image, compression=how)
        if name != "1":
            yield f"{name}.gif", write(image)
    for name, image in {"rgb": rgb, "rgba": rgba, "grey": grey}.items():
        yield f"{name}.avif", write(image, quality=90)
        yield f"{name}.webp", write(image, lossless=True)
    yield "lossy.webp", write(smooth(), quality=80)
    yield "grey-alpha.tif", write(grey_alpha)
    yield "cmyk.tif", write(Image.fromarray(noise(4), "CMYK"))
    yield "white-is-zero.tif", write(grey, tiffinfo={262: 0})
    yield "jpeg.tif", write(smooth(), compression="jpeg")
    yield "rgb.ppm", write(rgb)
    yield "grey.pgm", write(grey)
    yield "1.pbm", write(grey.convert("1"))
    for ending in ("tif", "pgm"):
        yield f"grey16.{ending}", write(wide)
    yield "animated.gif", write(rgb, append_images=[smooth()], save_all=True)
    yield "animated.png", write(rgb, append_images=[smooth()], save_all=True)
    yield "animated.webp", write(rgb, append_images=[smooth()], save_all=True, lossless=True)


def opencv_files() -> Iterator[tuple[str, Save]]:
    """16 bits a colour, which Pillow cannot write."""

    def write(values: Array) -> Save:
        return lambda path: cv2.imwrite(str(path), values)

    for ending in ("tif", "png", "ppm"):
        yield f"opencv-rgb16.{ending}", write(noise(3, 16))
    yield "opencv-rgba16.tif", write(noise(4, 16))
    yield "opencv-grey16.tif", write(noise(1, 16))


def turned_files() -> Iterator[tuple[str, Save]]:
    """Every EXIF orientation in every format that can state one."""
    options: dict[str, dict[str, Any]] = {
        "jpg": {"quality": 95},
        "png": {},
        "webp": {"lossless": True},
        "avif": {},
        "tif": {},
    }
    for orientation in range(10):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        for ending, more in options.items():
            if ending == "tif" and orientation in range(5, 9):
                continue  # OpenCV 4.14 and 5.0 read none of these.

            def write(path: Path, exif: Image.Exif = exif, more: dict[str, Any] = more) -> None:
                smooth().save(path, exif=exif, **more)

            yield f"turned{orientation}.{ending}", write


def jpeg_files() -> Iterator[tuple[str, Save]]:
    """JPEGs of every subsampling and colour space."""
    options: dict[str, dict[str, Any]] = {
        "420": {"subsampling": 2},
        "422": {"subsampling": 1},
        "444": {"subsampling": 0},
        "rough": {"quality": 20},
        "progressive": {"progressive": True},
        "rgb": {"keep_rgb": True},
        "restart": {"restart_marker_blocks": 3},
    }
    for kind, image in {"smooth": smooth(), "noise": Image.fromarray(noise(3))}.items():
        for name, more in options.items():
            yield f"{kind}-{name}.jpg", partial(image.save, **more)
        yield f"{kind}-grey.jpg", image.convert("L").save
        yield f"{kind}-cmyk.jpg", partial(image.convert("CMYK").save, quality=95)
    yield (
        "two.mpo",
        lambda path: smooth().save(path, append_images=[smooth()], save_all=True),
    )


FILES: dict[str, Save] = dict(
    [*png_files(), *pillow_files(), *opencv_files(), *tiff_files(), *turned_files(), *jpeg_files()]
)
