"""Files under OpenVINO: times, what nodes cost and compute in, and what is said without it."""

import json
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

import yqc
from tests.command import Run
from yqc.errors import YqcError
from yqc.evaluation import latency, open_file, openvino
from yqc.evaluation.profile import profile

needs_openvino = pytest.mark.skipif(
    not openvino.installed(), reason="needs OpenVINO: pip install yqc[clients]"
)


@pytest.fixture(scope="module")
def file(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "x.onnx"
    yqc.compile(
        checkpoint, "int8{float_inputs=0}", data=data, calib_images=4, target="openvino",
        output=path, evaluate=False, html=False,
    )  # fmt: skip
    return path


@needs_openvino
def test_times_files_in_pairs(file: Path) -> None:
    found = latency([file, file], threads=1, runs=3, runtime="openvino")
    assert len(found.ms) == 2
    assert min(found.ms) > 0
    assert found.ratios[0] == 1


@needs_openvino
def test_precision_is_openvinos_choice_unless_it_is_given(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[dict[str, object]] = []
    core = openvino._core(openvino._openvino())

    class Spy:
        read_model = core.read_model

        def compile_model(self, model: object, device: str, options: dict[str, object]) -> object:
            chosen.append(options)
            return core.compile_model(model, device, options)

    monkeypatch.setattr(openvino, "_core", lambda _: Spy())
    open_file(file, "openvino", threads=1)
    open_file(file, "openvino", threads=1, precision="f32")
    assert chosen == [
        {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1},
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        },
    ]


@needs_openvino
def test_finds_the_same_as_onnxruntime_and_reads_the_same_facts(file: Path) -> None:
    other = open_file(file, "openvino", threads=1)
    model = open_file(file, "onnxruntime", threads=1)
    for name in ("names", "channels", "batch", "imgsz", "recorded_imgsz"):
        assert getattr(other, name) == getattr(model, name)
    noise = np.random.default_rng(0).random((1, 3, *(model.imgsz or ())), dtype=np.float32)
    (want,), (got,) = model.run(noise), other.run(noise)
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


@needs_openvino
@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="of x86 CPUs only")
def test_kernels_are_told_apart_by_what_they_compute_in(file: Path) -> None:
    costs = profile(file, threads=1, runs=2, runtime="openvino")
    convolutions = [cost for cost in costs if cost.op == "Convolution"]
    assert len(convolutions) > 20
    in_float = [cost.name for cost in convolutions if cost.kind != "int8"]
    assert all("dfl" in name for name in in_float)
    assert any(cost.kind == "float" and cost.op != "Convolution" for cost in costs)
    assert [cost.ms for cost in costs] == sorted((cost.ms for cost in costs), reverse=True)


@needs_openvino
def test_any_batch_and_other_types_of_input_run(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    yqc.compile(
        checkpoint, "fuse", output=path, dynamic=True, evaluate=False, html=False,
        uint8_input=True,
    )  # fmt: skip
    assert latency([path], threads=1, runs=1, runtime="openvino", imgsz=(64, 64)).ms[0] > 0


@needs_openvino
def test_the_command_prints_both(file: Path, run: Run) -> None:
    asked = ("bench", file, "--runtime", "openvino", "--runs", 1, "--nodes", "-q")
    shown = run(*asked)
    assert shown.code == 0
    assert f"1 round in turn, 1 thread, openvino {openvino.installed_version()}," in shown.out
    assert "x Convolution" in shown.out
    found = json.loads(run(*asked, "--json").out)
    assert found["bench"]["runtime"] == "openvino"
    assert found["nodes"][str(file)]


def test_without_it_one_sentence_says_what_to_do(
    checkpoint: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("compile", checkpoint, "--passes", "fuse", "--no-eval", "--no-html", "-q", "-o", "x.onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not openvino.installed()
    done = run("bench", "x.onnx", "--runtime", "openvino", "-q")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "yqc: OpenVINO is not installed; pip install openvino, or leave --runtime out\n"
    )
    with pytest.raises(YqcError, match="OpenVINO is not installed"):
        profile(Path("x.onnx"), runtime="openvino")
