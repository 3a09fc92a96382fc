"""channel-prune on small nets: what it removes, keeps, refuses and says."""

import copy
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, fx, nn

from tests.modules import conv
from yqc import Context, Pipeline, YqcError, text, trace
from yqc.errors import PassError, PipelineError
from yqc.graph.compare import macs, parameter_count
from yqc.testing import apply
from yqc_passes.channel_prune import ChannelPrune

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = [
    torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(6)
]


class Block(nn.Module):
    """A C2f: a chunk, a residual, a concatenation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.bn1 = nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)
        self.m, self.bn2 = nn.Conv2d(c // 2, c // 2, 3, padding=1), nn.BatchNorm2d(c // 2)
        self.cv2, self.act = nn.Conv2d(c + c // 2, c, 1), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.act(self.bn1(self.cv1(x))).chunk(2, 1)
        added = right + self.act(self.bn2(self.m(right)))
        y: Tensor = self.cv2(torch.cat((left, right, added), 1))
        return y


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.bn = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.block, self.act = Block(32), nn.SiLU()
        self.deep, self.head = nn.Conv2d(32, 48, 3, padding=1), nn.Conv2d(48, 6, 1)
        for norm in (m for m in self.modules() if isinstance(m, nn.BatchNorm2d)):
            assert norm.running_var is not None
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.05, 0.2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.block(self.act(self.bn(self.stem(images))))
        y: Tensor = self.head(self.act(self.deep(x)))
        return y


def traced() -> fx.GraphModule:
    gm = trace(Small(), X)
    for parameter in gm.parameters():
        parameter.requires_grad_(False)
    return gm


def context(*, data: bool = True) -> Context:
    def stream() -> Iterator[Tensor]:
        yield from IMAGES

    return Context(target="portable", example=X, calibration=stream if data else None)


def pruned(options: str, *, data: bool = True) -> tuple[fx.GraphModule, fx.GraphModule, Context]:
    gm, ctx = traced(), context(data=data)
    before = copy.deepcopy(gm)
    (action,) = Pipeline.parse(f"channel-prune{{{options}}}").expand()
    apply(action, gm, ctx)
    return before, gm, ctx


def gone(before: fx.GraphModule, after: fx.GraphModule) -> float:
    return 1 - parameter_count(after) / parameter_count(before)


def error(before: fx.GraphModule, after: fx.GraphModule) -> float:
    want, got = before(torch.cat(IMAGES)), after(torch.cat(IMAGES))
    return float((want - got).square().mean() / want.var())


@pytest.mark.parametrize("criterion", ["l1", "l2", "bn-scale", "random", "auto"])
def test_removes_the_share_that_is_asked_without_data(criterion: str) -> None:
    options = f"ratio=0.4 criterion={criterion} round_to=1"
    if criterion == "bn-scale":  # the last convolutions have no batch norm: their channels stay
        options = f"ratio=0.2 criterion={criterion} round_to=1"
    before, after, ctx = pruned(options, data=False)
    asked = 0.2 if criterion == "bn-scale" else 0.4
    assert gone(before, after) == pytest.approx(asked, abs=0.01)
    assert after(X).shape == before(X).shape
    named = "reconstruction" if criterion == "auto" else criterion
    assert ctx.records.says[-1].endswith(
        f" of params removed by {named}: corrected on seeded noise, the damage is not measured; "
        "give --data"
    )
    assert ctx.warnings == [
        "prune: corrected on seeded noise, the damage is not measured; give --data"
    ]


@pytest.mark.parametrize("criterion", ["l2", "taylor", "hessian", "reconstruction", "auto"])
def test_removes_the_share_that_is_asked_with_data(criterion: str) -> None:
    before, after, ctx = pruned(f"ratio=0.3 criterion={criterion} round_to=1")
    assert gone(before, after) == pytest.approx(0.3, abs=0.01)
    assert "the agreement with the float model is " in ctx.records.says[-1]
    low = "add recover" in ctx.records.says[-1]
    assert len(ctx.warnings) == low, "a warning only if there is something to do"
    if criterion == "auto":
        assert "removed by reconstruction" in ctx.records.says[-1]


def test_reconstruction_does_less_damage_than_weights_and_these_less_than_chance() -> None:
    damage = []
    for criterion in ("reconstruction", "l2", "random"):
        before, after, _ = pruned(f"ratio=0.4 criterion={criterion} round_to=1")
        damage.append(error(before, after))
    assert all(less < more for less, more in pairwise(damage))


@pytest.mark.parametrize("of", ["params", "macs", "channels"])
def test_the_ratio_is_of_what_is_named(of: str) -> None:
    before, after, _ = pruned(f"ratio=0.35 of={of} round_to=1", data=False)
    count = {"params": parameter_count, "macs": macs, "channels": channels_made}[of]
    assert 1 - count(after) / count(before) == pytest.approx(0.35, abs=0.012)


def channels_made(gm: fx.GraphModule) -> int:
    return sum(m.out_channels for m in gm.modules() if isinstance(m, nn.Conv2d))


def test_by_layer_every_group_loses_the_same_share() -> None:
    _, after, _ = pruned("ratio=0.5 of=channels scope=layer round_to=1 max_per_layer=1", data=False)
    assert conv(after, "stem").out_channels == pytest.approx(16, abs=2)
    assert conv(after, "deep").out_channels == pytest.approx(24, abs=3)


def test_what_stays_is_rounded() -> None:
    _, after, _ = pruned("ratio=0.4", data=False)
    assert conv(after, "stem").out_channels % 8 == conv(after, "deep").out_channels % 8 == 0


def test_rounding_alone_warns() -> None:
    _, _, ctx = pruned("ratio=0.03 round_to=32", data=False)
    assert "rounding to 32 channels reaches" in ctx.warnings[0]


def test_keep_and_only() -> None:
    before, after, ctx = pruned("ratio=0.2 keep=stem|block.*", data=False)
    assert conv(after, "stem").out_channels == 32
    assert conv(after, "block.cv2").in_channels == 48
    assert conv(after, "deep").out_channels < 48
    assert ("stem", "keep=[stem,block.*] names it") in ctx.skips
    before, after, _ = pruned("ratio=0.05 only=stem", data=False)
    assert conv(after, "stem").out_channels < 32
    assert conv(after, "deep").out_channels == conv(before, "deep").out_channels


def test_pins_are_recorded_with_their_reason() -> None:
    _, _, ctx = pruned("ratio=0.2", data=False)
    assert ("head", "it is the graph's output") in ctx.skips
    assert {r.node for r in ctx.rewrites} <= {"stem", "block_cv1", "block_m", "block_cv2", "deep"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("ratio=0", "ratio must be above 0 and below 1, not 0"),
        ("ratio=1", "ratio must be above 0 and below 1, not 1"),
        ("ratio=-0.2", "ratio must be above 0 and below 1, not -0.2"),
        ("max_per_layer=1.5", "max_per_layer must be above 0 and at most 1, not 1.5"),
        ("min_channels=0", "min_channels must be 1 or above, not 0"),
        ("criterion=best", "criterion must be one of auto, bn-scale"),
    ],
)
def test_bad_options_are_refused(options: str, why: str) -> None:
    with pytest.raises(PipelineError, match=why):
        Pipeline.parse(f"channel-prune{{{options}}}")


def test_an_impossible_ratio_says_the_highest_possible() -> None:
    with pytest.raises(PassError, match=r"the highest possible is 0\.\d+ \(6 of \d+ channel"):
        pruned("ratio=0.98", data=False)
    with pytest.raises(PassError, match="highest possible is 0 "):
        pruned("ratio=0.5 keep=*", data=False)


def test_criteria_that_need_images_say_so() -> None:
    with pytest.raises(PassError, match="criterion=taylor needs images; give some with --data"):
        pruned("ratio=0.3 criterion=taylor", data=False)


def test_bn_scale_after_folding_is_an_order_error() -> None:
    with pytest.raises(PipelineError, match="put channel-prune before fold-bn"):
        Pipeline.parse("fold-bn,channel-prune{criterion=bn-scale}").expand()


def test_works_after_folding() -> None:
    gm, ctx = traced(), context()
    before = copy.deepcopy(gm)
    Pipeline.parse("fold-bn,channel-prune{ratio=0.3 round_to=1}").run(gm, ctx)
    assert error(before, gm) < 0.1
    kept = next(n for n in gm.graph.nodes if n.name == "stem").meta["yqc.bn"]
    assert len(kept.mean) == conv(gm, "stem").out_channels


def test_a_quantized_graph_is_refused() -> None:
    with pytest.raises(YqcError, match="put channel-prune before int8"):
        Pipeline.parse("int8,channel-prune{ratio=0.3}").run(traced(), context())
    gm = traced()
    Pipeline.parse("fold-bn,observe").run(gm, context())
    with pytest.raises(YqcError, match="put prune before int8"):  # where its state is not known
        ChannelPrune(ratio=0.3).run(gm, context())


def test_without_ratio_it_keeps_the_agreement() -> None:
    gm, ctx = traced(), context()
    before = copy.deepcopy(gm)
    Pipeline.parse("channel-prune{agreement=0.95 round_to=1}").run(gm, ctx)
    assert gone(before, gm) > 0.1
    assert error(before, gm) < 0.06
    assert "the most that keeps the agreement at 0.95, reached 0.9" in ctx.records.says[-1]


def test_where_the_original_finds_nothing_the_outputs_are_compared() -> None:
    said = []
    for agreement in (None, lambda _: None):
        gm, ctx = traced(), context()
        ctx.agreement = agreement
        Pipeline.parse("channel-prune{ratio=0.3 round_to=1}").run(gm, ctx)
        said.append(ctx.records.says[-1])
    assert said[0] == said[1]
    assert "the agreement with the float model is 0." in said[0]


def test_nothing_goes_where_everything_must_stay() -> None:
    gm, ctx = traced(), context()
    before = text(gm)
    Pipeline.parse("channel-prune{keep=*}").run(gm, ctx)
    assert text(gm) == before
    assert ctx.warnings[0].startswith("prune: nothing was removed")


def test_without_data_only_what_is_nearly_free_goes() -> None:
    gm, ctx = traced(), context(data=False)
    with torch.no_grad():
        conv(gm, "deep").weight[:, 3:11] *= 1e-4
    before = copy.deepcopy(gm)
    Pipeline.parse("channel-prune").run(gm, ctx)
    assert conv(gm, "block.cv2").out_channels == 32 or gone(before, gm) > 0
    assert error(before, gm) < 0.05
    assert "without data" in ctx.records.says[-1]
    assert "give --data to remove more safely" in ctx.warnings[-1]


def test_a_graph_without_removable_channels_stays() -> None:
    gm, ctx = trace(nn.Sequential(nn.Conv2d(3, 6, 1)), X), context(data=False)
    before = text(gm)
    done = apply(ChannelPrune(), gm, ctx)
    assert text(gm) == before
    assert not done.changed
    assert done.skips == [("_0", "it is the graph's output")]
    assert ctx.warnings[0].startswith("prune: nothing was removed")


def test_explains_its_groups() -> None:
    lines = ChannelPrune().explain(traced(), context(data=False))
    assert lines[0] == "stem.out[0:32] => bn[0:32]"
    assert "block.cv1.out[16:32] => block.m.out[0:16]" in lines
    assert lines[-1] == "head.out[0:6] => nothing  (pinned: it is the graph's output)"
