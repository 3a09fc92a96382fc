"""What passes ask of layers, the numbers that they record of nodes, and their tolerance."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import fx, nn

import yqc
from yqc import Context, Pass, Pipeline, calls
from yqc.errors import PassError
from yqc.job.explain import _explain
from yqc.look.explained import Explanation
from yqc.report import Report
from yqc.report.parts import NodeNumbers
from yqc.testing import apply, calibrated, images, nets, run, traced

NUMBER = 0.1 + 0.2
"""A number that only all digits give back."""


def net() -> fx.GraphModule:
    layers = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)
    return traced(nets.chain(*layers), (1, 3, 4, 4))


@dataclass(frozen=True)
class Shift(Pass):
    """Move the biases of the first convolution."""

    name: ClassVar[str] = "shift"
    tolerance: ClassVar[float | None] = 0.01

    by: float = 0.0

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        first = calls(gm, nn.Conv2d)[0]
        assert first.module.bias is not None
        first.module.bias.data += self.by
        ctx.measured(first.node, by=self.by, third=NUMBER)


def test_a_pass_states_how_much_it_may_change() -> None:
    gm = net()
    largest = float(run(gm)[0].abs().max())
    assert apply(Shift(by=1e-4 * largest), gm).changed
    with pytest.raises(PassError, match=r"may change the outputs by 0\.01 of the largest"):
        apply(Shift(by=10 * largest), gm)


def test_inputs_and_outputs_are_those_of_the_images() -> None:
    gm = net()
    ctx = calibrated(gm)
    first, second = (conv.node for conv in calls(gm, nn.Conv2d))
    relu = next(iter(first.users))
    inputs = list(ctx.inputs(gm, [first, second], images=2))
    outputs = list(ctx.outputs(gm, [first, relu], images=2))
    assert len(inputs) == len(outputs) == 2
    for image, read, made in zip(images(gm, 2), inputs, outputs, strict=True):
        assert torch.equal(read[first], image)
        wanted = gm.get_submodule(str(first.target))(image)
        assert torch.equal(made[first], wanted), "and not what ReLU wrote over it"
        assert torch.equal(made[relu], wanted.relu())
        assert torch.equal(read[second], wanted.relu())
    assert len(list(Context().outputs(gm, [first], images=3))) == 3, "noise where there is no data"


def test_gradients_are_those_of_the_outputs() -> None:
    gm = net()
    first, second = (conv.node for conv in calls(gm, nn.Conv2d))
    found = list(calibrated(gm).gradients(gm, [first, second], images=2))
    weight = gm.get_parameter(f"{second.target}.weight").detach()[:, :, 0, 0]
    for image, slopes in zip(images(gm, 2), found, strict=True):
        before = gm.get_submodule(str(first.target))(image)
        behind = torch.einsum("oi,nohw->nihw", weight, slopes[second])
        torch.testing.assert_close(slopes[first], behind * (before > 0))
        assert slopes[second].abs().sum() > 0


def record(gm: fx.GraphModule) -> tuple[Context, Any]:
    ctx = Context()
    (step,) = Pipeline([Shift(by=0.5)]).run(gm, ctx)
    return ctx, step.record


def test_numbers_stand_in_records_as_they_are() -> None:
    ctx, found = record(net())
    assert found.values == (NodeNumbers(node="conv2d", numbers={"by": 0.5, "third": NUMBER}),)
    assert ctx.values == [("conv2d", {"by": 0.5, "third": NUMBER})]
    node = next(iter(net().graph.nodes))
    for bad in (float("nan"), "much"):
        with pytest.raises(PassError, match="x: error must be a finite number"):
            ctx.measured(node, error=bad)  # type: ignore[arg-type]


def test_numbers_stand_in_explanations() -> None:
    gm, ctx = net(), Context()
    one = Explanation((_explain(Shift(by=0.5), gm, ctx, last=True, after=[]),))
    assert f'"third": {NUMBER!r}' in one.to_json()
    assert "conv2d" in str(one)
    assert "third" in str(one)


def test_numbers_stand_in_the_report_and_the_page(tmp_path: Path) -> None:
    report = yqc.compile(net(), [Shift(by=1e-4)], output=tmp_path / "x.onnx").report
    found = Report.from_json(report.to_json()).passes[0].values
    assert found == (NodeNumbers(node="conv2d", numbers={"by": 1e-4, "third": NUMBER}),)
    page = (tmp_path / "x.report.html").read_text()
    assert "shift recorded numbers of 1 node" in page
    assert "<td>conv2d</td>" in page
