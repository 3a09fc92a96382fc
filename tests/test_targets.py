"""Targets by name: aliases, and hints for devices that are none."""

from pathlib import Path

import pytest

from yqc import Context, Given
from yqc.errors import PipelineError
from yqc.linting import EXACT_ORDER
from yqc.linting.readers import READERS
from yqc.settings import choose
from yqc.targets import TARGETS, DeviceFileError, Limits, find_target


def test_every_name_and_alias_finds_its_target() -> None:
    for name, target in TARGETS.items():
        assert target.name == name
        assert {find_target(word) for word in (name, *target.aliases)} == {target}


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("rpi", "for ARM CPUs write onnxruntime"),
        ("jetson", "for NVIDIA GPUs write tensorrt"),
        ("ARM-64", "for ARM CPUs write onnxruntime"),
        ("ncnn", "for what reads plain ONNX write portable"),
        ("openvion", "did you mean 'openvino'?"),
    ],
)
def test_a_name_that_is_none_meets_a_hint(word: str, hint: str) -> None:
    with pytest.raises(PipelineError, match="write onnxruntime or openvino") as caught:
        find_target(word)
    assert hint in str(caught.value)


def test_the_default_is_where_accuracy_is_measured() -> None:
    assert Context().rules is Given().rules is find_target("ort")
    assert choose(None, {}).target == "onnxruntime"
    assert choose(None, {"target": "generic"}).target == "portable"


EXAMPLES = sorted((Path(__file__).parents[1] / "examples" / "targets").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_its_sources(path: Path) -> None:
    target, text = find_target(str(path)), path.read_text(encoding="utf-8")
    assert target.operators is not None
    assert {"Conv", "Concat", "MaxPool", "Add"} < {*target.operators}
    assert "https://" in text
    assert "not tested on" in text


def test_the_page_on_devices_has_all_targets_readers_and_engines() -> None:
    page = (Path(__file__).parents[1] / "docs" / "devices.md").read_text(encoding="utf-8")
    table, *parts = page.split("\n## ")
    parts_by_title = dict(part.split("\n", 1) for part in parts)
    load, lacks = parts_by_title["What loads where"], parts_by_title["My device has no ..."]
    engines = parts_by_title["Engines"]
    for target in TARGETS.values():
        assert f"| `{target.name}` |" in table
        assert all(f"`{alias}`" in table for alias in target.aliases)
        assert target.engine.replace("FILE", "model-int8") in engines
    assert all(f"`{name}`" in lacks for name in EXACT_ORDER)
    assert all(f"`{path.stem}`" in lacks for path in EXAMPLES)
    for reader in READERS:
        assert reader in table
        assert f"| {reader} |" in load.lower()


NPU = """\
base = "openvino"
operators = ["Conv", "Relu"]
decode = "raw"
fast_activations = ["relu"]
[limits]
kernel = 7
dtypes = ["float32", "int8"]
"""


def test_a_device_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "npu.toml"
    path.write_text(NPU)
    target, base = find_target(str(path)), TARGETS["openvino"]
    assert (target.name, target.base, target.operators) == (str(path), "openvino", ("Conv", "Relu"))
    assert (target.decode, target.fast_activations) == ("raw", ("relu",))
    assert target.limits == Limits(kernel=7, dtypes=("float32", "int8"))
    assert (target.runtime, target.weights) == (base.runtime, base.weights)
    assert Context(target=choose(None, {"target": str(path)}).target).rules == target
    path.write_text("")
    silent = find_target(str(path))
    assert (silent.base, silent.operators, silent.limits) == ("portable", None, Limits())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'operatrs = ["Conv"]',
            (
                "line 1: the file of a target has no key 'operatrs'; did you mean 'operators'?\n"
                '  operatrs = ["Conv"]\n  ^^^^^^^^'
            ),
        ),
        (
            "operators = []",
            (
                "line 1: operators names none; leave the key out where all are taken\n"
                "  operators = []\n  ^^^^^^^^^"
            ),
        ),
        (
            'operators = ["Conv",\n   "Relux"]',
            (
                "line 2: 'Relux' is no operator of ONNX; did you mean 'Relu'?\n"
                '     "Relux"]\n      ^^^^^'
            ),
        ),
        (
            "[limits]\nkernels = 3",
            "line 2: limits has no key 'kernels'; did you mean 'kernel'?\n  kernels = 3\n  ^^^^^^^",
        ),
        (
            "[limits]\nopset = 0",
            "line 2: opset must be at least 1, not 0\n  opset = 0\n  ^^^^^",
        ),
        (
            "[limits]\nrank = true",
            "line 2: rank must be a whole number, not True\n  rank = true\n  ^^^^",
        ),
        (
            'decode = "half"',
            (
                "line 1: decode cannot be 'half'; write full, scores or raw\n"
                '  decode = "half"\n            ^^^^'
            ),
        ),
        ("base =\n", "line 1: it is no TOML: Invalid value\n  base =\n        ^"),
    ],
)
def test_what_is_wrong_with_a_file_is_pointed_at(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "npu.toml"
    path.write_text(text)
    with pytest.raises(DeviceFileError) as caught:
        choose(None, {"target": str(path)})
    assert str(caught.value) == f"{path}, {message}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, why in (("absent", "No such file"), ("folder", "no file"), ("large", "64 KiB")):
        path = tmp_path / f"{name}.toml"
        if name == "folder":
            path.mkdir()
        if name == "large":
            path.write_text("#" * 70_000)
        with pytest.raises(DeviceFileError, match=why):
            find_target(str(path))
