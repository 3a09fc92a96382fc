"""What the terminal and the page say of int8 that is no faster than float."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import pytest
from rich.console import RenderableType

from yqc.report import Report
from yqc.report.html import to_html
from yqc.report.page import Drawing, Page


def slow(sample: Report, target: str, interval: tuple[float, float] = (0.95, 0.99)) -> Report:
    assert sample.latency is not None
    latency = replace(sample.latency, ratio=0.98, interval=interval)
    return replace(sample, latency=latency, target=target, warnings=())


@pytest.mark.parametrize(
    ("target", "products", "advice"),
    [
        ("portable", True, "--target onnxruntime or --target openvino"),
        ("portable", False, "--target onnxruntime or --target openvino"),
        ("onnxruntime", False, "no int8 dot products (VNNI)"),
        ("onnxruntime", True, "`yqc lint FILE.onnx --target onnxruntime`"),
        ("openvino", None, "`yqc lint FILE.onnx --target openvino`"),
    ],
)
def test_slow_int8_meets_advice(
    sample: Report,
    target: str,
    products: bool | None,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(import_module("yqc.report.advice"), "has_int8_products", lambda: products)
    (said,) = slow(sample, target).notices
    assert "no faster than float in onnxruntime here (0.98x, 95 % interval 0.95x to 0.99x)" in said
    assert advice in said
    elsewhere = replace(slow(sample, target).environment, cpu="another")
    (said,) = replace(slow(sample, target), environment=elsewhere).notices
    assert "VNNI" not in said


def test_what_is_too_noisy_to_tell_is_said_to_be_so(sample: Report) -> None:
    (said,) = slow(sample, "portable", (0.6, 1.7)).notices
    assert "not clearly faster than float in onnxruntime here (0.98x, 95 % interval 0.60x" in said


def test_fast_files_float_files_and_unmeasured_ones_meet_none(sample: Report) -> None:
    assert slow(sample, "onnxruntime", (1.01, 1.1)).notices == ()
    assert replace(slow(sample, "onnxruntime"), latency=None).notices == ()
    assert replace(slow(sample, "onnxruntime"), layers=sample.layers[:1]).notices == ()


def test_terminal_and_page_say_so_and_the_json_does_not(
    sample: Report, printed: Callable[[RenderableType], str]
) -> None:
    """What follows from a measurement that varies stays out of what must not vary."""
    report = slow(sample, "portable")
    assert "warning   int8 is no faster than float" in printed(report)
    page = Page(report=report, recipe="", drawing=Drawing(nodes=(), edges=()))
    assert "<li>int8 is no faster than float" in to_html(page)
    assert "no faster" not in report.to_json()
