"""Operators of users' own domains, and lowerings of their modules and functions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, fx, nn

import yqc
from yqc.compiler import compile  # noqa: A004  # what is tested
from yqc.emit import TABLE, Emitter, emit
from yqc.errors import BudgetError
from yqc.graph.optable import WHOLE
from yqc.models.trace import trace
from yqc.testing import nets

X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Mish2(nn.Module):
    """x tanh(softplus(beta x)), which no runtime of ONNX has as one operator."""

    def __init__(self, beta: float = 1.5) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tanh(nn.functional.softplus(self.beta * x))


class Negated(Mish2):
    """A subclass that computes something else; its lowering sees that it is one."""

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


def halved(x: Tensor) -> Tensor:
    return x / 2


class Halving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return halved(x)


def lower_mish2(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    module = e.module(node, Mish2)
    made = e.op("Mish2", x, domain="acme.ops", beta=module.beta)
    return e.op("Neg", made) if isinstance(module, Negated) else made


def lower_halved(e: Emitter, _: fx.Node, x: fx.Node) -> str:
    return e.op("Mul", x, e.scalar(0.5))


@pytest.fixture(autouse=True)
def lowerings() -> Iterator[None]:
    tables: list[dict[Any, Any]] = [TABLE, WHOLE]
    before = [dict(table) for table in tables]
    yqc.lowering(Mish2)(lower_mish2)
    yqc.lowering(halved)(lower_halved)
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


def net(*modules: nn.Module) -> nn.Module:
    return nets.chain(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), *modules)


def test_the_file_holds_the_operator_between_simplified_others() -> None:
    model = emit(trace(net(Mish2(), nn.Conv2d(4, 2, 1)), X))
    onnx.checker.check_model(model, full_check=True)
    kinds = [(node.domain, node.op_type) for node in model.graph.node]
    assert kinds == [("", "Conv"), ("acme.ops", "Mish2"), ("", "Conv")]
    assert [helper.f for helper in model.graph.node[1].attribute] == [1.5]
    assert {opset.domain: opset.version for opset in model.opset_import}["acme.ops"] == 1


def test_a_lowering_serves_subclasses_and_functions() -> None:
    model = emit(trace(net(Negated(2.0), Halving()), X))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Mish2", "Neg", "Mul"]


def test_such_a_file_is_checked_and_not_run(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8), (60 * number, 9, 9)).save(tmp_path / f"{number}.png")
    how: dict[str, Any] = {
        "output": tmp_path / "out.onnx",
        "imgsz": 8,
        "html": False,
        "data": tmp_path,
    }
    report = compile(net(Mish2()), "fold-bn", **how).report
    assert report.verification.not_run == "acme.ops"
    assert (report.accuracy.kind, report.latency) == ("none", None)
    shown = str(report)
    assert "valid, not run: onnxruntime does not know acme.ops" in shown
    with pytest.raises(BudgetError, match="no accuracy could be measured"):
        compile(net(Mish2()), "fold-bn", max_drop="1%", **how)


def test_four_bit_weights_go_with_such_an_operator(tmp_path: Path) -> None:
    how: dict[str, Any] = {"output": tmp_path / "out.onnx", "imgsz": 8, "html": False}
    report = compile(net(Mish2(), nn.Conv2d(4, 2, 1)), "fold-bn,pack-int4", **how).report
    assert report.verification.not_run == "acme.ops"
    assert {layer.weight_bits for layer in report.layers} == {4}
