"""The example of a pass: one file that is loaded, edits graphs, and is measured like any other."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import Context, Pass, Pipeline, Registry, calls, role, text, trace
from yqc.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_pass.py"
X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Registry.default()
    assert found.load_file(EXAMPLE) == ["silu-to-hardswish"]
    return found


def example(registry: Registry, **options: str) -> Pass:
    made = registry.load("silu-to-hardswish")(**options)
    assert isinstance(made, Pass)
    return made


class Net(nn.Module):
    """One SiLU that serves two convolutions, and a ReLU."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.act, self.relu = (
            *(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)),
            *(act, nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.act(self.b(self.act(self.a(x)))))  # type: ignore[no-any-return]


def test_replaces_silu_by_hardswish(registry: Registry) -> None:
    gm, ctx = trace(Net(nn.SiLU()), X), Context()
    Pipeline([example(registry)]).run(gm, ctx)
    assert text(gm).splitlines() == [
        "%x: f32[1,3,8,8] = input",
        "%a: f32[1,4,6,6] = Conv2d(%x)",
        "%act: f32[1,4,6,6] = Hardswish(%a)",
        "%b: f32[1,4,6,6] = Conv2d(%act)",
        "%act_1: f32[1,4,6,6] = Hardswish(%b)",
        "%relu: f32[1,4,6,6] = ReLU(%act_1)",
        "return %relu",
    ]
    assert torch.equal(gm(X), Net(nn.Hardswish())(X))
    assert [(r.node, r.what) for r in ctx.rewrites] == [
        ("act", "SiLU replaced by Hardswish"),
        ("act_1", "SiLU replaced by Hardswish"),
    ]


def test_the_two_differ_by_what_the_docstring_says() -> None:
    x = torch.linspace(-20, 20, 100_001)
    difference = (nn.SiLU()(x) - nn.Hardswish()(x)).abs()
    assert 0.14 < difference.max() < 0.15
    assert x[difference.argmax()].abs() == pytest.approx(3, abs=0.01)


class Detector(nn.Module):
    """One SiLU object everywhere, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.SiLU()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), act)
        self.box = nn.Sequential(nn.Conv2d(4, 4, 1), act, nn.Conv2d(4, 4, 1))
        self.cls = nn.Sequential(nn.Conv2d(4, 4, 1), act, nn.Conv2d(4, 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        y = self.stem(images)
        return torch.cat((self.box(y).flatten(2) * 8, self.cls(y).flatten(2).sigmoid()), 1)


def activations(gm: fx.GraphModule) -> dict[str, str]:
    return {role(c.node): type(c.module).__name__ for c in calls(gm, (nn.SiLU, nn.Hardswish))}


def test_leaves_the_head_alone_and_says_why(registry: Registry) -> None:
    gm, ctx = trace(Detector(), X), Context()
    Pipeline([example(registry)]).run(gm, ctx)
    assert activations(gm) == {"backbone": "Hardswish", "head.box": "SiLU", "head.cls": "SiLU"}
    assert [why for _, why in ctx.skips] == ["it is part of head.box", "it is part of head.cls"]
    Pipeline([example(registry, where="all")]).run(gm, ctx)
    assert set(activations(gm).values()) == {"Hardswish"}


def test_says_nothing_where_there_is_no_silu(registry: Registry) -> None:
    gm, ctx = trace(Net(nn.Hardswish()), X), Context()
    before = text(gm)
    (step,) = Pipeline([example(registry)]).run(gm, ctx)
    assert (text(gm), ctx.skips, step.record.changed) == (before, [], False)


def yqc(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["yqc", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def test_runs_from_the_command_line(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line of its docstring, without data."""
    output, passes = tmp_path / "x.onnx", "silu-to-hardswish,fuse"
    asked = ("--load", EXAMPLE, "--passes", passes, "--no-eval", "--json", "-q", "-o", output)
    yqc(monkeypatch, "compile", checkpoint, *asked)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["pipeline"]["expanded"] == "silu-to-hardswish,reparam,fold-bn,dce"
    ours = report["passes"][0]
    assert ours["rewrites"] > 0
    assert ours["max_abs_error"] > 0
    assert {s["why"] for s in ours["skips"]} == {
        "it is part of head.box",
        "it is part of head.cls",
    }
    assert output.is_file()


def test_is_explained_like_any_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    yqc(monkeypatch, "passes", "silu-to-hardswish", "--load", EXAMPLE, "--json")
    about = json.loads(capsys.readouterr().out)
    assert about["origin"] == str(EXAMPLE)
    assert about["doc"].startswith("silu-to-hardswish: replace SiLU by Hardswish")
    (option,) = about["options"]
    assert (option["name"], option["type"], option["default"]) == ("where", "body|all", "body")
    assert option["doc"].startswith("`body` leaves the head alone")
