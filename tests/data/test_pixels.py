"""Pixels against OpenCV's, for every format and mode; what is refused; memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

cv2 = pytest.importorskip("cv2")

from tests.data.pictures import FILES, ORIENTATION, noise, png, smooth, tiff  # noqa: E402
from yqc.data import formats, pixels  # noqa: E402
from yqc.data.pixels import Frame, half_of_huge, read_frame, read_image  # noqa: E402
from yqc.errors import DataError  # noqa: E402


def assert_as_opencv(path: Path, channels: int, tolerance: int = 0) -> None:
    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
    want = cv2.imread(str(path), flag)
    assert want is not None, f"OpenCV does not read {path.name}"
    want = want[..., ::-1] if channels == 3 else want
    image, size = read_image(path, channels)
    assert isinstance(image, Image.Image)
    assert image.mode == ("RGB" if channels == 3 else "L")
    got = np.asarray(image)
    assert got.shape == want.shape
    assert np.abs(got.astype(int) - want).max() <= tolerance
    assert size == image.size == read_frame(path).size


def test_there_are_modes_enough() -> None:
    assert len(FILES) >= 100


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", FILES)
def test_pixels_are_opencvs(tmp_path: Path, name: str, channels: int) -> None:
    path = tmp_path / name
    FILES[name](path)
    assert_as_opencv(path, channels, tolerance=int(name.endswith((".jpg", ".mpo"))))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([(1, 0), (3, 2), (2, 4), (4, 6)]),
    st.sampled_from([8, 16]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 99),
    st.sampled_from([3, 1]),
)
def test_pixels_of_any_png_are_opencvs(
    tmp_path: Path,
    kind: tuple[int, int],
    bits: int,
    size: tuple[int, int],
    seed: int,
    channels: int,
) -> None:
    path = tmp_path / "any.png"
    path.write_bytes(png(noise(kind[0], bits, size, seed), bits, kind[1]))
    assert_as_opencv(path, channels)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["jpg", "png", "webp"]),
    st.integers(0, 9),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([3, 1]),
)
def test_pixels_of_any_turned_photograph_are_opencvs(
    tmp_path: Path, ending: str, orientation: int, size: tuple[int, int], channels: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"any.{ending}"
    smooth(size).save(path, exif=exif, lossless=ending == "webp")
    assert_as_opencv(path, channels, tolerance=int(ending == "jpg"))


def test_a_turn_in_xmp_alone_turns_nothing(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    smooth().save(tmp_path / "x.jpg", xmp=xmp)
    assert_as_opencv(tmp_path / "x.jpg", 3, tolerance=1)


def test_a_broken_exif_block_turns_nothing(tmp_path: Path) -> None:
    smooth().save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0")
    assert_as_opencv(tmp_path / "x.jpg", 3, tolerance=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_image(tmp_path: Path, orientation: int) -> None:
    values = np.zeros((30, 40, 3), np.uint8)
    values[4:9, 20:33] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(values).save(tmp_path / "x.png", exif=exif)
    frame = read_frame(tmp_path / "x.png")
    assert frame.stored == (40, 30)
    left, top, width, height = map(int, frame.turn_box((20, 4, 13, 5)))
    upright = np.asarray(read_image(tmp_path / "x.png")[0])
    assert upright.shape[:2] == frame.size[::-1]
    assert upright[top : top + height, left : left + width].min() == 255
    assert (upright == 255).sum() == 3 * 13 * 5


def refuse(path: Path, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_image(path)


def test_what_has_no_8_bits_is_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.ones((4, 4), np.int32)).save(tmp_path / "i.tif")
    refuse(tmp_path / "f.tif", "mode F")
    refuse(tmp_path / "i.tif", "mode I")


def test_16_bits_in_planes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(tiff(noise(3, 16), "<", 2, planes=True))
    assert cv2.imread(str(tmp_path / "x.tif")) is not None
    refuse(tmp_path / "x.tif", "16 bits in separate planes")


@pytest.mark.parametrize("ending", ["eps", "ico", "pcx", "tga", "sgi", "dds"])
def test_a_format_that_opencv_does_not_read_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    smooth().save(path)
    assert cv2.imread(str(path)) is None
    refuse(path, "no image format")


def test_jpeg_2000_is_refused(tmp_path: Path) -> None:
    smooth().save(tmp_path / "x.jp2")
    refuse(tmp_path / "x.jp2", "no image format")


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    refuse(tmp_path / "x.png", "no regular file")
    refuse(Path("/dev/zero"), "no regular file")
    refuse(tmp_path, "no regular file")


def test_a_torn_file_is_not_read(tmp_path: Path) -> None:
    for ending in ("png", "jpg", "tif", "webp", "bmp"):
        path = tmp_path / f"x.{ending}"
        smooth().save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(Exception):  # noqa: B017, PT011  # Pillow's decoders raise anything
            read_image(path)


def test_more_pixels_than_opencv_reads_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth().save(tmp_path / "x.png")
    monkeypatch.setattr(formats, "MOST", 37 * 53 - 1)
    refuse(tmp_path / "x.png", "53 x 37 pixels")


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_huge_jpeg_is_halved_where_that_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    smooth().resize((400, 301)).save(tmp_path / "x.jpg", exif=exif, quality=95)
    size = (400, 301) if orientation == 1 else (301, 400)
    whole, _ = read_image(tmp_path / "x.jpg", enough=half_of_huge((32, 32)))
    assert whole.size == size
    monkeypatch.setattr(pixels, "HUGE", 400 * 301 - 1)
    half, stated = read_image(tmp_path / "x.jpg", enough=half_of_huge((32, 32)))
    assert (half.size, stated) == ((-(-size[0] // 2), -(-size[1] // 2)), size)
    small = [np.asarray(i.resize((30, 30), Image.Resampling.BILINEAR), int) for i in (whole, half)]
    assert np.abs(small[0] - small[1]).max() <= 2
    assert read_image(tmp_path / "x.jpg", enough=half_of_huge((64, 64)))[0].size == size


def test_a_frame_without_a_turn_keeps_boxes() -> None:
    assert Frame((4, 3), (4, 3), 1).turn_box((1, 2, 3, 4)) == (1, 2, 3, 4)


MEASURE = """
import resource, sys
from pathlib import Path
from yqc.data import Placed, read_images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(image,) = read_images([Path(sys.argv[1])], (640, 640))
assert isinstance(image, Placed) and image.size == (12000, 9000), image
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_jpeg_of_108_megapixels_takes_little_memory(tmp_path: Path) -> None:
    grey = Image.linear_gradient("L").resize((12000, 9000))
    Image.merge("RGB", [grey] * 3).save(tmp_path / "x.jpg", quality=80)
    run = [sys.executable, "-W", "error", "-c", MEASURE, str(tmp_path / "x.jpg")]
    added = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)  # noqa: S603
    unit = 1 if sys.platform == "darwin" else 1024
    assert added * unit < 1.2 * 3 * 12000 * 9000
