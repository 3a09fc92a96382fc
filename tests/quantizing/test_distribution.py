"""What batch norms tell of a graph's tensors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.passes.nets import Residual, traced
from yqc.quantizing.distribution import Distribution, follow_distributions, transform_distribution


def normal(mean: float, deviation: float, reach: float) -> Distribution:
    """One channel."""
    spread = reach * deviation
    values = (mean, mean - spread, mean + spread, deviation)
    return Distribution(*(torch.tensor([v]) for v in values))


@pytest.mark.parametrize("reach", [6.0, 10.0])
def test_a_bent_normal_has_the_moments_of_its_samples(reach: float) -> None:
    samples = 0.7 + 1.5 * torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    found, wanted = transform_distribution(nn.SiLU(), normal(0.7, 1.5, reach)), F.silu(samples)
    torch.testing.assert_close(found.mean[0], wanted.mean(), rtol=0.01, atol=0)
    torch.testing.assert_close(found.deviation[0], wanted.std(), rtol=0.01, atol=0)
    torch.testing.assert_close(found.high[0], F.silu(torch.tensor(0.7 + reach * 1.5)))


def test_a_channel_that_never_changes_stays_one_value() -> None:
    found = transform_distribution(nn.SiLU(), normal(2.0, 0.0, 6.0))
    torch.testing.assert_close(found.mean, F.silu(torch.tensor([2.0])))
    assert float(found.deviation) < 1e-6


@pytest.mark.parametrize(
    ("role", "reach"), [("backbone", 6), ("neck", 8), ("head.cls", 10), ("head.box", 10)]
)
def test_ranges_reach_further_where_layers_are_about_objects(role: str, reach: int) -> None:
    gm = traced("fold-bn")
    for node in gm.graph.nodes:
        node.meta["yqc.role"] = role
    bn, known = Residual().stem.bn, {n.name: d for n, d in follow_distributions(gm).items()}
    high = (bn.bias + reach * bn.weight.abs()).detach()
    torch.testing.assert_close(known["stem_conv"].high, high)
    torch.testing.assert_close(known["stem_conv"].deviation, bn.weight.detach().abs())


@pytest.mark.parametrize("passes", ["fold-bn", "dce"])
def test_every_tensor_up_to_the_last_convolution_is_known(passes: str) -> None:
    gm = traced(passes)
    known = {node.name for node in follow_distributions(gm)}
    computed = {node.name for node in gm.graph.nodes if node.op != "output"}
    unknown = set() if passes == "fold-bn" else {"stem_conv", "a_conv", "b_conv"}
    assert computed - known == {"out"} | unknown


def test_a_decomposed_silu_is_followed() -> None:
    gm = traced("fold-bn,decompose-silu")
    whole = {n.name: d for n, d in follow_distributions(traced("fold-bn")).items()}
    apart = {n.name: d for n, d in follow_distributions(gm).items()}
    assert "a_act_sigmoid" in apart
    torch.testing.assert_close(apart["a_act"].mean, whole["a_act"].mean)
    torch.testing.assert_close(apart["cat"].high, whole["cat"].high)


def test_parts_that_are_joined_and_added_keep_their_deviations() -> None:
    known = {n.name: d for n, d in follow_distributions(traced("fold-bn")).items()}
    summed = known["add"].deviation
    torch.testing.assert_close(
        summed, torch.hypot(known["stem_act"].deviation, known["b_act"].deviation)
    )
    torch.testing.assert_close(
        known["cat"].deviation, torch.cat([known["a_act"].deviation, summed])
    )
