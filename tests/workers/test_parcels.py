"""What travels to other machines: content, each once; and the sender's paths come back."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import yqc
from yqc.errors import CheckpointError
from yqc.version import describe_code
from yqc.workers import Opening
from yqc.workers.cluster import ClusterError, join_cluster
from yqc.workers.jobs import forget_session
from yqc.workers.parcels import pack, run_placed


@dataclass(frozen=True)
class Said:
    """A result that names a path."""

    text: str


@dataclass(frozen=True)
class Compiles8:
    """A job that compiles in eight bits."""

    opening: Opening
    folder: Path

    def run(self, session: Any, folder: Path) -> Said:
        session.compile("int8", output=folder / "x.onnx", latency=False, html=False)
        return Said(f"{session.source.path} into {folder}")

    def fail(self, why: str) -> Said:
        return Said(why)


@pytest.mark.slow
def test_a_job_elsewhere_makes_the_same_files(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiles twice, which takes some seconds: model and images are gone from where they were."""
    home = tmp_path / "home"
    shutil.copytree(data.parent, home / "shapes")
    model = Path(shutil.copy(checkpoint, home / "m.pt"))
    where = home / "shapes" / data.name
    choices: dict[str, Any] = {"data": str(where), "calib_images": 8, "threads": 1}
    yqc.Session(model, **choices).compile(
        "int8", output=tmp_path / "x.onnx", html=False, latency=False
    )
    sent, objects = dict[str, Any](), list[Any]()

    def put(thing: Any) -> int:
        objects.append(thing)
        return len(objects) - 1

    opening = Opening(yqc.Session, model, choices)
    parcel = pack(opening, put, sent)
    count = len(sent)
    assert pack(opening, put, sent).key == parcel.key
    assert len(sent) == count, "contents are sent once"
    forget_session()
    shutil.rmtree(home)
    monkeypatch.setattr("yqc.workers.parcels.node_folder", lambda: tmp_path / "node")
    said, files = run_placed(Compiles8(opening, tmp_path / "there"), parcel, objects.__getitem__)
    forget_session()
    assert said == Said(f"{model} into {tmp_path / 'there'}")
    assert {*files} == {f"x{end}" for end in (".onnx", ".report.json", ".recipe.toml")}
    for end in (".onnx", ".recipe.toml"):
        assert files[f"x{end}"] == (tmp_path / f"x{end}").read_bytes()
    report = yqc.Report.from_json(files["x.report.json"].decode())
    here = yqc.Report.from_json((tmp_path / "x.report.json").read_text())
    assert (report.input, report.data, report.warnings) == (here.input, here.data, here.warnings)
    assert report.accuracy.compiled == here.accuracy.compiled


def test_a_model_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt"):
        pack(Opening(yqc.Session, tmp_path / "none.pt", {}), lambda _: 0, {})


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        pytest.raises(ClusterError, match=r"^--ray needs Ray: pip install 'yqc\[ray\]'$"),
        join_cluster("auto"),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:1", "nobody answers at 127.0.0.1:1"),
        ("ray://x:1", "must be auto, or HOST:PORT"),
        ("somewhere", "must be auto, or HOST:PORT"),
    ],
)
def test_an_address_where_nobody_answers_is_refused(address: str, why: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(yqc.YqcError, match=why), join_cluster(address):
        pass


def test_the_code_has_a_hash() -> None:
    assert describe_code() == describe_code()
    assert describe_code().startswith(yqc.__version__)
