"""Recipe files: what was written reads back, and what does not belong there is refused."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from yqc.errors import PipelineError
from yqc.settings import (
    HashedFile,
    Provenance,
    Settings,
    choose,
    read_recipe,
    write_recipe,
)

TEXT = st.text(max_size=12)
COUNT = st.integers(1, 1 << 31)
SETTINGS = st.builds(
    Settings,
    passes=TEXT,
    imgsz=st.none() | st.tuples(COUNT, COUNT),
    head=st.none() | TEXT,
    arch=st.none() | TEXT,
    data=st.none() | TEXT,
    images=st.none() | TEXT,
    calib_images=COUNT,
    target=st.sampled_from(["portable", "onnxruntime", "openvino", "tensorrt"]),
    device=TEXT,
    seed=st.integers(-(1 << 31), 1 << 31),
    dynamic=st.booleans(),
    opset=st.none() | COUNT,
    threads=st.none() | COUNT,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=SETTINGS, model=TEXT)
@example(wanted=Settings(passes='a "\\" \t\n', data="é\x7f\U0001f600"), model="\x00")
def test_what_is_written_reads_back(wanted: Settings, model: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        write_recipe(wanted, Provenance("1.0", HashedFile(model, "abc"))), encoding="utf-8"
    )
    assert read_recipe(path) == wanted
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    assert (found["yqc"], found["input"]) == ("1.0", {"path": model, "sha256": "abc"})
    assert read_recipe(path).written_for == Provenance("1.0", HashedFile(model, "abc"))


DATA, LOADED = HashedFile("d.yaml", "d1"), HashedFile("p.py", "p1")
ORIGIN = Provenance("0.1.0", HashedFile("m.pt", "m1"), DATA, (LOADED,))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (ORIGIN, []),
        (replace(ORIGIN, version="0.2.0"), ["version 0.1.0 of yqc"]),
        (replace(ORIGIN, model=HashedFile("m.pt", "m2")), ["another model, m.pt (SHA-256 m1)"]),
        (replace(ORIGIN, data=None), ["another data set, d.yaml (SHA-256 d1)"]),
        (replace(ORIGIN, loaded=()), ["other --load files (p.py)"]),
    ],
)
def test_a_recipe_of_something_else_says_so(
    now: Provenance, said: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "r.toml"
    path.write_text(write_recipe(Settings(), ORIGIN), encoding="utf-8")
    changes = read_recipe(path).written_for.changes(now)
    assert changes == tuple(f"the recipe was written for {one}: results can differ" for one in said)


def test_a_recipe_written_by_hand_records_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('passes = "fuse"\n', encoding="utf-8")
    assert read_recipe(path).written_for.changes(ORIGIN) == ()


def test_reads_as_a_person_would_write_it() -> None:
    made = Settings(passes='prune{keep="a b"},int8', imgsz=(640, 480), data="d.yaml", dynamic=True)
    assert write_recipe(made, Provenance("0.1.0", HashedFile("model.pt", "abc"))).splitlines() == [
        'yqc = "0.1.0"',
        r'passes = "prune{keep=\"a b\"},int8"',
        "imgsz = [640, 480]",
        'data = "d.yaml"',
        "single_class = false",
        "strict = false",
        "calib_images = 128",
        'target = "onnxruntime"',
        'device = "cpu"',
        "seed = 0",
        "dynamic = true",
        "",
        "[input]",
        'path = "model.pt"',
        'sha256 = "abc"',
    ]


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Settings()
    assert read(tmp_path, 'passes = "fuse"\nimgsz = 320') == Settings("fuse", (320, 320))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("passes = 1", "passes must be a text"),
        ("passes = ['dce']", "passes must be a text"),
        ("pases = 'dce'", "a recipe has no key 'pases'; did you mean 'passes'?"),
        ("load = 'evil.py'", "a recipe has no key 'load'"),
        ("[passes]\nname = 'dce'", "passes must be a text"),
        ("imgsz = '640'", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = [640]", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = [640, 1.5]", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = [true, 640]", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = [640, 0]", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = true", "imgsz must be a size in pixels, or [height, width]"),
        ("calib_images = 1.5", "calib_images must be a whole number above 0"),
        ("calib_images = 0", "calib_images must be a whole number above 0"),
        ("calib_images = true", "calib_images must be a whole number above 0"),
        ("opset = '21'", "opset must be a whole number above 0"),
        ("seed = false", "seed must be a whole number"),
        ("dynamic = 1", "dynamic must be true or false"),
        ("target = 'phone'", "there is no target 'phone'; write onnxruntime or openvino"),
        ("target = ['ort']", "target must be the name of a target"),
        ("device = 0", "device must be a text"),
        ("data = ['a', 'b']", "data must be a text"),
        ("head = 1", "head must be a text"),
    ],
)
def test_refuses_what_does_not_belong_there(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        read(tmp_path, text)
    path = tmp_path / "r.toml"
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("content", [b"passes = ", b"\xff\xfe", b"passes = 'a'\npasses = 'b'"])
def test_refuses_what_is_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"cannot read the recipe .*r\.toml: "):
        read_recipe(path)


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"cannot read the recipe .*No such file"):
        read_recipe(tmp_path / "absent.toml")


def test_choices_replace_what_they_name() -> None:
    base = Settings(passes="dce", imgsz=(64, 96), seed=3)
    assert choose(base, {}) == base
    assert choose(None, {}) == Settings()
    assert choose(base, {"imgsz": 320, "data": Path("d.yaml"), "seed": 0}) == Settings(
        passes="dce", imgsz=(320, 320), data="d.yaml"
    )
    assert choose(None, {"imgsz": (64, 32), "arch": "a.yaml"}) == Settings(
        imgsz=(64, 32), arch="a.yaml"
    )
