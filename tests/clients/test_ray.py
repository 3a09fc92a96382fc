"""A sweep on a Ray cluster of two machines, one of which is killed: the same bytes as here."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import yqc
from yqc.progress import Silent

ray = pytest.importorskip("ray", reason="needs pip install yqc[ray]")

pytestmark = [
    pytest.mark.skipif(
        "YQC_RAY" not in os.environ, reason="takes minutes on a busy machine: YQC_RAY=1"
    ),
    pytest.mark.filterwarnings("ignore"),  # Ray's own: of files and processes that it leaves
]
PASSES = ["", "dce", "fold-bn", "reparam", "fold-bn,dce", "reparam,dce", "fuse", "fold-bn,equalize"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two machines with a processor each, which this process has joined."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else what else runs here starves its workers
    memory: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "memory": 3 << 30}
    made: Any = Cluster(initialize_head=True, head_node_args=memory)
    made.other = made.add_node(**memory)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


class Kills(Silent):
    """Ends a machine of the cluster once two jobs are done."""

    def __init__(self, cluster: Any) -> None:
        self.cluster, self.notes = cluster, list[str]()

    def note(self, message: str) -> None:
        self.notes.append(message)
        if len(self.notes) == 2:
            self.cluster.remove_node(self.cluster.other, allow_graceful=False)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Any]:
        del name, total
        yield lambda _: None


def made(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.suffix in {".onnx", ".toml"}]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_sweep_on_two_machines_makes_the_same_bytes(
    cluster: Any, checkpoint: Path, tmp_path: Path
) -> None:
    """Takes half a minute: Ray's processes, and PyTorch in each of its workers."""
    how: dict[str, Any] = {"imgsz": 64, "latency": False}
    here = yqc.sweep(checkpoint, PASSES, output=tmp_path / "here", jobs=1, **how)
    kills = Kills(cluster)
    there = yqc.sweep(
        checkpoint, PASSES, output=tmp_path / "there", ray="auto", progress=kills, **how
    )
    assert len(kills.notes) == len(PASSES)
    assert [row.failed for row in there.rows] == [""] * len(PASSES)
    assert made(tmp_path / "there") == made(tmp_path / "here")
    assert [row.bytes for row in there.rows] == [row.bytes for row in here.rows]
    report = json.loads((tmp_path / "there/best/dce.report.json").read_text())
    assert report["input"]["path"] == str(checkpoint)
