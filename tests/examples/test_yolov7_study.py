"""The study of schemes: a row a cell, in files too; what was measured is not measured again."""

import csv
import json
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_measures_cells_and_resumes(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Some 15 s: five emitted files are run on the pictures, in two runs of the study."""

    def run(*more: str) -> list[list[str]]:
        options = (
            "--imgsz",
            "64",
            "--rounding",
            "nearest",
            "--calib-images",
            "4",
            "--out",
            str(tmp_path / "study"),
            *more,
        )
        monkeypatch.setattr(sys, "argv", ["study", str(checkpoint), "--data", str(data), *options])
        runpy.run_path(str(EXAMPLES / "yolov7_study.py"), run_name="__main__")
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    monkeypatch.syspath_prepend(str(EXAMPLES))
    first = run("--kinds", "symmetric", "--granularities", "channel", "--bits", "4")
    assert first[0][:2] == ["float:", "mAP"]
    assert [row[:3] for row in first[2:]] == [["symmetric", "channel", "4"]]
    with (tmp_path / "study.jsonl").open("a") as file:
        file.write('{"kind": "affi')  # a kill in the middle of a row
    more = run("--resume", "--cells", "symmetric.channel.4", "rice.layer.3.5")
    assert more[2] == first[2]
    rows = json.loads((tmp_path / "study.json").read_text())
    assert [(row["kind"], row["bits"]) for row in rows] == [("symmetric", 4), ("rice", 3.5)]
    assert all(row["ratio_vs_fp16"] > 1.5 and row["damage"] > 0 for row in rows)
    with (tmp_path / "study.csv").open() as file:
        assert [row["bits"] for row in csv.DictReader(file)] == ["4.0", "3.5"]
    with pytest.raises(SystemExit, match=r"study.jsonl is of another study"):
        run("--resume", "--block", "32", "--cells", "rice.layer.3.5")
    plot = ET.fromstring((tmp_path / "study.svg").read_text())  # noqa: S314  # our own
    said = [text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")]
    assert {"symmetric, channel", "rice, layer"} <= set(said)
    assert len(list(plot.iter("{http://www.w3.org/2000/svg}circle"))) == 2
