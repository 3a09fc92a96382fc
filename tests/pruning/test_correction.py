"""Scores and corrections from calibration images, against what algebra says."""

import copy

import numpy as np
import torch
from torch import Tensor, fx, nn

from tests.modules import conv, norm
from yqc import trace
from yqc.graph.channels.groups import find_channels
from yqc.graph.channels.sets import Channels
from yqc.pruning.correction import Correction
from yqc.pruning.gradient_scores import score_by_curvature, score_by_slope
from yqc.pruning.reconstruction_scores import remove_one_by_one, score_by_reconstruction
from yqc.pruning.statistics import measure_moments, measure_relevance
from yqc.pruning.surgery import Keep, remove_channels
from yqc.pruning.weight_scores import score_by_bn_scale, score_by_magnitude
from yqc.pruning.without_data import follow_channels, score_by_variance

IMAGES = [
    torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(8)
]


class Redundant(nn.Module):
    """Eight channels of which the last two are a mixture of the others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.bn, self.z = (
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 4, 1),
        )
        with torch.no_grad():
            self.a.weight[6] = self.a.weight[0] - 2 * self.a.weight[1]
            self.a.weight[7] = self.a.weight[2] + self.a.weight[3]
            self.bn.weight.uniform_(0.5, 1.5)
            self.bn.bias.uniform_(-0.5, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.z(self.bn(self.a(x)))
        return y


def prepared() -> tuple[fx.GraphModule, Channels]:
    gm = trace(Redundant(), IMAGES[0])
    return gm, find_channels(gm)


def without(channels: Channels, *gone: int) -> Keep:
    keep = np.ones(channels.count, dtype=np.bool_)
    slot = channels.slot("a", "out")
    assert slot is not None
    keep[slot.ids[list(gone)]] = False
    return keep


def distance(a: fx.GraphModule, b: fx.GraphModule) -> float:
    with torch.no_grad():
        return float((a(IMAGES[0]) - b(IMAGES[0])).square().mean())


def test_what_others_tell_goes_first_and_costs_nothing() -> None:
    gm, channels = prepared()
    relevance = measure_relevance(gm, channels, IMAGES, 0)
    scores = score_by_reconstruction(
        gm, channels, measure_moments(gm, channels, IMAGES, 0), relevance
    )
    made = channels.slot("a", "out")
    assert made is not None
    own = np.sort(scores[made.ids])
    assert own[1] < 0.05 * own[2]


def test_correction_makes_up_for_what_others_tell() -> None:
    gm, channels = prepared()
    keep = without(channels, 6, 7)
    pruned = copy.deepcopy(gm)
    remove_channels(pruned, channels, keep)
    before = distance(gm, pruned)
    error = Correction(gm, pruned, channels, keep, 0).run(torch.cat(IMAGES))
    after = distance(gm, pruned)
    assert after < before / 500
    assert error < 1e-2


def test_correction_of_what_nothing_tells_keeps_the_mean() -> None:
    gm, channels = prepared()
    keep = without(channels, 0, 1, 2, 3)
    pruned = copy.deepcopy(gm)
    remove_channels(pruned, channels, keep)
    Correction(gm, pruned, channels, keep, 0).run(torch.cat(IMAGES))
    error = (pruned(torch.cat(IMAGES)) - gm(torch.cat(IMAGES))).mean((0, 2, 3))
    torch.testing.assert_close(error, torch.zeros(4), rtol=0, atol=1e-4)


def test_elimination_finds_the_error_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(1)
    x = (
        torch.randn(4000, 5, generator=generator).double()
        @ torch.randn(5, 5, generator=generator).double()
    )
    x -= x.mean(0)
    w = torch.randn(3, 5, generator=generator).double()
    covariance = x.T @ x / len(x)
    scores = remove_one_by_one([(torch.linalg.inv(covariance), w.T @ w, 1)], 5)
    first = int(np.argmin(scores))
    rest = [i for i in range(5) if i != first]
    fit = torch.linalg.lstsq(x[:, rest], x @ w.T).solution
    error = (x @ w.T - x[:, rest] @ fit).square().sum(1).mean()
    np.testing.assert_allclose(scores[first], float(error), rtol=1e-6)
    assert sorted(scores) == sorted(np.maximum.accumulate(np.sort(scores)))


def test_a_batch_of_images_tells_what_they_tell_one_by_one() -> None:
    gm, channels = prepared()
    together = [torch.cat(IMAGES)]
    relevance = measure_relevance(gm, channels, together, 0)
    for node, alone in measure_relevance(gm, channels, IMAGES, 0).items():
        torch.testing.assert_close(relevance[node], alone)
    met = measure_moments(gm, channels, together, 0)
    for node, one in measure_moments(gm, channels, IMAGES, 0).items():
        torch.testing.assert_close(met[node].mean, one.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(met[node].covariance, one.covariance, rtol=1e-4, atol=1e-6)


def test_channels_that_nobody_weighs_score_nothing() -> None:
    gm, channels = prepared()
    with torch.no_grad():
        conv(gm, "z").weight[:, 2] = 0
    made = channels.slot("a", "out")
    assert made is not None
    for scores in (
        score_by_curvature(gm, channels, IMAGES, 0),
        score_by_slope(gm, channels, IMAGES),
        score_by_variance(gm, channels),
        score_by_reconstruction(
            gm,
            channels,
            measure_moments(gm, channels, IMAGES, 0),
            measure_relevance(gm, channels, IMAGES, 0),
        ),
    ):
        assert int(np.argmin(scores[made.ids])) == 2
        assert scores[made.ids[2]] < 1e-9


def test_weights_are_judged_with_the_batch_norm_folded_in() -> None:
    gm, channels = prepared()
    bn = norm(gm, "bn")
    assert bn.running_var is not None
    factor = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    rows = (conv(gm, "a").weight * factor.view(-1, 1, 1, 1)).flatten(1)
    made = channels.slot("a", "out")
    assert made is not None
    for power, norms in ((1, rows.abs().sum(1)), (2, rows.norm(dim=1))):
        got = score_by_magnitude(gm, channels, power)[made.ids]
        np.testing.assert_allclose(got, (norms / norms.mean()).detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(
        score_by_bn_scale(gm, channels)[made.ids], bn.weight.detach().numpy()
    )


def test_batch_norms_tell_mean_and_deviation() -> None:
    gm, channels = prepared()
    node = next(n for n in gm.graph.nodes if n.name == "bn")
    found, bn = follow_channels(gm, channels)[node], norm(gm, "bn")
    torch.testing.assert_close(found.mean, bn.bias.detach())
    torch.testing.assert_close(found.deviation, bn.weight.detach().abs())


def test_a_convolution_that_is_called_twice_is_not_corrected() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.a, self.b, self.z = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.z(self.b(self.b(self.a(x))))
            return y

    gm = trace(Twice(), IMAGES[0])
    channels = find_channels(gm)
    keep = without(channels, 0, 3)
    pruned = copy.deepcopy(gm)
    remove_channels(pruned, channels, keep)
    weight, last = conv(pruned, "b").weight.clone(), conv(pruned, "z").weight.clone()
    Correction(gm, pruned, channels, keep, 0).run(torch.cat(IMAGES))
    assert torch.equal(conv(pruned, "b").weight, weight)
    assert not torch.equal(conv(pruned, "z").weight, last)
