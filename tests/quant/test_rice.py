"""Codes of variable length: what is encoded is decoded, and damage is an error."""

import pytest
import torch
from torch import Tensor

from yqc.quant.weights.ops import unpack_rice
from yqc.quant.weights.packing import pack
from yqc.quant.weights.rice import (
    MOST_LOW,
    START,
    Plane,
    Planes,
    choose_low,
    code_lengths,
    code_network,
    decode_levels,
    encode_levels,
    find_planes,
    levels_of,
    packed_size,
    rank_levels,
    read_planes,
    write_planes,
)
from yqc.quant.weights.rice_layer import channel_factors, round_rice
from yqc.quant.weights.rounding import InputMoments

SPLITS: tuple[Planes, ...] = (
    START,
    (Plane(8),),
    (Plane(1, 1), Plane(8, 255), Plane(8)),
    (Plane(1, 1), Plane(1, 1), Plane(4, 9), Plane(3, 5), Plane(8)),
    (Plane(5, 31), Plane(8, 255), Plane(8)),
)


def integers(count: int, spread: float, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(count, generator=g) * spread).round().long()


def test_ranks_order_integers_by_magnitude() -> None:
    q = torch.tensor([0, 1, -1, 2, -2, 4095, -4095])
    assert rank_levels(q).tolist() == [0, 1, 2, 3, 4, 8189, 8190]
    assert torch.equal(levels_of(rank_levels(q)), q)


@pytest.mark.parametrize("planes", SPLITS)
@pytest.mark.parametrize("low", [0, 1, 3, 8, MOST_LOW])
@pytest.mark.parametrize(("count", "spread"), [(0, 1.0), (1, 9.0), (13, 0.0), (999, 20.0)])
def test_what_is_encoded_is_decoded(planes: Planes, low: int, count: int, spread: float) -> None:
    q = integers(count, spread)
    packed = encode_levels(q, low, planes)
    assert torch.equal(decode_levels(packed, count, low, planes), q)
    counts = torch.bincount(rank_levels(q), minlength=1)
    assert packed.numel() == packed_size(counts, low, planes)
    if count:
        bits = code_lengths(planes, low)[rank_levels(q)].sum()
        assert bits <= 8 * packed.numel() <= bits + 8 * (len(planes) + 2)


def test_extreme_integers_are_coded_or_refused() -> None:
    q = torch.tensor([4095, -4095, 0, 2047])
    packed = encode_levels(q, MOST_LOW, START)
    assert torch.equal(decode_levels(packed, 4, MOST_LOW, START), q)
    with pytest.raises(ValueError, match="too small for the largest"):
        encode_levels(q, 0, START)
    assert code_lengths(START, 0)[rank_levels(q[1:2])].isinf()
    planes, (low,) = code_network([torch.bincount(rank_levels(q))])
    assert torch.equal(decode_levels(encode_levels(q, low, planes), 4, low, planes), q)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_cut_or_longer_stream_is_an_error(change: int) -> None:
    packed = encode_levels(integers(999, 20.0), 2, START)
    wrong = packed[:change] if change < 0 else torch.nn.functional.pad(packed, (0, 1))
    with pytest.raises(ValueError, match="stream"):
        decode_levels(wrong, 999, 2, START)


def test_planes_are_numbers_of_an_operator() -> None:
    assert read_planes(write_planes(START)) == START
    for wrong in ([], [2, 1], [9, 0], [2, 4, 8, 0], [2, 0, 8, 0]):
        with pytest.raises(ValueError, match="planes"):
            read_planes(wrong)


def test_found_codes_are_within_5_percent_of_the_entropy() -> None:
    share = torch.linspace(1e-4, 1 - 1e-4, 20000) - 0.5
    q = (-3.0 * share.sign() * torch.log1p(-2 * share.abs())).round()  # of a Laplace distribution
    counts = torch.bincount(rank_levels(q))
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * share.log2()).sum())
    planes, (low,) = code_network([counts])
    assert entropy < 8 * packed_size(counts, low, planes) / len(q) < 1.05 * entropy
    assert choose_low(counts, planes)[0] == low


def test_found_planes_are_no_longer_than_others() -> None:
    counts = torch.tensor([50, 30, 9, 5, 3, 2, 1])

    def size(planes: Planes) -> int:
        return packed_size(counts * 8, 0, planes)

    assert size(find_planes(counts)) <= min(size(p) for p in (*SPLITS, (Plane(3),)))


def test_rounding_lowers_damage_and_bits_at_one_price() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 24, generator=g) + 2 * torch.randn(500, 1, generator=g)
    moments = InputMoments((x.t() @ x / 500).unsqueeze(0))
    w = torch.randn(16, 24, generator=g) * 0.1
    relevance = torch.logspace(0, 3, 16)
    done = round_rice(w, moments, relevance, 1e-1, 0.1, START, (16, 24, 1, 1))
    assert done.exponents[0] > done.exponents[-1]  # what matters less has larger steps
    nearest = (w / done.step.unsqueeze(1)).round() * done.step.unsqueeze(1)
    damage = [(moments.errors(q - w) * relevance).sum() for q in (done.weight.flatten(1), nearest)]
    assert damage[0] < 0.7 * damage[1]
    finer = round_rice(w, moments, relevance, 1e-3, 0.01, START, (16, 24, 1, 1))
    assert finer.scale < done.scale


def test_the_operator_decodes_what_is_stored() -> None:
    g = torch.Generator().manual_seed(0)
    h = InputMoments(torch.eye(9).expand(6, 9, 9))
    w = torch.randn(6, 9, generator=g)
    done = round_rice(w, h, torch.rand(6, generator=g), 1e-3, 0.05, START, (6, 1, 3, 3))
    stored = done.tensors(1, START)
    args = (stored["scale"], stored["exponents"], [6, 1, 3, 3], 1, write_planes(START))
    assert torch.equal(unpack_rice(stored["packed"], *args), done.weight)
    assert stored["exponents"].numel() == 3
    assert torch.equal(stored["exponents"], pack(done.exponents.to(torch.int16) + 8, 4))
    step = stored["scale"].float() * channel_factors(done.exponents)
    torch.testing.assert_close(done.levels.float() * step.view(-1, 1), done.weight.flatten(1))
