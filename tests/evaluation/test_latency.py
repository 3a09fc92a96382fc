"""Paired timing."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from yqc.errors import CheckpointError
from yqc.evaluation import Boxes, OnnxModel, latency
from yqc.evaluation.latency import FEWEST, FEWEST_SLOW, MOST, ratio_intervals

OUTPUT = np.zeros((1, 2, 6), np.float32)
Clock = Callable[[dict[str, list[float]]], list[str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let runs of files take given seconds, over and over; processor time is half of it."""

    def start(seconds: dict[str, list[float]]) -> list[str]:
        ran: list[str] = []
        now = [0.0]

        def run(self: OnnxModel, images: NDArray[np.floating]) -> NDArray[np.floating]:
            assert images.shape == (1, 3, 64, 64)
            ran.append(self.path.stem)
            own = seconds[self.path.stem]
            now[0] += own[(len(ran) - 1) // 2 % len(own)]
            return images

        module = import_module("yqc.evaluation.latency")
        monkeypatch.setattr(OnnxModel, "run_prepared", run)
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
        monkeypatch.setattr(module, "process_time", lambda: now[0] / 2)
        return ran

    return start


def test_files_take_turns_and_slower_ones_have_lower_ratios(
    remember: Callable[..., Path], clock: Clock
) -> None:
    warm_up = [50, 50, 50]
    ran = clock({"a": [*warm_up, 1, 10, 1, 10, 1], "b": [*warm_up, 2, 20, 2, 40, 4]})
    a, b = remember(OUTPUT, name="a.onnx"), remember(OUTPUT, name="b.onnx")
    result = latency([a, b], runs=5, threads=1)
    assert ran == list("abba" * 4)
    assert result.ms == (1000, 4000)
    assert result.cpu_ms == (500, 2000)
    assert result.ratios == result.cpu_ratios == (1, 0.25)  # The quotient of the medians.
    assert (result.p10, result.p90) == ((1000, 2000), (10000, 32000))
    assert result.intervals[0] == (1, 1)
    low, high = result.intervals[1]
    assert low <= 0.25 < high <= 0.5
    assert (result.paths, result.rounds, result.threads) == ((a, b), 5, 1)
    assert (result.runtime, result.version) == (
        "onnxruntime",
        import_module("onnxruntime").__version__,
    )


@pytest.mark.parametrize(
    ("a", "b", "rounds"),
    [
        ([0.001], [0.002], FEWEST),  # The same every time: the fewest rounds are enough.
        ([0.001, 0.002], [0.001, 0.002], FEWEST),  # Slow rounds are slow for both.
        ([0.001] * 7 + [0.002] * 6, [0.002] * 5 + [0.001] * 6, MOST),  # Never settles.
        ([5.0, 1.0], [1.0, 5.0], FEWEST_SLOW),  # Time is up.
    ],
)
def test_goes_on_until_the_spread_or_a_limit_is_reached(
    remember: Callable[..., Path], clock: Clock, a: list[float], b: list[float], rounds: int
) -> None:
    clock({"a": a, "b": b})
    files = [remember(OUTPUT, name=f"{name}.onnx") for name in "ab"]
    assert latency(files, threads=1).rounds == rounds


def test_intervals_hold_the_true_ratio_and_are_paired() -> None:
    """Of 200 samples, about 190 hold the ratio; what slows both files down widens nothing."""
    rng = np.random.default_rng(0)
    hits, widths = 0, []
    for _ in range(200):
        noise, load = rng.normal(1, 0.03, (30, 2)), rng.uniform(1, 1.5, (30, 1))
        (_, (low, high)) = ratio_intervals(np.array([[20, 10]]) * noise)
        hits += low <= 2 <= high
        (_, (low, high)) = ratio_intervals(np.array([[20, 10]]) * load)
        widths.append(high - low)
    assert 180 <= hits <= 199
    assert max(widths) == pytest.approx(0, abs=1e-9)


def test_times_real_runs(remember: Callable[..., Path]) -> None:
    small, big = (remember(OUTPUT, size=(side, side), name=f"{side}.onnx") for side in (32, 1024))
    result = latency([small, big], runs=5, threads=1)
    assert 0 < result.ms[0] < result.ms[1]
    assert 0 < result.cpu_ms[0] < result.cpu_ms[1]
    assert min(result.load_ms) > 0
    assert result.ratios[0] == 1
    assert result.ratios[1] < 1
    with pytest.raises(CheckpointError, match="takes images of 32x32 only"):
        latency([small], imgsz=(64, 64))


def test_end_to_end_takes_the_pictures_in_turn(
    remember: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every round has its picture; what the file finds in it comes out in the picture's pixels."""
    module = import_module("yqc.evaluation.latency")
    box = np.array([[[16, 16, 32, 32, 0.9, 0]]], np.float32)
    other = np.array([[[16, 16, 32, 32, 0.9, 1]]], np.float32)
    file = remember(np.concatenate([box, other]), np.array([0, 0.8], np.float32))
    seen: list[Boxes] = []
    suppress = module.find_objects
    monkeypatch.setattr(module, "find_objects", lambda *a: seen.append(suppress(*a)))
    pictures = [Image.new("RGB", (128, 128)), Image.new("L", (64, 64), 255)]
    latency([file], runs=2, warm_up=0, threads=1, pictures=pictures)
    assert [found.classes.tolist() for found in seen] == [[0], [1]]
    assert [found.xyxy[0].tolist() for found in seen] == [[32, 32, 64, 64], [16, 16, 32, 32]]
