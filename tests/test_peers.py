import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
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


def test_the_table_keeps_to_80_columns_and_names_what_is_missing(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    measured = {
        "map": 0.43456,
        "file_bytes": 146_123_456,
        "weight_bytes": 145_123_456,
        "onnxruntime_ms": 54.61,
        "onnxruntime_ratio": 1.0,
    }
    plain = peers.Row(
        "float",
        "float.onnx",
        seconds_process=113.21,
        seconds_cpu=226.55,
        seconds_step=101.15,
        peak_bytes=12_345_678_901,
        measured=measured,
    )
    broken = peers.Row("ort, decode out", "ort.onnx", error="ValueError: no [such] type")
    found = peers.Comparison(
        "yolov8n.pt", "d.yaml", [320, 256], 64, 30, {"yqc": "1"}, ["openvino"], [plain, broken]
    )
    peers.show(found)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "yolov8n.pt, 320 x 256 px, 64 calibration images of d.yaml"
    cells = [line.split() for line in lines]
    figures = ["0.4346", "146.12", "145.12", "1.00", "-", "113.2", "226.6", "101.2", "12346"]
    assert ["float", *figures] in cells
    assert "ort, decode out: ValueError: no [such] type" in lines
    assert "openvino is not installed; what needs it was skipped" in lines
