"""examples/from_python.py runs as written."""

import importlib.util
from pathlib import Path

import pytest


def test_it_shows_what_there_is(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(__file__).parents[2] / "examples" / "from_python.py"
    spec = importlib.util.spec_from_file_location("from_python", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(str(checkpoint), str(data), tmp_path)
    shown = capsys.readouterr().out
    assert "int8.onnx" in shown
    assert "calib_images must be a whole number above 0, not -3" in shown
