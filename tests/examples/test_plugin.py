"""The example of a package of passes: installed, found by its entry point, and used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package was installed into."""
    pytest.importorskip("setuptools", reason="the package is built with setuptools")
    folder = tmp_path_factory.mktemp("site")
    source = folder / "source"
    shutil.copytree(PLUGIN, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = run("-m", "pip", "install", *options, "--target", folder / "packages", source)
    if "No module named pip" in done.stderr:
        pytest.skip("there is no pip in this environment")
    assert done.returncode == 0, done.stderr
    return folder / "packages"


def run(*arguments: object, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(p) for p in (site, os.environ.get("PYTHONPATH")) if p]
    return subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def test_it_is_found_by_its_entry_point(site: Path) -> None:
    done = run("-m", "yqc", "passes", "flatten-cat", "--json", site=site)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["origin"] == "acme-yqc 1.2"
    assert [o["name"] for o in about["options"]] == ["max_inputs"]


def test_its_criterion_is_listed_under_prune(site: Path) -> None:
    done = run("-m", "yqc", "passes", "--json", site=site)
    assert done.returncode == 0, done.stderr
    (prune,) = (one for one in json.loads(done.stdout) if one["name"] == "prune")
    added = {"option": "criterion", "name": "spread", "origin": "acme-yqc 1.2"}
    assert prune["added"] == [added]


def test_it_runs_in_a_pipeline(site: Path, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.onnx"
    asked = ("--passes", "flatten-cat,fold-bn", "--no-eval", "--no-html", "--json", "-q")
    done = run("-m", "yqc", "compile", checkpoint, *asked, "-o", output, site=site)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passes"][0]["name"] == "flatten-cat"
    assert report["passes"][0]["max_abs_error"] == 0


def test_its_own_tests_pass(site: Path) -> None:
    tests = PLUGIN / "tests"
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests, site=site)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
