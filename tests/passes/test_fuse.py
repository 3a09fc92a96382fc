"""fuse: which passes the recipe stands for, and that all of them keep the numbers."""

import pytest
from torch import fx, nn

from yqc import Context, Pipeline, text
from yqc.testing import apply, assert_same_numbers, assert_text, nets, run, traced


def net() -> fx.GraphModule:
    """A unit, a RepConv with its identity, a dropout."""
    body = nn.Sequential(nets.Unit(3, 3, 3), nets.rep_conv(), nn.Dropout())
    return traced(nets.seeded(body), (2, 3, 9, 9))


@pytest.mark.parametrize("passes", ["fuse", "reparam,fold-bn,dce", "fold-bn,reparam,dce"])
def test_fuses_in_any_order(passes: str) -> None:
    gm = net()
    want = run(gm)
    apply(passes, gm)
    assert_text(
        gm,
        """
        %input_1: f32[2,3,9,9] = input
        %_0_conv: f32[2,3,9,9] = Conv2d(%input_1)
        %_0_act: f32[2,3,9,9] = SiLU(%_0_conv)
        %_1_stem: f32[2,4,9,9] = Conv2d(%_0_act)
        %_1_relu: f32[2,4,9,9] = ReLU(%_1_stem)
        %_1_wide: f32[2,4,9,9] = Conv2d(%_1_relu)
        %_1_act: f32[2,4,9,9] = SiLU(%_1_wide)
        return %_1_act
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-5)


def test_prints_what_it_stands_for() -> None:
    assert list(map(str, Pipeline.parse("fuse").expand())) == ["reparam", "fold-bn", "dce"]


def test_drops_the_steps_whose_result_is_there() -> None:
    names = [p.name for p in Pipeline.parse("fold-bn,fuse").expand()]
    assert names == ["fold-bn", "reparam", "dce"]


def test_finds_nothing_the_second_time() -> None:
    gm = net()
    apply("fuse", gm)
    before = text(gm)
    again = apply("reparam,fold-bn,dce", gm, Context())
    assert text(gm) == before
    assert (again.changed, again.rewrites) == (False, [])
