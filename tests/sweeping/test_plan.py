"""What a sweep runs: grids, TOML files, names; and what is refused before any work."""

from pathlib import Path

import pytest

import yqc
from tests.command import Run
from yqc import Registry, Settings
from yqc.errors import PipelineError
from yqc.sweeping.grid import expand_grid
from yqc.sweeping.plan import name_files
from yqc.sweeping.toml import read_plan


@pytest.mark.parametrize(
    ("text", "pipelines"),
    [
        ("int8{ranges=[relevance,mse]}", ["int8{ranges=relevance}", "int8{ranges=mse}"]),
        ("fuse,int8", ["fuse,int8"]),
        (
            "prune{ratio=[0.3,0.5] recover=0},int8{ranges=[mse]}",
            [f"prune{{ratio={share} recover=0}},int8{{ranges=mse}}" for share in ("0.3", "0.5")],
        ),
        ("int4{keep=[[a.*,b],c]}", ["int4{keep=[a.*,b]}", "int4{keep=c}"]),
        ('x{a=["p q",r] b=[1,2]}', [f"x{{a={a} b={b}}}" for a in ('"p q"', "r") for b in "12"]),
    ],
)
def test_a_grid_takes_each_value_in_turn(text: str, pipelines: list[str]) -> None:
    assert expand_grid(text) == pipelines


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("int8{ranges=[]}", "'ranges' has no values"),
        (f"x{{{' '.join(f'{k}=[1,2,3,4,5,6,7,8,9,0]' for k in 'abcdef')}}}", "more than 100000"),
    ],
)
def test_a_grid_without_pipelines_is_refused(text: str, why: str) -> None:
    with pytest.raises(PipelineError, match=why):
        expand_grid(text)


def test_files_are_named_by_their_pipelines() -> None:
    assert name_files(["int8", "int4,int8{x=0.5}"]) == ["int8", "int4,int8{x=0.5}"]
    starred, long, same = name_files(["int8{keep=a*}", "int8," * 60, "int8{keep=a?}"])
    assert starred.startswith("int8{keep=a_}-")
    assert same.startswith("int8{keep=a_}-")
    assert starred != same
    assert len(long) < 170
    assert name_files(["dce", "DCE"])[0] != "dce", "some file systems take them for one"
    assert name_files([""])[0].startswith("none")


TOML = """\
passes = ["fold-bn"]
grid = ["int8{ranges=[relevance,mse]}"]
calib_images = 8
[[model]]
path = "a.pt"
imgsz = 64
data = "a.yaml"
[[model]]
path = "b.pt"
name = "second"
passes = ["dce"]
grid = []
seed = 3
"""


def plan(text: str) -> object:
    Path("sweep.toml").write_text(text)
    return read_plan(Path("sweep.toml"), Settings(threads=1), Registry.default())


def test_a_file_lists_models_with_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.pt", "b.pt"):
        Path(name).touch()
    first, second = plan(TOML).models  # type: ignore[attr-defined]
    assert first.pipelines == ("fold-bn", "int8", "int8{ranges=mse}")
    assert first.settings == Settings(imgsz=(64, 64), data="a.yaml", calib_images=8, threads=1)
    assert (second.name, second.pipelines) == ("second", ("dce",))
    assert second.settings == Settings(calib_images=8, seed=3, threads=1)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('path = "b.pt"', 'path = "c.pt"', "there is no file c.pt"),
        ('name = "second"', 'name = "a"', "is 'a' for two models, a.pt and b.pt"),
        ('name = "second"', 'name = "../x"', "must be that of a folder"),
        ("seed = 3", "sed = 3", r"has no key 'sed'; did you mean 'seed'"),
        ("imgsz = 64", 'imgsz = "big"', "imgsz must be a size"),
        ('passes = ["dce"]', 'passes = "dce"', "passes must be a list"),
        ('passes = ["dce"]', 'passes = ["dec"]', "unknown pass 'dec'"),
        ('passes = ["dce"]', 'passes = ["recover"]', "learns from images"),
        ('passes = ["dce"]', "passes = []", "--grid is missing"),
        ('path = "b.pt"\n', "", "has no path"),
        ("[[model]]", "[model", "cannot read the sweep"),
    ],
)
def test_a_wrong_file_is_refused(
    old: str, new: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.pt", "b.pt"):
        Path(name).touch()
    with pytest.raises(yqc.YqcError, match=why):
        plan(TOML.replace(old, new))


def test_what_is_wrong_is_said_before_any_work(run: Run) -> None:
    for folder in ("x", "y"):
        Path(folder).mkdir()
        Path(folder, "best.pt").touch()
    both = ["x/best.pt", "y/best.pt"]
    refused = run("sweep", *both, "--passes", "dce")
    assert refused.code == 2
    assert "is 'best' for two models" in refused.err
    refused = run("sweep", both[0])
    assert (refused.code, "--grid is missing" in refused.err) == (2, True)
    assert "do not fit" in run("sweep", both[0], "--passes", "dce", "--jobs", 4000).err
    Path("sweep").mkdir()
    Path("sweep/mine.txt").touch()
    assert "holds something else" in run("sweep", both[0], "--passes", "dce").err
    assert sorted(path.name for path in Path("sweep").iterdir()) == ["mine.txt"]
    assert "leave them out" in run("sweep", "s.toml", "--passes", "dce").err
