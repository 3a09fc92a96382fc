"""Recipe files: what was written reads back, and what does not belong there is refused."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import yqc
from yqc.errors import PipelineError
from yqc.settings import (
    HashedFile,
    Provenance,
    SettingError,
    Settings,
    choose,
    read_recipe,
    read_text,
    write_recipe,
)

TEXT = st.text(max_size=12)
COUNT = st.integers(1, 1 << 31)
SETTINGS = st.builds(
    Settings,
    passes=TEXT,
    imgsz=st.none() | st.tuples(COUNT, COUNT),
    head=st.sampled_from([None, "one2one", "one2many"]),
    arch=st.none() | TEXT,
    data=st.none() | TEXT,
    images=st.none() | TEXT,
    calib_images=COUNT,
    target=st.sampled_from(["portable", "onnxruntime", "openvino", "tensorrt"]),
    device=st.sampled_from(["cpu", "cuda", "cuda:1"]),
    seed=st.integers(-(1 << 31), 1 << 31),
    dynamic=st.booleans(),
    opset=st.none() | st.integers(13, 23),
    emit=st.sampled_from([None, "onnx", "onnx,pt2"]),
    nms=st.booleans(),
    nms_options=TEXT,
    threads=st.none() | st.integers(1, 4096),
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
        "nms = false",
        'nms_options = ""',
        "fp16_io = false",
        "uint8_input = false",
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
        ("imgsz = 'big'", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = [640]", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = [640, 1.5]", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = [true, 640]", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = [640, 0]", "imgsz must be a size in pixels, or [height, width]"),
        ("imgsz = true", "imgsz must be a size in pixels, or [height, width]"),
        ("calib_images = 1.5", "calib_images must be a whole number above 0"),
        ("calib_images = 0", "calib_images must be a whole number above 0"),
        ("calib_images = true", "calib_images must be a whole number above 0"),
        ("opset = '21'", "opset must be an ONNX opset from 13 to 23"),
        ("seed = false", "seed must be a whole number"),
        ("dynamic = 1", "dynamic must be true or false"),
        (
            "target = 'phone'",
            "target is 'phone', but there is no target 'phone'; write onnxruntime",
        ),
        ("target = ['ort']", "target must be the name of a target"),
        ("device = 0", "device must be cpu, cuda, or cuda:1, not 0"),
        ("data = ['a', 'b']", "data must be a path"),
        ("head = 1", "head must be 'one2one' or 'one2many', not 1"),
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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("target", "rpi", "is 'rpi', but there is no target 'rpi'; write onnxruntime or openvino"),
        ("calib_images", -3, "must be a whole number above 0, not -3"),
        ("calib_images", "3", "must be a whole number above 0, not '3'"),
        ("calib_images", 2.0, "must be a whole number above 0, not 2.0"),
        ("calib_images", True, "must be a whole number above 0, not True"),
        ("seed", "x", "must be a whole number of 64 bits, not 'x'"),
        ("opset", 5, "must be an ONNX opset from 13 to 23, not 5"),
        ("device", "cuda:x", "must be cpu, cuda, or cuda:1, not 'cuda:x'"),
        ("device", "mps:0", "must be cpu, cuda, or cuda:1, not 'mps:0'"),
        ("emit", "pt2", "must be onnx, or onnx,pt2, not 'pt2'"),
        ("imgsz", (1, 2, 3), "must be a size in pixels, or [height, width], not (1, 2, 3)"),
        ("imgsz", "big", "must be a size in pixels, or [height, width], not 'big'"),
        ("nms", "yes", "must be true or false, not 'yes'"),
        ("threads", 5000, "must be a whole number from 1 to 4096, not 5000"),
        ("head", "two", "must be 'one2one' or 'one2many', not 'two'"),
        ("data", 3, "must be a path, not 3"),
    ],
)
def test_a_wrong_value_is_refused_in_the_callers_words(
    name: str, value: object, said: str, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {name: value}
    with pytest.raises(SettingError) as caught:
        yqc.compile("absent.pt", "fuse", output=tmp_path / "x.onnx", **asked)
    assert str(caught.value).startswith(f"{name} {said}")
    with pytest.raises(SettingError):
        Settings(**asked)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("imgsz", "640", (640, 640)),
        ("imgsz", "480, 640", (480, 640)),
        ("calib_images", "64", 64),
        ("seed", "-1", -1),
        ("target", "ort", "onnxruntime"),
        ("data", "d.yaml", "d.yaml"),
        ("data", "\udce8.yaml", "\udce8.yaml"),
    ],
)
def test_the_command_line_writes_values_as_text(name: str, text: str, value: object) -> None:
    assert read_text(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("calib_images", "-3", "--calib-images must be a whole number above 0, not '-3'"),
        ("seed", "x", "--seed must be a whole number of 64 bits, not 'x'"),
        ("imgsz", "640x480", "--imgsz must be a size in pixels, or [height, width]"),
        ("imgsz", "1,2,3", "--imgsz must be a size in pixels, or [height, width]"),
    ],
)
def test_a_wrong_text_is_refused_with_the_option(name: str, text: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_text(name, text)
    assert str(caught.value).startswith(said)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(SettingError, match="calib_image is no argument of compile; did you mean"):
        yqc.compile("m.pt", calib_image=3)
    with pytest.raises(SettingError, match="seeds is no argument; did you mean 'seed'"):
        choose(None, {"seeds": 3})


NEW = '''
    mood: Count = 3
    """Of the compiler."""
'''

SHOWS = """
import json, sys
import yqc
from yqc.settings import Settings, write_recipe, Provenance
from yqc.job.keys import SETTINGS
import inspect
print(json.dumps({
    "python": str(inspect.signature(yqc.compile).parameters["mood"].default),
    "recipe": write_recipe(Settings(mood=5), Provenance()),
    "key": "mood" in SETTINGS,
}))
try:
    yqc.compile("absent.pt", "fuse", mood=0)
except yqc.YqcError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_new_setting_is_one_edit(tmp_path: Path) -> None:
    root = Path(yqc.__file__).parent
    shutil.copytree(root, tmp_path / "yqc", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "yqc/settings/settings.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("    written_for:", NEW + "    written_for:", 1), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    how: dict[str, Any] = {"cwd": tmp_path, "env": env, "text": True}
    run = [sys.executable, "-m", "yqc", "compile"]
    helped = subprocess.run([*run, "--help"], check=True, capture_output=True, **how)  # noqa: S603
    assert "--mood <int>" in helped.stdout
    assert "Of the compiler; default: 3." in helped.stdout
    asked = [sys.executable, "-c", SHOWS]
    shown = subprocess.run(asked, check=True, capture_output=True, **how)  # noqa: S603
    first, second = shown.stdout.splitlines()
    found = json.loads(first)
    assert (found["python"], found["key"]) == ("3", True)
    assert "mood = 5" in found["recipe"].splitlines()
    assert second == "mood must be a whole number above 0, not 0"
    asked = [*run, "absent.pt", "--passes", "fuse", "--mood", "x"]
    refused = subprocess.run(asked, check=False, capture_output=True, **how)  # noqa: S603
    assert (refused.returncode, refused.stderr) == (
        2, "yqc: --mood must be a whole number above 0, not 'x'\n",
    )  # fmt: skip
