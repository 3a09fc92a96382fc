"""What single blocks compute, against a second way to compute it."""

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yqc.models.blocks.attention import A2C2f, AAttn, Attention
from yqc.models.blocks.conv import Contract, Conv, Expand, ReOrg, Sum
from yqc.models.blocks.csp import C3, C2f
from yqc.models.blocks.elan import CBFuse, CBLinear
from yqc.models.blocks.pool import SPP, SPPF, ADown
from yqc.models.blocks.rep import RepConv, RepConv7, RepVGGDW
from yqc.models.blocks.transformer import SelfAttention, TransformerBlock


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def assert_close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_conv_works_without_its_batch_norm_as_after_fusing(checkpoints: ModuleType) -> None:
    conv, x = Conv(4, 6, 3, 2).eval(), torch.randn(2, 4, 8, 8)
    checkpoints.randomise(conv)
    fused = nn.utils.fusion.fuse_conv_bn_eval(conv.conv, conv.bn)
    want = conv(x)
    conv.conv = fused
    del conv.bn
    assert_close(conv(x), want)


def test_space_to_depth_orders_corners_column_by_column() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    want = [[0, 2, 8, 10], [4, 6, 12, 14], [1, 3, 9, 11], [5, 7, 13, 15]]
    assert ReOrg()(x).flatten(2)[0].tolist() == want


def test_contract_then_expand_is_the_identity() -> None:
    x = torch.randn(2, 3, 6, 9)
    y = Contract(3)(x)
    assert y.shape == (2, 27, 2, 3)
    assert torch.equal(y[:, 3:6], x[:, :, 0::3, 1::3])  # Columns first, channels last.
    assert torch.equal(Expand(3)(y), x)


def test_sum_weights_all_but_the_first() -> None:
    block, xs = Sum(3, weight=True), [torch.randn(1, 2, 3, 3) for _ in range(3)]
    factors = 2 * torch.sigmoid(block.w)
    assert_close(block(xs), xs[0] + factors[0] * xs[1] + factors[1] * xs[2])
    assert_close(Sum(3)(xs), xs[0] + xs[1] + xs[2])


def test_c2f_keeps_every_step_and_c3_only_the_last(checkpoints: ModuleType) -> None:
    x = torch.randn(2, 8, 6, 6)
    c2f, c3 = C2f(8, 8, 2, shortcut=True).eval(), C3(8, 8, 2).eval()
    checkpoints.randomise(c2f)
    checkpoints.randomise(c3)
    a, b = c2f.cv1(x)[:, :4], c2f.cv1(x)[:, 4:]
    first = c2f.m[0](b)
    assert_close(c2f(x), c2f.cv2(torch.cat([a, b, first, c2f.m[1](first)], 1)))
    assert_close(c3(x), c3.cv3(torch.cat([c3.m(c3.cv1(x)), c3.cv2(x)], 1)))


def test_sppf_equals_spp_of_growing_sizes(checkpoints: ModuleType) -> None:
    fast, x = SPPF(8, 8, 5).eval(), torch.randn(1, 8, 16, 16)
    checkpoints.randomise(fast)
    slow = SPP(8, 8, (5, 9, 13)).eval()
    slow.load_state_dict(fast.state_dict())
    assert_close(fast(x), slow(x))
    residual = SPPF(8, 8, 5, 3, shortcut=True).eval()
    residual.load_state_dict(fast.state_dict())
    residual.cv1.act = fast.cv1.act
    assert_close(residual(x), fast(x) + x)


def test_adown_pools_one_half_and_convolves_the_other(checkpoints: ModuleType) -> None:
    block, x = ADown(4, 6).eval(), torch.randn(1, 4, 8, 8)
    checkpoints.randomise(block)
    mean = F.avg_pool2d(x, 2, 1)
    want = [block.cv1(mean[:, :2]), block.cv2(F.max_pool2d(mean[:, 2:], 3, 2, 1))]
    assert_close(block(x), torch.cat(want, 1))


@pytest.mark.parametrize("stride", [1, 2])
def test_repconv_of_both_projects_sums_its_branches(stride: int, checkpoints: ModuleType) -> None:
    nine, seven = RepConv(6, 6, 3, stride).eval(), RepConv7(6, 6, 3, stride).eval()
    x = torch.randn(1, 6, 8, 8)
    for block in (nine, seven):
        checkpoints.randomise(block)
    assert_close(nine(x), F.silu(nine.conv1(x) + nine.conv2(x)))
    dense, point = seven.rbr_dense(x), seven.rbr_1x1(x)
    identity = seven.rbr_identity(x) if stride == 1 else 0
    assert_close(seven(x), F.silu(dense + point + identity))
    assert (seven.child("rbr_identity") is None) == (stride == 2)


def test_merged_branches_of_deployed_checkpoints_are_used() -> None:
    x, merged = torch.randn(1, 6, 8, 8), nn.Conv2d(6, 6, 3, padding=1)
    nine, seven, ten = RepConv(6, 6), RepConv7(6, 6), RepVGGDW(6)
    del nine.conv1, nine.conv2, seven.rbr_dense, seven.rbr_1x1, seven.rbr_identity, ten.conv1
    for block, name in ((nine, "conv"), (seven, "rbr_reparam"), (ten, "conv")):
        block.add_module(name, merged)
    for block in (nine, seven, ten):
        assert_close(block.eval()(x), F.silu(merged(x)))


def test_cbfuse_enlarges_the_part_it_was_told_to_take() -> None:
    links, x = CBLinear(4, [3, 5]), torch.randn(2, 4, 4, 4)
    parts = links(x)
    y = torch.randn(2, 5, 8, 8)
    want = y + parts[1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert_close(CBFuse([1])([parts, y]), want)


def test_attention_equals_torch(checkpoints: ModuleType) -> None:
    block, x = Attention(32, num_heads=4).eval(), torch.randn(2, 32, 3, 5)
    checkpoints.randomise(block)
    heads = block.qkv(x).view(2, 4, 16, 15).transpose(2, 3)
    q, k, v = torch.split(heads, [4, 4, 8], 3)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(2, 32, 3, 5)
    values = v.transpose(2, 3).reshape(2, 32, 3, 5)
    assert_close(block(x), block.proj(mixed + block.pe(values)))


@pytest.mark.parametrize("area", [1, 4])
def test_area_attention_attends_within_bands(area: int, checkpoints: ModuleType) -> None:
    block, x = AAttn(16, 2, area).eval(), torch.randn(2, 16, 8, 3)
    checkpoints.randomise(block)
    q, k, v = block.qkv(x).view(2, 2, 24, 24).transpose(2, 3).chunk(3, 3)
    bands = [
        F.scaled_dot_product_attention(q[:, :, band], k[:, :, band], v[:, :, band])
        for band in (slice(i, i + 24 // area) for i in range(0, 24, 24 // area))
    ]
    mixed = torch.cat(bands, 2).transpose(2, 3).reshape(2, 16, 8, 3)
    values = v.transpose(2, 3).reshape(2, 16, 8, 3)
    assert_close(block(x), block.proj(mixed + block.pe(values)))


def test_a2c2f_scales_its_residual_channel_by_channel(checkpoints: ModuleType) -> None:
    block, x = A2C2f(64, 64, 1, True, 1, True).eval(), torch.randn(1, 64, 4, 4)
    checkpoints.randomise(block)
    plain = A2C2f(64, 64, 1, True, 1, False).eval()
    plain.load_state_dict(block.state_dict(), strict=False)
    gamma = block.gamma.data.flatten()
    assert_close(block(x), x + gamma.view(1, -1, 1, 1) * plain(x))
    block.gamma.data = gamma  # As checkpoints store it.
    block.finish()
    assert_close(block(x), x + gamma.view(1, -1, 1, 1) * plain(x))


def test_self_attention_equals_torch_before_and_after_unpacking(checkpoints: ModuleType) -> None:
    torch_one, ours = nn.MultiheadAttention(16, 4).eval(), SelfAttention(16, 4).eval()
    checkpoints.randomise(torch_one)
    nn.init.normal_(torch_one.in_proj_bias)
    ours.load_state_dict(torch_one.state_dict())
    q, k, v = torch.randn(3, 2, 6, 16)
    want = torch_one(*(t.transpose(0, 1) for t in (q, k, v)))[0].transpose(0, 1)
    assert_close(ours(q, k, v), want)
    ours.finish()
    assert_close(ours(q, k, v), want)
    assert {name for name, _ in ours.named_children()} == {"q", "k", "v", "out_proj"}


def test_transformer_block_keeps_rows_and_columns_apart(checkpoints: ModuleType) -> None:
    block, x = TransformerBlock(8, 8, 2, 1).eval(), torch.randn(2, 8, 3, 5)
    checkpoints.randomise(block)
    y = block(x)
    mirrored = block(x.flip(3)).flip(3)  # Attention does not know where positions are.
    assert y.shape == x.shape
    assert_close(mirrored, y)
    assert not torch.allclose(block(x.transpose(2, 3)), y.reshape(2, 8, 5, 3))
