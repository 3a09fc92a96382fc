"""Passes on nets of every task: what stays float, what stays whole, and what is learned."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, fx, nn

from yqc import Context
from yqc.emit import emit
from yqc.graph import is_function, role
from yqc.graph.channels import find_channels
from yqc.graph.compare import head_nodes
from yqc.graph.values import list_tensors
from yqc.targets import TARGETS, TargetName
from yqc.testing import apply, calibrated, images, run, task_nets, traced
from yqc.training.heads import head_taps
from yqc_passes.channel_prune import ChannelPrune
from yqc_passes.observe import Observe

TASKS = ("segment", "pose", "obb", "classify")
SHAPE = (1, 3, 32, 32)
QUANTIZE = torch.ops.yqc.quantize_linear


def net(task: Any) -> fx.GraphModule:
    return traced(task_nets.task_net(task), SHAPE)


def context(gm: fx.GraphModule, task: str, target: TargetName = "onnxruntime") -> Context:
    ctx = calibrated(gm)
    ctx.form, ctx.target = task_nets.FORMS[task], target  # type: ignore[index]  # a literal
    ctx.original = traced(task_nets.task_net(task), SHAPE)  # type: ignore[arg-type]
    return ctx


def closeness(got: list[Tensor], want: list[Tensor]) -> float:
    """Return the largest difference, in units of each output's largest value."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("task", "target"),
    [(task, "onnxruntime") for task in TASKS]
    + [("segment", target) for target in TARGETS if target != "onnxruntime"],
)
def test_int8_keeps_outputs_in_float_and_close(task: str, target: TargetName) -> None:
    gm = net(task)
    want, heads = run(gm), [tap.name for tap in head_taps(gm)]
    apply("int8", gm, context(gm, task, target))
    assert closeness(run(gm), want) < 0.1
    for node in gm.graph.nodes:
        if node.name in heads or role(node) == "head.decode":
            assert not any(is_function(user, QUANTIZE) for user in node.users)
    weights = [n for n in gm.graph.nodes if n.op == "call_module"]
    left = [
        n for n in weights if isinstance(gm.get_submodule(str(n.target)), nn.Conv2d | nn.Linear)
    ]
    assert not left
    emit(gm)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "pipeline"),
    [(task, "int8") for task in TASKS]
    + [("segment", "int4"), ("segment", "codebook"), ("segment", "fp16"), ("classify", "int4")],
)
def test_data_free_forms_stay_close(task: str, pipeline: str) -> None:
    gm = net(task)
    want = run(gm)
    ctx = context(gm, task)
    ctx.calibration = None
    apply(pipeline, gm, ctx)
    assert closeness(run(gm), want) < 0.35
    emit(gm)


@pytest.mark.parametrize("task", TASKS)
def test_kinds_of_output_share_no_scale(task: str) -> None:
    gm = net(task)
    apply("fold-bn", gm)
    apply(Observe(), gm, context(gm, task))
    outputs = {tap.name for tap in head_taps(gm)}
    observed = {n.all_input_nodes[0].name for n in gm.graph.nodes if n.name.endswith("_observer")}
    assert not outputs & observed


@pytest.mark.parametrize("task", TASKS)
def test_pruning_removes_channels_within_and_no_outputs(task: str) -> None:
    gm = net(task)
    shapes = [t.shape for t in run(gm)]
    heads = {n.name: n.meta["yqc.value"] for n in head_nodes(gm)}
    before = sum(p.numel() for p in gm.parameters())
    apply(ChannelPrune(ratio=0.3, round_to=1), gm, context(gm, task))
    assert sum(p.numel() for p in gm.parameters()) < 0.75 * before
    assert [t.shape for t in run(gm)] == shapes
    assert {n.name: n.meta["yqc.value"] for n in head_nodes(gm)} == heads


def test_channels_of_prototypes_can_go_except_the_last() -> None:
    gm = net("segment")
    channels = find_channels(gm)
    pins = {
        channels.slots[place].target: block.pin
        for block in channels.blocks
        for place, _ in block.places
        if channels.slots[place].side == "out"
    }
    assert not pins["proto.first.conv"]
    assert not pins["proto.upsample"]
    assert not pins["proto.second.conv"]
    assert pins["proto.last.conv"] == pins["more.0.1"] == "it is the graph's output"


@pytest.mark.parametrize(
    ("task", "criterion"), [(task, "hessian") for task in TASKS] + [("segment", "taylor")]
)
def test_criteria_count_what_every_output_does(task: str, criterion: Any) -> None:
    gm = net(task)
    done = apply(ChannelPrune(ratio=0.2, criterion=criterion, round_to=1), gm, context(gm, task))
    assert done.rewrites
    assert all(bool(t.isfinite().all()) for t in run(gm))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ...]]:
    folder = tmp_path_factory.mktemp("pictures")
    noise = images(net("classify"), 8)
    paths = tuple(folder / f"{i}.png" for i in range(8))
    for path, image in zip(paths, noise, strict=True):
        Image.fromarray((image[0] * 255).byte().permute(1, 2, 0).numpy()).save(path)
    return paths  # type: ignore[return-value]


@pytest.mark.parametrize("task", TASKS)
def test_a_damaged_net_is_trained_back(task: str, pictures: tuple[Path, ...]) -> None:
    gm, original = net(task), net(task)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in gm.parameters():
            if p.ndim > 1:
                p.add_(0.3 * p.std() * torch.randn(p.shape, generator=generator))
    before = mean_distance(gm, original)
    ctx = context(gm, task)
    ctx.train = pictures
    apply("recover{steps=30 batch=4 freeze_bn=true lr=0.003}", gm, ctx)
    assert not ctx.warnings
    assert mean_distance(gm, original) < 0.8 * before


def mean_distance(gm: fx.GraphModule, original: fx.GraphModule) -> float:
    """Return the mean difference of outputs, in units of each one's deviation, on noise."""
    x = torch.cat(images(gm, 16, seed=1))
    with torch.no_grad():
        pairs = zip(list_tensors(gm(x)), list_tensors(original(x)), strict=True)
        return sum(float((a - b).abs().mean() / b.std()) for a, b in pairs)


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_activations_are_swapped_and_int8_follows(task: str) -> None:
    gm = net(task)
    ctx = context(gm, task)
    apply("swap-activation,int8", gm, ctx)
    assert any(n.op == "call_module" and "act" in n.name for n in gm.graph.nodes)
    assert all(bool(t.isfinite().all()) for t in run(gm))
