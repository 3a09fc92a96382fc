"""yqc.testing: its assertions fail when they should, and its nets are what they say."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import fx, nn

from yqc import Context, Pass, calls
from yqc.errors import PassError
from yqc.testing import apply, assert_same_numbers, assert_text, golden, nets, run, traced

NETS: list[Callable[..., nn.Module]] = [nets.conv_bn, nets.residual, nets.csp, nets.detector]


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply the weights of every convolution."""

    name: ClassVar[str] = "scale"
    keeps_numbers: ClassVar[bool] = True

    by: float = 1.0
    """The factor."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for conv in calls(gm, nn.Conv2d):
            if self.by == 1:
                ctx.skipped(conv.node, "nothing to do")
                continue
            with torch.no_grad():
                conv.module.weight.mul_(self.by)
            ctx.rewrote(conv.node, "scaled")


@pytest.mark.parametrize("net", NETS)
def test_nets_are_traced_seeded_and_unlike_the_identity(net: Callable[..., nn.Module]) -> None:
    one, two = (traced(net(), (1, 3, 16, 16)) for _ in range(2))
    assert torch.equal(run(one)[0], run(two)[0])
    assert not torch.equal(run(one)[0], run(traced(net(seed=1), (1, 3, 16, 16)))[0])
    for bn in calls(one, nn.BatchNorm2d):
        assert bn.module.running_var is not None
        assert (bn.module.running_var != 1).all()


def test_the_detector_has_the_roles_of_one() -> None:
    gm = traced(nets.detector(), (1, 3, 16, 16))
    assert {n.meta["yqc.role"] for n in gm.graph.nodes} == {
        *("backbone", "head.box", "head.cls", "head.decode")
    }
    assert run(gm)[0].shape == (1, 6, 64 + 16)


def test_apply_tells_what_a_pass_did() -> None:
    gm = traced(nets.conv_bn(), (1, 3, 8, 8))
    done = apply(Scale(), gm)
    assert (done.rewrites, done.skips) == ([], [("conv", "nothing to do")])
    assert not done.changed


def test_apply_holds_a_pass_to_its_word() -> None:
    with pytest.raises(PassError, match="declares that it keeps the numbers"):
        apply(Scale(by=2), traced(nets.conv_bn(), (1, 3, 8, 8)))


def test_assert_text_shows_a_diff() -> None:
    gm = traced(nets.chain(nn.ReLU()), (1, 3, 2, 2))
    assert_text(gm, "%x: f32[1,3,2,2] = input\n%relu: f32[1,3,2,2] = ReLU(%x)\nreturn %relu")
    with pytest.raises(AssertionError, match=r"(?s)otherwise:.*-return %x.*\+return %relu"):
        assert_text(gm, "%x: f32[1,3,2,2] = input\n%relu: f32[1,3,2,2] = ReLU(%x)\nreturn %x")


def test_golden_files_are_compared_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gm, path = traced(nets.chain(nn.ReLU()), (1, 3, 2, 2)), tmp_path / "golden" / "relu.txt"
    with pytest.raises(AssertionError, match="--update-golden"):
        assert_text(gm, path)
    monkeypatch.setattr(golden, "UPDATE", True)
    assert_text(gm, path)
    monkeypatch.setattr(golden, "UPDATE", False)
    assert path.read_text().endswith("return %relu\n")
    assert_text(gm, path)


def test_same_numbers_fails_on_another_shape_a_difference_and_nan() -> None:
    one = [torch.ones(2, 2)]
    assert_same_numbers([torch.full((2, 2), 1.001)], one, tolerance=0.01)
    with pytest.raises(AssertionError, match=r"differ by 0\.5, where the largest is 1"):
        assert_same_numbers([torch.full((2, 2), 1.5)], one, tolerance=0.01)
    with pytest.raises(AssertionError, match="the shapes are"):
        assert_same_numbers([torch.ones(4)], one, tolerance=1)
    with pytest.raises(AssertionError, match="differ by nan"):
        assert_same_numbers([torch.full((2, 2), torch.nan)], one, tolerance=1)


@pytest.mark.slow
def test_pytest_writes_golden_files_when_asked(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from pathlib import Path\n"
        "from torch import nn\n"
        "from yqc.testing import assert_text, nets, traced\n"
        "def test_it():\n"
        "    gm = traced(nets.chain(nn.ReLU()), (1, 3, 2, 2))\n"
        "    assert_text(gm, Path('relu.txt'))\n"
    )
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "yqc.testing.plugin"]
    for flags, code in (([], 1), (["--update-golden"], 0), ([], 0)):
        done = subprocess.run(  # noqa: S603
            [*asked, *flags], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == code, done.stdout
    assert (tmp_path / "relu.txt").is_file()
