"""The HTML page, the JSON report and the ONNX file count the same bytes."""

from pathlib import Path
from typing import Any

import onnx
import pytest

import yqc
from tests.slow import slow_but
from yqc.compiler import Result
from yqc.emit import weight_bytes
from yqc.emit.breakdown import layer_tensors
from yqc.emit.tensors import tensor_bytes
from yqc.job import page as job_page
from yqc.report.charts import BarRows, Plane, charts
from yqc.report.page import Page


@pytest.fixture(
    scope="module",
    params=slow_but(
        ["fold-bn", "int8", "fold-bn,pack-int4", "fold-bn,cluster", "fold-bn,pack-int4{bits=3}"],
        *("int8", "fold-bn,pack-int4"),
    ),
)
def compiled(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Page]:
    """A compile, and what its page was made from."""
    pages: list[Page] = []
    gather = job_page.gather_page

    def kept(*args: Any) -> Page:
        pages.append(gather(*args))
        return pages[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_page, "gather_page", kept)
        output = tmp_path_factory.mktemp("page") / "out.onnx"
        result = yqc.compile(checkpoint, request.param, output=output, imgsz=64, evaluate=False)
    return result, pages[0]


def test_bytes_by_cause_are_those_of_the_file(compiled: tuple[Result, Page]) -> None:
    result, page = compiled
    model, parts = onnx.load(result.files.onnx), result.report.size.parts
    assert parts is not None
    drawn = charts(page)["bytes_by_cause"]
    assert isinstance(drawn, BarRows)
    shown = {name: bar.value for name, (bar,) in drawn.rows}
    assert shown == {name: count for name, count in vars(parts).items() if count}
    assert sum(shown.values()) == weight_bytes(model) == result.report.size.weight_bytes


def test_bytes_by_layer_are_those_of_the_file(compiled: tuple[Result, Page]) -> None:
    result, page = compiled
    model, layers = onnx.load(result.files.onnx), result.report.layers
    drawn = charts(page)["bytes_by_layer"]
    assert isinstance(drawn, Plane)
    reported = [(one.name, one.weight_bytes) for one in layers]
    assert [(one.name, one.value) for one in drawn.points] == reported
    held = {one.name: tensor_bytes(one) for one in model.graph.initializer}
    tensors = layer_tensors(model)
    for name in {one.name for one in tensors}:
        used = sum(one.bytes for one in tensors if one.name == name)
        assert held[name] - 8 < used <= held[name]  # codes are padded to a multiple of 8
    assert sum(one.weight_bytes or 0 for one in layers) == sum(one.bytes for one in tensors)
    for one in layers:
        own = [name for name in held if name.startswith(f"{one.name}.")]
        assert sum(held[name] for name in own) <= (one.weight_bytes or 0)
    assert {one.weight_bytes for one in layers} <= {node.bytes for node in page.drawing.nodes}
