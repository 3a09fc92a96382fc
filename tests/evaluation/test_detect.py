"""Running over a split: back to image pixels, sizes, broken images, progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from yqc.data import Split
from yqc.errors import CheckpointError, DataError
from yqc.evaluation import OutputForm, detect
from yqc.progress import Advance

Floats = NDArray[np.float32]
MakeSplit = Callable[..., Split]

ROW = np.zeros((1, 9, 6), np.float32)
ROW[0, :2] = [[32, 32, 32, 16, 1.0, 0.9], [60, 32, 40, 60, 1.0, 0.8]]


class Constant:
    """A runner that answers every image alike and remembers what it was shown."""

    def __init__(self, output: Floats = ROW) -> None:
        self.output, self.shapes = output, list[tuple[int, ...]]()

    def run(self, images: Floats, /) -> tuple[Floats, ...]:
        assert images.dtype == np.float32
        self.shapes.append(images.shape)
        return (self.output,)


def test_boxes_are_in_pixels_of_the_image_and_within_it(split: MakeSplit) -> None:
    found = detect(Constant(), split((128, 64, []), (32, 64, [])), imgsz=(64, 64))
    # 128 x 64 is halved and starts at y = 16; 32 x 64 is not scaled and starts at x = 16.
    np.testing.assert_allclose(found.boxes[0].xyxy, [[32, 16, 96, 48], [80, 0, 128, 64]])
    np.testing.assert_allclose(found.boxes[1].xyxy, [[0, 24, 32, 40], [24, 2, 32, 62]])
    np.testing.assert_allclose(found.boxes[0].scores, [0.9, 0.8])


def test_the_size_comes_from_the_caller_the_file_or_its_metadata(
    remember: Callable[..., Path], split: MakeSplit
) -> None:
    one = split((20, 20, []))
    runner = Constant()
    detect(runner, one)
    detect(runner, one, imgsz=(32, 96))
    assert runner.shapes == [(1, 3, 640, 640), (1, 3, 32, 96)]
    fixed = remember(ROW, size=(32, 64))
    assert detect(fixed, one).boxes[0].xyxy[0, 0] == pytest.approx(0)
    with pytest.raises(CheckpointError, match="takes images of 32x64 only, not of 64x64"):
        detect(fixed, one, imgsz=(64, 64))
    free = remember(ROW, size=None, metadata={"imgsz": "[64, 64]"})
    # A 20 x 20 image fills 64 x 64 at scale 3.2: the box from x = 16 starts at 5.
    assert detect(free, one).boxes[0].xyxy[0, 0] == pytest.approx(5)


def test_runs_several_images_at_a_time_and_tells_them_apart(split: MakeSplit) -> None:
    class Brightness(Constant):
        def run(self, images: Floats, /) -> tuple[Floats, ...]:
            self.shapes.append(images.shape)
            rows = np.repeat(ROW, len(images), axis=0)
            rows[:, 0, 4] = images.mean((1, 2, 3))
            return (rows,)

    images = split((64, 64, []), None, (64, 32, []), (32, 64, []), (16, 64, []))
    runner = Brightness()
    found = detect(runner, images, imgsz=(64, 64), batch=3)
    assert runner.shapes == [(3, 3, 64, 64), (1, 3, 64, 64)]
    assert list(found.boxes) == [0, 2, 3, 4]
    assert [one.index for one in found.skipped] == [1]
    alone = detect(Brightness(), images, imgsz=(64, 64))
    for index, boxes in alone.boxes.items():
        np.testing.assert_array_equal(found.boxes[index].scores, boxes.scores)
        np.testing.assert_array_equal(found.boxes[index].xyxy, boxes.xyxy)


def test_skips_and_names_broken_images(split: MakeSplit) -> None:
    found = detect(Constant(), split(None, (64, 64, []), None), imgsz=(64, 64))
    assert list(found.boxes) == [1]
    assert [one.index for one in found.skipped] == [0, 2]
    with pytest.raises(DataError, match=r"no image of the val split can be read; .*0\.png"):
        detect(Constant(), split(None), imgsz=(64, 64))
    with pytest.raises(DataError, match="'val' is gone"):
        detect(Constant(), Split("val", (), absent="'val' is gone"), imgsz=(64, 64))


def test_names_the_file_that_is_no_detector(
    remember: Callable[..., Path], split: MakeSplit
) -> None:
    path = remember(np.zeros((1, 300, 5), np.float32))
    with pytest.raises(CheckpointError, match=r"remember\.onnx cannot be evaluated: its output"):
        detect(path, split((64, 64, [])))
    path = remember(np.zeros((1, 9, 5), np.float32))
    with pytest.raises(CheckpointError, match="is not that of a decoded yolov5 detector"):
        detect(path, split((64, 64, [])), form=OutputForm("yolov5"))


def test_other_classes_than_the_data_stop_it_at_the_first_image(split: MakeSplit) -> None:
    runner, images = Constant(), split((64, 64, []), (64, 64, []))
    with pytest.raises(DataError, match="the model predicts 1 classes but the data has 2"):
        detect(runner, images, imgsz=(64, 64), nc=2)
    assert len(runner.shapes) == 1
    assert detect(runner, images, imgsz=(64, 64), nc=1).head.nc == 1


def test_measures_time_and_shows_progress(split: MakeSplit) -> None:
    class Watched:
        steps: list[int] = []  # noqa: RUF012  # read once

        @contextmanager
        def task(self, label: str, total: int) -> Iterator[Advance]:
            assert (label, total) == ("evaluating", 3)
            yield self.steps.append

        def note(self, message: str) -> None:
            raise AssertionError(message)

    found = detect(
        Constant(), split((64, 64, []), None, (9, 9, [])), imgsz=(64, 64), progress=Watched()
    )
    assert Watched.steps == [1, 1, 1]
    assert 0 < found.seconds_session < found.seconds_total
