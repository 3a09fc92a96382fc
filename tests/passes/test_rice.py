"""rice is what its steps are; a budget in agreement is kept, and a kill loses no layer."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, fx

from tests.passes.nets import X, calibrated, expanded, quality, traced
from yqc.job.work import Work
from yqc.quantizing.weights import rice
from yqc.store import Store

STEPS = "reparam,fold-bn,dce,pack-rice"


def test_stands_for_its_steps_and_hands_options_on() -> None:
    assert expanded("rice") == STEPS
    for options in ("{ratio_vs_fp16=5.0}", "{bits=3.5 skip=[a.*,b]}", "{max_drop=0.01}"):
        assert expanded(f"rice{options}") == STEPS + options


@pytest.mark.parametrize(
    ("passes", "steps"),
    [
        ("fold-bn,rice", "fold-bn,reparam,dce,pack-rice"),
        ("rice,int8", f"{STEPS},observe,calibrate,relax,bias-correct,quantize"),
    ],
)
def test_drops_what_is_done_already(passes: str, steps: str) -> None:
    assert expanded(passes) == steps


def mean_bits(gm: fx.GraphModule) -> float:
    """Return the bits of a weight in the mean."""
    stored = [t for name, t in gm.state_dict().items() if name.endswith("weight_packed")]
    weights = sum(p.numel() for n, p in traced("fold-bn").named_parameters() if "weight" in n)
    return 8 * sum(int(t.numel()) for t in stored) / int(weights)


def test_fewer_bits_are_taken_where_more_may_be_lost() -> None:
    """By a judge of the real error: what is taken is within the budget, and not much finer."""
    plain = traced("fold-bn")(X).detach()

    def agreement(gm: fx.GraphModule) -> float:
        error: Tensor = (gm(X) - plain).square().mean() / plain.square().mean()
        return 1 - float(error)

    found = {}
    for most in (0.03, 0.001):
        ctx = calibrated()
        ctx.agreement = agreement
        gm = traced(f"fold-bn,pack-rice{{max_drop={most}}}", ctx)
        assert 1 - agreement(gm) <= most
        assert not ctx.warnings
        found[most] = mean_bits(gm)
    assert found[0.03] < found[0.001] - 1


def test_a_drop_that_no_bits_keep_is_warned_of() -> None:
    ctx = calibrated()
    ctx.agreement = lambda _: 0.5
    gm = traced("fold-bn,pack-rice{max_drop=1%}", ctx)
    assert quality(gm) > 30
    (warning,) = ctx.warnings
    assert "max_drop is 1.00%, and at 8 bits a weight" in warning
    assert "still falls by 50.00%" in warning


def test_a_kill_loses_no_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    rounded: list[str] = []
    inner = rice.RiceRounder._round_one

    def counted(self: rice.RiceRounder, node: fx.Node, *rest: object) -> object:
        rounded.append(node.name)
        return inner(self, node, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rice.RiceRounder, "_round_one", counted)

    def run(*, resume: bool) -> fx.GraphModule:
        ctx = calibrated()
        ctx.cache = Work([store], {"job": 1}, resume=resume)
        return traced("fold-bn,pack-rice{bits=5}", ctx)

    first = run(resume=False)
    walked = len(rounded)
    entries = [e for e in store.entries() if e.key["name"].startswith("rice-")]
    assert len(entries) == walked
    entries[-1].path.unlink()
    second = run(resume=True)
    assert len(rounded) == walked + 1
    for (name, a), (_, b) in zip(
        first.state_dict().items(), second.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
