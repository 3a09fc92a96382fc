"""The example's sweep names what exists."""

from pathlib import Path

import pytest

from yqc import Registry, Settings
from yqc.sweeping import read_plan

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", ["examples/sweep.toml"])
def test_the_sweep_of_the_example_is_whole(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = read_plan(Path(file), Settings(), Registry.default())
    assert len(plan.cells) == 8
    assert {name for _, _, name in plan.cells} >= {"shapes/int8", "shapes-segment/int4"}


def test_the_sweep_of_the_results_is_whole(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shared != ROOT.parent / "shared":
        pytest.skip("the file names ../shared")
    monkeypatch.chdir(ROOT)
    assert (
        len(read_plan(Path("benchmarks/results.toml"), Settings(), Registry.default()).cells) == 12
    )
