"""Batches depend on the seed and the step alone, and memory is bounded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yqc.data import Picture
from yqc.errors import DataError
from yqc.training import augment
from yqc.training.images import TrainingImages


def test_a_batch_depends_on_seed_and_step_only(pictures: list[Path]) -> None:
    one, other = (TrainingImages(pictures, (16, 24), seed=3) for _ in range(2))
    stream = other.batches(4)
    batches = [next(stream) for _ in range(3)]
    assert batches[0].shape == (4, 3, 16, 24)
    assert batches[0].dtype == np.uint8
    np.testing.assert_array_equal(one.batch(2, 4), batches[2])
    np.testing.assert_array_equal(next(one.batches(4, first=1)), batches[1])
    assert (TrainingImages(pictures, (16, 24), seed=4).batch(2, 4) != batches[2]).any()
    stream.close()


def test_many_threads_make_the_same_images(pictures: list[Path]) -> None:
    one, many = (TrainingImages(pictures, (16, 16), workers=n).batches(8) for n in (1, 4))
    for _ in range(3):
        np.testing.assert_array_equal(next(one), next(many))
    one.close()
    many.close()


def test_every_epoch_goes_through_all_images_in_an_order_of_its_own(pictures: list[Path]) -> None:
    data = TrainingImages(pictures, (16, 16))
    assert sorted(data.order(0)) == sorted(data.order(1)) == list(range(6))
    assert data.order(0) != data.order(1)


def test_images_are_kept_within_the_memory_and_no_larger_than_needed(
    pictures: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "large.jpg"
    Image.new("RGB", (640, 480), (200, 10, 10)).save(path)
    data = TrainingImages([*pictures, path], (16, 16), memory=3 * 24 * 18)
    image = data.image(path)
    assert image is not None
    assert image.size == (24, 18)
    assert data.image(path) is image
    first = data.image(pictures[0])
    assert first is not None
    assert data.image(pictures[0]) is not first


def test_an_unreadable_image_is_replaced_and_named(pictures: list[Path]) -> None:
    pictures[2].write_bytes(b"no image")
    data = TrainingImages(pictures, (16, 16))
    for step in range(3):
        data.batch(step, 4)
    assert list(data.unreadable) == [pictures[2]]


def test_grey_images_have_one_channel_that_is_augmented_too(pictures: list[Path]) -> None:
    data = TrainingImages(pictures, (16, 24), channels=1)
    batch = data.batch(0, 32)
    assert batch.shape == (32, 1, 16, 24)
    assert data.plain(3).shape == (3, 1, 16, 24)
    assert len({image.tobytes() for image in batch}) > 12, "some at other scales and brightnesses"


def test_too_few_images_are_an_error(pictures: list[Path]) -> None:
    with pytest.raises(DataError, match="needs at least 4 images and 3 are given"):
        TrainingImages(pictures[:3], (16, 16))
    for path in pictures[:3]:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3 of 6 cannot be read \(.*0.png|1.png|2.png"):
        TrainingImages(pictures, (16, 16)).batch(0, 32)


def test_plain_images_are_letterboxed(pictures: list[Path]) -> None:
    plain = TrainingImages(pictures, (16, 16)).plain(6)
    assert plain.shape == (6, 3, 16, 16)
    assert (plain[:, :, 0] == 114).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_mosaic_covers_its_centre_and_the_rest_is_grey(seed: int) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    images: list[Picture] = [Image.new("RGB", (32, 32), c) for c in colours]
    whole = augment.make_mosaic(images, (64, 64), np.random.default_rng(seed))
    found = {tuple(c) for c in whole.reshape(-1, 3).tolist()}
    assert set(colours) <= found <= {*colours, (114, 114, 114)}


def test_a_placed_image_keeps_its_aspect_and_does_not_touch_the_rest() -> None:
    canvas = np.zeros((20, 20, 3), np.uint8)
    image = Image.new("RGB", (10, 5), (9, 9, 9))
    augment.paste(canvas, image, 2.0, -4.0, 6.0, (0, 0, 20, 12))
    assert np.argwhere(canvas[..., 0]).min(0).tolist() == [6, 0]
    assert np.argwhere(canvas[..., 0]).max(0).tolist() == [11, 15]


def test_an_image_outside_its_window_is_not_drawn() -> None:
    canvas = np.zeros((8, 8, 3), np.uint8)
    augment.paste(canvas, Image.new("RGB", (4, 4), (9, 9, 9)), 1.0, 9.0, 0.0, (0, 0, 8, 8))
    assert not canvas.any()


def test_recolouring_keeps_grey_grey() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    changed = augment.recolour(grey, np.random.default_rng(1))
    assert (changed == changed[..., :1]).all()
    assert changed[0, 0, 0] != 100


def test_most_images_are_as_they_are_or_mirrored(pictures: list[Path]) -> None:
    data = TrainingImages(pictures, (16, 16), seed=1)
    plain = data.plain(6)
    known = {p.tobytes() for images in (plain, plain[..., ::-1]) for p in images}
    batch = data.batch(0, 64)
    found = [image.tobytes() in known for image in batch]
    assert sum(found) == pytest.approx(64 * augment.PLAIN, abs=8)
    assert len({image.tobytes() for image in batch if image.tobytes() in known}) == 12


def test_a_classifier_is_trained_on_the_centres_of_images(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 16:44] = 255
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.fromarray(wide).save(path)
    cropped = TrainingImages(paths, (16, 16), crop=True)
    assert (cropped.plain(2) == 255).all()
    plain = [b for b in (cropped.batch(step, 1) for step in range(12)) if (b == 255).all()]
    assert len(plain) >= 6
    whole = TrainingImages(paths, (16, 16))
    assert (whole.plain(1) == 0).any()
