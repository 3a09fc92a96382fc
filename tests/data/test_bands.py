"""The channels of PNG, TIFF and `.npy` are read as they are stored, none of them blended."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from yqc.data import letterbox, read_image
from yqc.data.files import list_images
from yqc.data.matching import fit_channels
from yqc.data.pixels import find_frame
from yqc.data.sets import Data, Split
from yqc.data.tiff import STARTS
from yqc.errors import DataError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (37, 53, 6), dtype=np.uint8)
WORDS = RNG.integers(0, 65536, (37, 53, 6), dtype=np.uint16)
Shape = Callable[[Path], None]


def bands(path: Path, channels: int) -> NDArray[np.uint8]:
    picture, size = read_image(path, channels)
    assert size == picture.size == (53, 37)
    assert (frame := find_frame(path)) is not None
    assert frame.size == size
    return np.asarray(picture)


def tiff(values: NDArray[np.generic], **how: int) -> bytes:
    """Write strips of ten rows by hand: Pillow writes at most four samples."""
    order, apart = "<>"[how.get("big", 0)], how.get("planes", 1) == 2
    strips = []
    for part in np.split(values, values.shape[2], 2) if apart else [values]:
        if how.get("predictor") == 2:
            part = np.concatenate((part[:, :1], np.diff(part, axis=1)), 1)  # noqa: PLW2901
        raw = part.astype(part.dtype.newbyteorder(order))  # type: ignore[arg-type]  # < or >
        strips += [raw[y : y + 10].tobytes() for y in range(0, 37, 10)]
    strips = [zlib.compress(s) for s in strips] if how.get("compression") == 8 else strips
    at = list(np.cumsum([8, *map(len, strips)]))
    tags = {
        256: [53], 257: [37], 258: [8 * values.dtype.itemsize] * values.shape[2],
        259: [how.get("compression", 1)], 262: [how.get("photometric", 1)], 273: at[:-1],
        277: [values.shape[2]], 278: [10], 279: [*map(len, strips)],
        284: [how.get("planes", 1)], 317: [how.get("predictor", 1)],
    }  # fmt: skip
    start = at[-1] + at[-1] % 2
    entries, more = struct.pack(f"{order}H", len(tags)), b""
    for tag, numbers in tags.items():
        data = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            where = start + 2 + 12 * len(tags) + 4 + len(more)
            data, more = struct.pack(f"{order}I", where), more + data
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + data
    head = STARTS[how.get("big", 0)] + struct.pack(f"{order}I", start)
    return head + b"".join(strips) + bytes(start - at[-1]) + entries + bytes(4) + more


def test_alpha_of_a_png_is_a_channel_like_others(tmp_path: Path) -> None:
    path, values = tmp_path / "x.png", BYTES[..., :4]
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(bands(path, 4), values)
    assert bands(path, 3).shape == (37, 53, 3)  # dropped, as cv2.imread drops it


def test_letterboxing_resizes_each_channel_alone_and_pads_all_with_114(tmp_path: Path) -> None:
    path, values = tmp_path / "x.png", BYTES[..., :4].copy()
    values[..., 3] = 0  # an image that is blended with alpha would be black
    Image.fromarray(values).save(path)
    pixels, place = letterbox(read_image(path, 4)[0], (64, 64))
    assert pixels.shape == (4, 64, 64)
    assert place.dy > 0
    assert (pixels[:, 0] == 114).all()
    for channel, plane in enumerate(pixels):
        grey = Image.fromarray(np.ascontiguousarray(values[..., channel]))
        np.testing.assert_array_equal(plane, letterbox(grey, (64, 64))[0][0])


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGBA", "CMYK"])
def test_a_tiff_of_pillow(tmp_path: Path, mode: str, compression: str | None) -> None:
    path, values = tmp_path / "x.tif", BYTES[..., :4]
    Image.frombytes(mode, (53, 37), values.tobytes()).save(path, compression=compression)
    np.testing.assert_array_equal(bands(path, 4), values)


@pytest.mark.parametrize("values", [BYTES, WORDS], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("big", [0, 1], ids=["little", "big"])
@pytest.mark.parametrize("compression", [1, 8], ids=["plain", "deflated"])
@pytest.mark.parametrize("predictor", [1, 2], ids=["values", "differences"])
@pytest.mark.parametrize("planes", [1, 2], ids=["together", "planes"])
def test_a_tiff_of_six_samples(  # every form that TIFF 6.0 has for them
    tmp_path: Path,
    values: NDArray[np.generic],
    big: int,
    compression: int,
    predictor: int,
    planes: int,
) -> None:
    path = tmp_path / "x.tiff"
    form = {"big": big, "compression": compression, "predictor": predictor, "planes": planes}
    path.write_bytes(tiff(values, **form))
    want = values if values is BYTES else WORDS >> 8
    np.testing.assert_array_equal(bands(path, 6), want)


def test_a_band_a_page_as_ultralytics_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    pages = [Image.fromarray(np.ascontiguousarray(BYTES[..., i])) for i in range(6)]
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw")
    np.testing.assert_array_equal(bands(path, 6), BYTES)


@pytest.mark.parametrize("values", [BYTES, WORDS], ids=["8 bits", "16 bits"])
def test_an_array(tmp_path: Path, values: NDArray[np.generic]) -> None:
    path = tmp_path / "x.npy"
    np.save(path, values)
    np.testing.assert_array_equal(bands(path, 6), values if values is BYTES else WORDS >> 8)
    np.save(path, values[..., 0])
    grey = BYTES[..., 0] if values is BYTES else (WORDS >> 8)[..., 0]
    np.testing.assert_array_equal(bands(path, 1), grey)
    np.testing.assert_array_equal(bands(path, 3), np.stack([grey] * 3, -1))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (BYTES.astype(np.float32), "float32; an image is uint8"),
        (BYTES[0, 0], "shape"),
        (np.array(["a"], dtype=object), "no array of numbers"),
    ],
)
def test_an_array_that_is_no_image(tmp_path: Path, values: NDArray[np.generic], why: str) -> None:
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match=why):
        read_image(tmp_path / "x.npy", 6)


@pytest.mark.parametrize(("ending", "channels"), [("png", 6), ("tif", 4), ("npy", 3)])
def test_another_number_of_channels_names_both(tmp_path: Path, ending: str, channels: int) -> None:
    path = tmp_path / f"x.{ending}"
    if ending == "png":
        Image.fromarray(BYTES[..., :4]).save(path)
    elif ending == "tif":
        path.write_bytes(tiff(BYTES))
    else:
        np.save(path, BYTES)
    has = 4 if ending == "png" else 6
    with pytest.raises(DataError, match=f"it has {has} channels, and the model takes {channels}"):
        read_image(path, channels)


def test_a_turned_png_is_upright_in_all_channels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(BYTES[..., :4])).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(bands(tmp_path / "x.png", 4), BYTES[..., :4])


def test_the_cache_of_ultralytics_is_no_second_image(tmp_path: Path) -> None:
    Image.fromarray(BYTES[..., :3]).save(tmp_path / "a.jpg")
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", BYTES)
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.npy"]


@pytest.mark.parametrize(("said", "takes", "fits"), [(4, 4, True), (1, 3, True), (4, 3, False)])
def test_channels_of_the_yaml_must_be_the_models(said: int, takes: int, fits: bool) -> None:
    data = Data("yolo", Path("d.yaml"), ("a",), Split("train", ()), Split("val", ()), said)
    if not fits:
        with pytest.raises(DataError, match=r"says channels: 4, and the model takes 3"):
            fit_channels(data, takes)
        return
    warned = fit_channels(data, takes).warnings
    assert list(map(str, warned)) == [
        f"d.yaml says channels: {said}, and the model takes 3: images are read as colour"
    ] * (said != takes)
