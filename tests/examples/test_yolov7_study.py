"""The study of schemes runs on any checkpoint and prints a row a scheme."""

import runpy
import sys
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "examples" / "yolov7_study.py"


def test_prints_a_row_a_scheme(
    checkpoint: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = "--kinds symmetric codebook --granularities channel block --bits 4 --calib-images 8"
    monkeypatch.setattr(
        sys, "argv", ["study", str(checkpoint), "--data", str(data), *options.split()]
    )
    runpy.run_path(str(STUDY), run_name="__main__")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][:3] == ["scheme", "granularity", "bits"]
    assert rows[1][:2] == ["float", "32"]
    assert [r[:4] for r in rows[2:]] == [
        ["symmetric", "channel", "4", "gptq"],
        ["symmetric", "block", "4", "gptq"],
        ["codebook", "channel", "4", "gptq"],
        ["codebook", "block", "4", "gptq"],
    ]
    assert 1.5 < float(rows[2][-1].rstrip("x")) < 4
