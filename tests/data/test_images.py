"""Reading ahead: order, bounds, broken images; and the choice of calibration images."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yqc.data import (
    CalibrationImages,
    Placed,
    Split,
    Unreadable,
    letterbox,
    prefetch,
    read_image,
    read_images,
    to_float,
)
from yqc.errors import DataError

Write = Callable[..., Path]


def test_prefetch_keeps_order_and_bounds() -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        return i * i

    results = prefetch(work, range(20), ahead=3)
    for n, got in enumerate(results):
        assert got == n * n
        time.sleep(0.002)
        assert len(started) <= n + 1 + 3
    assert started == list(range(20))


def test_prefetch_reads_while_the_caller_works() -> None:
    ready = threading.Event()

    def work(i: int) -> int:
        if i == 1:
            ready.set()
        return i

    results = prefetch(work, range(9), ahead=2)
    next(results)
    assert ready.wait(10)


def test_prefetch_stops_when_the_reader_leaves() -> None:
    results = prefetch(str, range(10**9), ahead=2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("yqc-images")]


def test_prefetch_drops_what_is_not_begun_when_the_reader_leaves() -> None:
    started: list[int] = []

    def work(i: int) -> None:
        started.append(i)
        time.sleep(0.05)

    results = prefetch(work, range(30), ahead=20)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(started) < 10


def test_prefetch_hands_errors_on() -> None:
    results = prefetch(lambda i: 1 // i, [1, 0, 1], ahead=1)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_reads_images_and_names_those_it_cannot_read(picture: Write, tmp_path: Path) -> None:
    good = picture("good.png", (30, 20))
    torn, text, gone = tmp_path / "torn.png", tmp_path / "text.jpg", tmp_path / "gone.jpg"
    torn.write_bytes(good.read_bytes()[:300])
    text.write_text("no picture")
    got = list(read_images([torn, good, text, gone], (32, 64)))
    assert [type(one) for one in got] == [Unreadable, Placed, Unreadable, Unreadable]
    assert [one.index for one in got] == [0, 1, 2, 3]
    assert str(got[2]) == f"{text}: it is in no image format that is read here"
    image = got[1]
    assert isinstance(image, Placed)
    pixels, placement = letterbox(Image.open(good), (32, 64))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert (image.placement, image.size, image.path) == (placement, (30, 20), good)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_reads_any_mode_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new(mode, (16, 16), None).save(path)
    (image,) = read_images([path], (16, 16))
    assert isinstance(image, Placed)
    assert image.pixels.shape == (3, 16, 16)


def test_turns_images_by_their_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.new("RGB", (40, 20)).save(tmp_path / "x.jpg", exif=exif)
    (image,) = read_images([tmp_path / "x.jpg"], (32, 32))
    assert isinstance(image, Placed)
    assert image.size == (20, 40)


def test_a_model_of_one_channel_sees_grey(picture: Write) -> None:
    path = picture("x.png", (16, 16))
    (image,) = read_images([path], (16, 16), channels=1)
    assert isinstance(image, Placed)
    np.testing.assert_array_equal(image.pixels[0], np.asarray(read_image(path, 1)[0]))
    (other,) = read_images([path], (16, 16), channels=4)
    assert isinstance(other, Unreadable)
    assert other.why == "it has 3 channels, and the model takes 4"


@pytest.fixture
def split(picture: Write) -> Split:
    return Split("train", tuple(picture(f"{i}.png") for i in range(12)))


def test_calibration_images_are_a_seeded_choice(split: Split) -> None:
    def read(seed: int) -> list[bytes]:
        return [x.tobytes() for x in CalibrationImages(split, (32, 32), 9, seed)]

    first = read(0)
    assert (len(first), len(set(first))) == (9, 9)
    assert read(0) == first
    assert read(1) != first
    every = {to_float(letterbox(Image.open(p), (32, 32))[0]).tobytes() for p in split.images}
    assert set(first) < every


def test_calibration_images_can_be_read_again(split: Split) -> None:
    images = CalibrationImages(split, (32, 64), 99)
    assert len(images) == 12
    for _ in range(2):
        got = list(images)
        assert [(x.dtype.name, x.shape) for x in got] == [("float32", (1, 3, 32, 64))] * 12


def test_calibration_replaces_broken_images(split: Split) -> None:
    for path in split.images[:3]:
        path.write_bytes(b"")
    images = CalibrationImages(split, (32, 32), 9)
    assert len(list(images)) == 9
    assert {one.path for one in images.skipped} == set(split.images[:3])
    assert len(list(images)) == 9
    assert len(images.skipped) == 3


def test_calibration_refuses_too_few(split: Split) -> None:
    for path in split.images[:5]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"needs at least 8 images: .* 12 images, 5 of them unread"):
        list(CalibrationImages(split, (32, 32), 9))
    assert len(list(CalibrationImages(split, (32, 32), 4))) == 4
    with pytest.raises(DataError, match="the train split has 7 images"):
        CalibrationImages(Split("train", split.images[:7]), (32, 32), 128)
    with pytest.raises(DataError, match="needs at least 8 images: 'train' of d is gone"):
        CalibrationImages(Split("train", (), absent="'train' of d is gone"), (32, 32))


def read_all(paths: list[Path]) -> tuple[str, ...]:
    images = CalibrationImages(Split("train", tuple(paths)), (32, 32), 8)
    list(images)
    return images.complaints()


def test_calibration_images_that_differ_are_fine(split: Split) -> None:
    assert read_all(list(split.images[:8])) == ()


def test_says_that_all_calibration_images_are_alike(picture: Write, tmp_path: Path) -> None:
    first = picture("0.png")
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    for path in paths[1:]:
        path.write_bytes(first.read_bytes())
    assert read_all(paths) == ("all 8 calibration images are alike: ranges are those of one image",)


def test_says_how_many_calibration_images_are_black(split: Split) -> None:
    for path in split.images[:3]:
        Image.new("RGB", (40, 31), (8, 0, 3)).save(path)
    (said,) = read_all(list(split.images[:8]))
    assert said == "3 of the 8 calibration images are black"


def test_says_which_calibration_images_cannot_be_read(split: Split) -> None:
    split.images[0].write_bytes(b"")
    (said,) = read_all(list(split.images[:9]))
    assert said.startswith("1 calibration images could not be read, the first was ")
