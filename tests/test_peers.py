import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import yqc
from yqc.data import load_data
from yqc.evaluation import OnnxModel

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("peers", monkeypatch)


def test_a_process_that_fails_says_why(peers: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(peers.PeerError, match=r"^KeyError: 'mend'$"):
        peers.run({"task": "mend"}, tmp_path / "x.onnx", quiet=True)


def test_the_tables_keep_to_80_columns_and_name_what_is_missing(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = {
        "map": 0.43456,
        "ms": 154.61,
        "ratio": 10.0,
        "interval": [9.98, 10.02],
        "cpu_ms": 153.21,
        "cpu_ratio": 10.1,
        "load_ms": 100.0,
        "db": 141.7,
        "found": 1112,
        "expected": 1113,
    }
    exact = run | {"db": None}
    measured = {
        "file_bytes": 146_123_456,
        "weight_bytes": 145_123_456,
        "runs": {"onnxruntime": run, "openvino": exact},
    }
    plain = peers.Row(
        "quantize_static",
        "float.onnx",
        seconds_process=113.21,
        seconds_cpu=226.55,
        seconds_step=101.15,
        peak_bytes=12_345_678_901,
        measured=measured,
    )
    broken = peers.Row("ort", "ort.onnx", error="ValueError: no [such] type")
    refused = peers.Row(
        "other", "other.onnx", measured={"runs": {"openvino": {"error": "it does not load."}}}
    )
    found = peers.Comparison(
        "yolov8n.pt", "d.yaml", [320, 256], 64, 16, 30, "f32", {"yqc": "1"}, ["nncf"],
        [plain, broken, refused],
    )  # fmt: skip
    peers.show(found)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "yolov8n.pt, 320 x 256 px, 64 calibration images of d.yaml"
    cells = [line.split() for line in lines]
    assert ["quantize_static", "146.12", "145.12", "113.2", "226.6", "101.2", "12346"] in cells
    times = ["0.4346", "154.6", "10.00", "9.98-10.02", "153.2", "10.10"]
    assert ["quantize_static", *times, "142", "1112/1113"] in cells
    assert ["quantize_static", *times, "inf", "1112/1113"] in cells
    assert {"in onnxruntime, f32", "in openvino, f32"} <= set(lines)
    assert "ort: ValueError: no [such] type" in lines
    assert "other in openvino: it does not load." in lines
    assert "nncf is not installed; what needs it was skipped" in lines


def test_a_file_is_checked_against_itself_run_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    """A runtime that computes something else is found by its noise and its detections."""
    tools = load("peer_tools", monkeypatch)
    path = tmp_path / "x.onnx"
    yqc.compile(checkpoint, "fuse", output=path, evaluate=False, html=False)
    split, size = load_data(data).val, (64, 64)
    model = OnnxModel(path, threads=1)
    good = tools._check(model, split, size, 2)
    assert good["db"] is None or good["db"] > 80
    assert good["found"] == good["expected"]

    right = model.run_prepared
    monkeypatch.setattr(
        model, "run_prepared", lambda images: tuple(1.1 * one for one in right(images))
    )
    assert 15 < tools._check(model, split, size, 2)["db"] < 25
