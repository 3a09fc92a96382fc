"""Scores by reconstruction: what the consumers of a channel cannot make up for.

If the channels R of a tensor go, the best linear guess of them from the others leaves the residual
covariance (P_RR)^-1, where P is the inverse of the tensor's covariance. A consumer with weight W,
whose outputs the head feels by s, then errs by

    sum_o s_o W_oR (P_RR)^-1 W_oR^T = trace(G_RR (P_RR)^-1),   G = W^T diag(s) W

after its other weights are corrected (channel pruning by least squares: He et al., ICCV 2017; the
order of removal as in optimal brain surgery: Hassibi and Stork 1993). The channels of a group go
one by one, the least error first; G and P are brought up to date after each.
"""

import numpy as np
import torch
from torch import Tensor, fx

from yqc.graph.channels.sets import Channels
from yqc.pruning.criteria import Scores
from yqc.pruning.statistics import Moments, consumers, factor, full_weight

RIDGE = 1e-3
BATCHES = 32
"""At most about so many steps a group; large groups lose several channels a step."""


def reconstruction(
    gm: fx.GraphModule,
    channels: Channels,
    moments: dict[fx.Node, Moments],
    felt: dict[fx.Node, Tensor],
) -> Scores:
    """Score sets by the error of the head that is left after correction, summed over tensors."""
    inverse: dict[fx.Node, Tensor] = {}
    gram: dict[fx.Node, Tensor] = {}
    for node in consumers(gm, channels):
        weight, source = full_weight(gm, node), node.all_input_nodes[0]
        if weight is None or node not in felt or source not in moments:
            continue
        if source not in inverse:
            inverse[source] = precision(moments[source].covariance)
            gram[source] = torch.zeros_like(inverse[source])
        scaled = weight * felt[node].sqrt().view(-1, 1, 1)
        flat = scaled.transpose(1, 2).flatten(0, 1)
        gram[source] += flat.T @ flat
    scores = np.zeros(channels.count)
    places: dict[int, list[tuple[fx.Node, Tensor]]] = {}
    for source in inverse:
        ids = channels.axes[source].ids
        order = np.argsort(ids, kind="stable")
        for index, block in enumerate(channels.blocks):
            if block.pin:
                continue
            first = np.searchsorted(ids[order], block.first)
            last = np.searchsorted(ids[order], block.first + block.count)
            if last > first:  # [count, times]: where each of the block's sets stands
                where = torch.from_numpy(order[first:last].reshape(block.count, -1))
                places.setdefault(index, []).append((source, where))
    for index, found in places.items():
        block = channels.blocks[index]
        parts = [
            (
                inverse[s][w.flatten()][:, w.flatten()],
                gram[s][w.flatten()][:, w.flatten()],
                w.shape[1],
            )
            for s, w in found
        ]
        scores[block.first : block.first + block.count] = eliminate(parts, block.count)
    return scores


def precision(covariance: Tensor) -> Tensor:
    """Invert a covariance, made regular by a small share of its mean variance."""
    return torch.cholesky_inverse(factor(covariance, RIDGE))


def eliminate(parts: list[tuple[Tensor, Tensor, int]], count: int) -> Scores:
    """Take the channels of one group out one by one; return each one's error when it went.

    Args:
        parts: for each tensor that holds the group: P and G of its channels, [count * times] a
            side, channel by channel, and how many times each channel occurs; both are overwritten.
        count: how many channels.

    Returns:
        Errors, never falling in the order of removal, float64 [count].
    """
    scores = np.zeros(count)
    left = torch.arange(count)
    size = max(1, count // BATCHES)
    worst = 0.0
    while len(left):
        cost = torch.zeros(len(left)).double()
        for part in parts:
            cost += errors(*part, left)
        order = torch.argsort(cost, stable=True)
        gone, stay = order[:size], order[size:].sort().values
        for each in gone.tolist():
            worst = max(worst, float(cost[each]))
            scores[left[each]] = worst
        if len(stay):
            for part in parts:
                make_up(*part, left[gone])
        left = left[stay]
    return scores


def errors(p: Tensor, g: Tensor, times: int, left: Tensor) -> Tensor:
    """Return the error of removing each channel that is left alone: float64 [len(left)]."""
    if times == 1:
        return g.diagonal()[left] / p.diagonal()[left]
    count = len(p) // times
    inner_p = p.view(count, times, count, times)[left, :, left]
    inner_g = g.view(count, times, count, times)[left, :, left]
    answer: Tensor = torch.linalg.solve(inner_p, inner_g)
    return answer.diagonal(dim1=1, dim2=2).sum(1)


def make_up(p: Tensor, g: Tensor, times: int, gone: Tensor) -> None:
    """Let the channels that stay make up for those that go, in P and G; what went is zero there."""
    r = (gone.unsqueeze(1) * times + torch.arange(times)).flatten()
    rows = p[r]
    within = rows[:, r]
    guess = -torch.linalg.solve(within, rows)  # x_r from x_k, and minus itself
    p.addmm_(rows.T, guess)
    half = g[:, r].addmm_(guess.T, g[r][:, r], alpha=0.5) @ guess
    g.add_(half).add_(half.T)
