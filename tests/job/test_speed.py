"""The latency of a compile: in the target's runtime or not at all."""

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import yqc
from tests.command import Run
from yqc.evaluation import Timing, openvino
from yqc.job import measure
from yqc.job.speed import as_latency
from yqc.report import Report
from yqc.targets import TargetName

TIMING = Timing(
    paths=(Path("a.onnx"), Path("b.onnx")),
    runtime="onnxruntime",
    version="1.32.0",
    threads=1,
    wall=np.array([[20.0, 10.0], [22.0, 10.0], [21.0, 10.0]]),
    processor=np.ones((3, 2)),
    load_ms=(100.0, 150.0),
)


def test_the_report_takes_over_what_was_timed() -> None:
    latency = as_latency(TIMING)
    assert (latency.float_ms, latency.compiled_ms, latency.ratio) == (21, 10, 2.1)
    assert (latency.p10[1], latency.p90[1], latency.load_ms) == (10, 10, (100, 150))
    assert latency.interval[0] <= 2.1 <= latency.interval[1]
    assert (latency.runtime, latency.rounds, latency.threads) == ("onnxruntime", 3, 1)


def compile_for(target: TargetName, checkpoint: Path, output: Path) -> Report:
    return yqc.compile(checkpoint, "fuse", target=target, output=output, html=False).report


def test_what_cannot_run_here_is_not_timed(checkpoint: Path, tmp_path: Path) -> None:
    report = compile_for("tensorrt", checkpoint, tmp_path / "cells.onnx")
    assert report.latency is None
    (said,) = report.warnings
    assert said.startswith("latency is not measured: tensorrt does not run here; there, trtexec ")
    assert "--onnx=FILE.onnx" in said


@pytest.mark.skipif(not openvino.installed(), reason="needs OpenVINO: pip install yqc[clients]")
def test_a_target_is_timed_in_its_runtime(checkpoint: Path, tmp_path: Path) -> None:
    latency = compile_for("openvino", checkpoint, tmp_path / "x.onnx").latency
    assert latency is not None
    assert (latency.runtime, latency.version) == ("openvino", openvino.installed_version())


def test_without_the_runtime_nothing_is_timed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    report = compile_for("openvino", checkpoint, tmp_path / "x.onnx")
    assert report.latency is None
    assert report.warnings == (
        "latency is not measured: OpenVINO is not installed; pip install openvino",
    )


def test_latency_is_left_out_on_demand(checkpoint: Path, data: Path, run: Run) -> None:
    asked = ("compile", checkpoint, "--passes", "fuse", "--no-html", "-o", "x.onnx")
    done = run(*asked, "--data", data, "--no-latency")
    assert "mAP, 3 images" in done.out
    assert "latency               not measured" in done.out
    left = run(*asked, "--no-eval")
    assert "--no-eval: neither accuracy nor latency will be measured\n" in left.err
    assert "latency               not measured" in left.out


@pytest.mark.parametrize("decode", ["raw", "full"])
def test_the_times_of_a_file_without_the_decoding_are_said_to_be_of_less_work(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decode: Literal["raw", "full"],
) -> None:
    monkeypatch.setattr(measure, "time_compiled", lambda *_, **__: (as_latency(TIMING), ()))
    output = tmp_path / "x.onnx"
    found = yqc.compile(checkpoint, "fuse", decode=decode, output=output, html=False)
    assert (measure.UNEQUAL_WORK in found.report.warnings) == (decode == "raw")
    assert found.report.latency is not None
