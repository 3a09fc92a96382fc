"""What a compile says of the rules of its target's runtime, and what it leaves out."""

from pathlib import Path
from typing import Any

import onnx
import pytest

import yqc
from tests.linting.test_lint import Net
from tests.slow import slow_but
from yqc.job import runtime_rules
from yqc.job.runtime_rules import check_rules


def compiled(
    checkpoint: Path, data: Path, folder: Path, passes: str, target: Any
) -> tuple[list[str], onnx.ModelProto]:
    """Return what a compile says of the rules, and its file."""
    how: dict[str, Any] = {"data": data, "calib_images": 2} if "int8" in passes else {}
    result = yqc.compile(
        checkpoint,
        passes,
        output=folder / "x.onnx",
        target=target,
        evaluate=False,
        html=False,
        **how,
    )
    said = [one for one in result.report.warnings if one.startswith(f"lint for {target}: ")]
    return said, onnx.load(result.files.onnx)


@pytest.mark.parametrize(
    "target", slow_but(["onnxruntime", "openvino", "tensorrt", "portable"], "openvino")
)
def test_files_for_a_target_fit_it(
    checkpoint: Path, data: Path, tmp_path: Path, target: str
) -> None:
    said, _ = compiled(checkpoint, data, tmp_path, "int8", target)
    assert said == []


def test_a_rule_is_a_warning_of_one_line(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """A pipeline of single passes leaves SiLU whole, which onnxruntime computes in float."""
    passes = "fold-bn,observe,calibrate,quantize"
    (said,), model = compiled(checkpoint, data, tmp_path, passes, "onnxruntime")
    assert " x Mul, Sigmoid: its result is not quantized, so it runs in float" in said
    assert "[not-fused], at model_1_act.sigmoid, model_1_act, model_2_act.sigmoid" in said
    assert said.endswith(" more; put decompose-silu before observe")
    assert check_rules(model, "onnxruntime") == (said,)


def test_one_targets_file_is_another_runtimes_fault(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    _, model = compiled(checkpoint, data, tmp_path, "int8", "tensorrt")
    first = check_rules(model, "openvino")[0]
    assert "Concat: int8 activations meet this concat" in first
    assert first.endswith("; compile with --target openvino")


@pytest.mark.parametrize(
    ("machine", "products", "said"),
    [
        ("x86_64", False, ["saturation"]),
        ("x86_64", True, []),
        ("x86_64", None, []),
        ("aarch64", False, []),
    ],
)
def test_saturation_is_said_where_it_happens(
    monkeypatch: pytest.MonkeyPatch, machine: str, products: bool | None, said: list[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(runtime_rules, "has_int8_products", lambda: products)
    net = Net()
    model = net.model(net.conv(net.qdq("x"), "c", most=127))
    found = check_rules(model, "portable")
    assert [one.partition("[")[2].partition("]")[0] for one in found] == said
