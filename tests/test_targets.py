"""Targets by name: aliases, and hints for devices that are none."""

from pathlib import Path

import pytest

from yqc import Context, Given
from yqc.errors import PipelineError
from yqc.linting.readers import READERS
from yqc.settings import choose
from yqc.targets import TARGETS, find_target


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


def test_the_page_on_devices_has_all_targets_readers_and_engines() -> None:
    page = (Path(__file__).parents[1] / "docs" / "devices.md").read_text(encoding="utf-8")
    table, load, _, engines = page.split("\n## ")
    for target in TARGETS.values():
        assert f"| `{target.name}` |" in table
        assert all(f"`{alias}`" in table for alias in target.aliases)
        assert f"    {target.engine.replace('FILE', 'model-int8')}".rstrip() in engines
    for reader in READERS:
        assert reader in table
        assert f"| {reader} |" in load.lower()
