"""Hundreds of hostile files and models, in a process of their own: none runs, hangs or grows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models import hostile_run

pytestmark = pytest.mark.slow

if sys.platform == "win32":
    pytest.skip("needs the resource module", allow_module_level=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = Path(__file__).parents[2]
    paths = [str(root), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    done = subprocess.run(  # noqa: S603  # our own script
        [sys.executable, "-W", "ignore", hostile_run.__file__],
        cwd=tmp_path_factory.mktemp("hostile"),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    return json.loads(done.stdout)


def test_there_are_hundreds_of_cases(report: Any) -> None:
    kinds = [name.partition(" ")[0] for name in report["outcomes"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == pytest.approx(
        {"forbidden": 250, "broken": 170, "model": 380}, abs=60
    )


def test_every_file_is_refused_and_every_model_loaded_or_refused(report: Any) -> None:
    odd = {name: what for name, (what, _) in report["outcomes"].items() if what != "refused"}
    assert {name: what for name, what in odd.items() if what != "read"} == {}
    assert all(name.startswith("model ") for name in odd)


def test_none_runs_code_or_leaves_a_file(report: Any) -> None:
    assert report["events"] == []
    assert report["left"] == ["sound.pt", "x.pt"]


def test_none_takes_five_seconds_or_a_gibibyte(report: Any) -> None:
    slow = {name: seconds for name, (_, seconds) in report["outcomes"].items() if seconds > 5}
    assert slow == {}
    assert report["mib"] < 1024
