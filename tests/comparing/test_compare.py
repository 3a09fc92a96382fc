"""`yqc compare`: what is ranked against each other, what is not, and how it is shown."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import yqc
from tests.command import Run
from yqc.comparing import ComparedRow, Comparison, read_row, write_page


@pytest.fixture(scope="module")
def plain(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a small detector, as JSON holds it."""
    output = tmp_path_factory.mktemp("compared") / "x.onnx"
    how: dict[str, Any] = {"output": output, "data": data, "latency": False, "html": False}
    found = yqc.compile(checkpoint, "fold-bn", **how).to_dict()
    assert isinstance(found, dict)
    return found


def write(folder: Path, name: str, plain: Mapping[str, Any], **changes: Any) -> Path:
    """Write a report with some parts changed; `a__b` names the key b of the part a."""
    report: dict[str, Any] = json.loads(json.dumps(plain))
    for key, value in changes.items():
        part, _, inner = key.partition("__")
        if inner:
            report[part][inner] = value
        else:
            report[part] = value
    path = folder / f"{name}.report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report))
    return path


def scores(figure: float) -> dict[str, Any]:
    keys = ("map", "map50", "map75", "small", "medium", "large")
    more = ("mask", "keypoints", "rotated", "top1", "top5")
    return {**dict.fromkeys(keys, figure), **dict.fromkeys(more)}


def latency(ms: float, machine: str | None = None) -> dict[str, Any]:
    timed = {"runtime": "onnxruntime", "version": "1", "float_ms": 10.0, "compiled_ms": ms}
    ends = {"p10": [1, 1], "p90": [2, 2], "interval": [1, 2], "load_ms": [1, 1]}
    pairs = {key: [float(end) for end in pair] for key, pair in ends.items()}
    return {**timed, **pairs, "ratio": 10 / ms, "rounds": 9, "threads": 1, "machine": machine}


def three(folder: Path, plain: Mapping[str, Any]) -> dict[str, Path]:
    """Small and bad, large and good, large and bad: the last one is beaten."""
    made = {"a": (1000, 0.2), "b": (3000, 0.5), "c": (4000, 0.4)}
    return {
        name: write(
            folder,
            name,
            plain,
            size__file_bytes=size,
            accuracy__compiled=scores(figure),
            accuracy__float=scores(0.5),
            accuracy__main="map",
            accuracy__kind="map",
        )
        for name, (size, figure) in made.items()
    }


def on_front(found: Comparison) -> list[str]:
    return [row.name for row in found.rows if row.on_front]


def test_what_is_beaten_is_not_on_the_front(plain: dict[str, Any], tmp_path: Path) -> None:
    paths = three(tmp_path, plain)
    found = yqc.compare(tmp_path)
    assert on_front(found) == ["a", "b"]
    assert {row.group for row in found.rows} == {1}
    assert found.notes == ()
    assert on_front(yqc.compare([paths["c"], paths["a"]])) == [
        str(paths[name]).removesuffix(".report.json") for name in ("c", "a")
    ]
    assert "a" in str(found)
    assert "0.2000" in str(found)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data", {"path": "other.yaml", "sha256": "1", "images": 3}, "data differs"),
        ("target", "openvino", "target differs (onnxruntime, openvino)"),
        ("yqc", "0.0.9", "version of yqc differs"),
    ],
)
def test_what_differs_is_said_and_not_ranked(
    plain: dict[str, Any], tmp_path: Path, key: str, value: object, said: str
) -> None:
    paths = three(tmp_path, plain)
    report = json.loads(paths["c"].read_text())
    paths["c"].write_text(json.dumps({**report, key: value}))
    found = yqc.compare(tmp_path)
    assert on_front(found) == ["a", "b", "c"]
    assert [row.group for row in found.rows] == [1, 1, 2]
    assert said in found.notes[0]
    assert said in " ".join(str(found).split())
    assert len(found.groups) == write_page(found).count("<svg") == 2


def test_times_count_where_one_machine_took_them(plain: dict[str, Any], tmp_path: Path) -> None:
    paths = three(tmp_path, plain)
    for name, ms in (("a", 5.0), ("b", 5.0), ("c", 1.0)):
        report = json.loads(paths[name].read_text())
        paths[name].write_text(json.dumps({**report, "latency": latency(ms)}))
    assert on_front(yqc.compare(tmp_path)) == ["a", "b", "c"]
    report = json.loads(paths["c"].read_text())
    paths["c"].write_text(json.dumps({**report, "latency": latency(1.0, "pi, Cortex-A76")}))
    found = yqc.compare(tmp_path)
    assert on_front(found) == ["a", "b"]
    assert "times of other machines are not ranked" in found.notes[0]
    assert "pi, Cortex-A76, onnxruntime 1, 1 thread" in found.notes[0]


def test_without_labels_models_are_not_ranked_against_each_other(
    plain: dict[str, Any], tmp_path: Path
) -> None:
    agreed: dict[str, Any] = {
        "kind": "agreement",
        "main": None,
        "float": None,
        "compiled": None,
        "interval": None,
    }
    agreed |= {"drop": None, "relative_drop": None, "classes": []}
    accuracy = {**plain["accuracy"], **agreed, "agreement": {"ap50": 0.9, "map": 0.8, "top1": None}}
    write(tmp_path, "a", plain, accuracy=accuracy)
    write(tmp_path, "b", plain, accuracy=accuracy, input__sha256="other")
    found = yqc.compare(tmp_path)
    assert [row.group for row in found.rows] == [1, 2]
    assert found.rows[0].drop == pytest.approx(0.1)
    assert [row.model.partition(" ")[0] for row in found.rows] == ["best", "best"]
    assert found.rows[1].model == "best other", "two models of one name are told apart"


def test_the_command_prints_and_writes_a_page(
    run: Run, plain: dict[str, Any], tmp_path: Path
) -> None:
    three(tmp_path / "made", plain)
    done = run("compare", tmp_path / "made", "--layers")
    assert done.code == 0, done.err
    assert "model.0.conv" in done.out
    page = Path("compare.html").read_text()
    assert page.count("<circle") == 3
    assert page.count("class='best'") == 2
    assert "<details>" in page
    found = json.loads(run("compare", tmp_path / "made", "--json").out)
    assert found == yqc.compare(tmp_path / "made").to_dict()
    assert found["rows"][0]["bits"]["model.0.conv"] == "32/32"
    rows = list(csv.DictReader(io.StringIO(run("compare", tmp_path / "made", "--csv").out)))
    assert [row["bytes"] for row in rows] == ["1000", "3000", "4000"]
    assert rows[0]["on_front"] == "true"


@pytest.mark.parametrize("content", ["{}", "no JSON", '{"schema": "9"}', "\udcff"])
def test_what_is_no_report_is_refused(run: Run, content: str) -> None:
    Path("x.report.json").write_text(content, errors="surrogateescape")
    done = run("compare", "x.report.json")
    assert done.code == 1
    assert "x.report.json is no report of yqc" in done.err
    assert not Path("compare.html").exists()


def test_folders_without_reports_and_pages_of_others_are_refused(
    run: Run, plain: dict[str, Any]
) -> None:
    Path("empty").mkdir()
    assert "empty has no reports" in run("compare", "empty").err
    assert "cannot read none.report.json" in run("compare", "none.report.json").err
    write(Path("made/.hidden"), "h", plain)
    write(Path("made"), "a", plain)
    Path("compare.html").write_text("mine")
    done = run("compare", "made")
    assert done.code == 1
    assert "something else" in done.err
    assert Path("compare.html").read_text() == "mine"
    assert len(json.loads(run("compare", "made", "--no-html", "--json").out)["rows"]) == 1


def test_reports_and_results_are_compared_from_python(
    plain: dict[str, Any], tmp_path: Path
) -> None:
    path = write(tmp_path, "a", plain)
    report = yqc.Report.from_json(path.read_text())
    found = yqc.compare([report, path])
    assert found.rows[0].name == "best fold-bn"
    assert found.rows[0].bytes == found.rows[1].bytes
    with pytest.raises(yqc.DataError, match="nothing to compare"):
        yqc.compare([])


def test_failures_are_rows_without_a_group() -> None:
    failed = ComparedRow(name="x/int8", model="x", passes="int8", failed="it broke")
    found = Comparison.of([failed])
    assert found.rows[0].group == 0
    assert found.notes == ("1 compile failed",)
    assert "int8: it broke" in str(found)
    assert "it broke" in write_page(found)


def test_thousands_of_rows_are_ranked_and_shown(plain: dict[str, Any], tmp_path: Path) -> None:
    """The page draws a part of them, the terminal shows some; JSON has all."""
    row = read_row("x", write(tmp_path, "x", plain))
    rows = [
        ComparedRow(**{**vars(row), "name": f"{i}", "bytes": 10_000 + i, "figure": (i % 97) / 97})
        for i in range(2500)
    ]
    found = Comparison.of(rows)
    assert on_front(found)[0] == "0"
    assert on_front(found)[-1] == "96"
    assert "and 2460 more" in str(found)
    assert write_page(found).count("<circle") == 1000
