"""Paired timing."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from yqc.errors import CheckpointError
from yqc.evaluation import OnnxModel, latency

OUTPUT = np.zeros((1, 2, 6), np.float32)


def test_files_take_turns_and_slower_ones_have_lower_ratios(
    remember: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    clock = [0.0]
    warm_up = [50, 50, 50]
    seconds = {"a": [*warm_up, 1, 10, 1, 10, 1], "b": [*warm_up, 2, 20, 2, 40, 4]}

    def run(self: OnnxModel, images: NDArray[np.floating]) -> NDArray[np.floating]:
        assert images.shape == (1, 3, 64, 64)
        ran.append(self.path.stem)
        turn = (len(ran) - 1) // 2
        clock[0] += seconds[self.path.stem][turn]
        return images

    monkeypatch.setattr(OnnxModel, "run_prepared", run)
    monkeypatch.setattr(import_module("yqc.evaluation.latency"), "perf_counter", lambda: clock[0])
    a, b = remember(OUTPUT, name="a.onnx"), remember(OUTPUT, name="b.onnx")
    result = latency([a, b], runs=5, threads=1)
    assert ran == list("abba" * 4)
    assert result.ms == (1000, 4000)
    assert result.ratios == (1, 0.5)  # Pair by pair, not 1000 / 4000.
    assert (result.paths, result.runs, result.threads) == ((a, b), 5, 1)


def test_times_real_runs(remember: Callable[..., Path]) -> None:
    small, big = (remember(OUTPUT, size=(side, side), name=f"{side}.onnx") for side in (32, 1024))
    result = latency([small, big], runs=5, threads=1)
    assert 0 < result.ms[0] < result.ms[1]
    assert result.ratios[0] == 1
    assert result.ratios[1] < 1
    with pytest.raises(CheckpointError, match="takes images of 32x32 only"):
        latency([small], imgsz=(64, 64))
