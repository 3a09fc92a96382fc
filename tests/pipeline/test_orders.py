"""The order of built-in passes: what the declarations allow runs, whatever ran before."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image
from torch import fx, nn

import yqc
from tests.command import command
from tests.compiling import SMALL, Plain
from yqc.emit import emit
from yqc.errors import PipelineError
from yqc.pipeline.order import Order, Planned
from yqc.pipeline.state import TRACED, State
from yqc.pipeline.watchers import Verify
from yqc.testing import images, nets, traced
from yqc_passes import PASSES, Codebook, Fp16, Fuse, Int4, Int8, Prune, Relu

OPTIONS = {
    "bias-correct": "{images=1}",
    "calibrate": "{images=1}",
    "channel-prune": "{ratio=0.2 criterion=l2}",
    "cluster": "{images=1 rounding=nearest spare=0}",
    "half": "{images=1}",
    "pack-int4": "{images=1 rounding=nearest spare=0}",
    "recover": "{steps=1 batch=1 lr=0.001}",
    "swap-activation": "{images=1 refit=never}",
}
"""The quickest."""
SAME = {State.REPARAMETERIZED, State.CLEAN}
"""States that change nothing for the passes behind: graphs that differ in them alone are one."""


def primitives() -> Iterator[yqc.Pass]:
    for name in PASSES:
        (step,) = yqc.Pipeline.parse(name + OPTIONS.get(name, "")).steps
        if isinstance(step, yqc.Pass):
            yield step


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], yqc.Context]:
    """What makes a context with everything that a pass may want."""
    folder = tmp_path_factory.mktemp("train")
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 255 - 60 * i, 40)).save(folder / f"{i}.png")
    original = net()
    seen = images(original, 2)
    return lambda: yqc.Context(
        example=seen[0],
        calibration=lambda: seen,
        train=tuple(sorted(folder.iterdir())),
        original=original,
        agreement=lambda _: 0.9,
    )


def net() -> fx.GraphModule:
    """Trace convolutions with norms and activations, and one at the end without."""
    body = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.SiLU()]
    body += [nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    return traced(nets.chain(*body, nn.Conv2d(16, 4, 1)), (1, 3, 8, 8))


def test_what_may_run_in_a_state_runs(context: Callable[[], yqc.Context]) -> None:
    """Every pass on a graph of every state that passes can bring about, or it is refused before."""
    registry, passes = yqc.Registry.default(), list(primitives())
    queue: list[tuple[tuple[str, ...], frozenset[str], fx.GraphModule]] = [((), TRACED, net())]
    seen = {TRACED}
    for before, state, gm in queue:
        for action in passes:
            order = Order(registry, state)
            try:
                order.add(Planned(action, action, 0))
            except PipelineError:
                continue
            ran = (*before, action.name)
            found = copy.deepcopy(gm)
            try:
                yqc.Pipeline([action]).run(found, context(), [Verify()], known=state)
                is_new = (key := order.state - SAME) not in seen
                if is_new and State.OBSERVED not in key:
                    emit(found, metadata={})
            except yqc.YqcError as error:
                pytest.fail(f"{','.join(ran)}: {error}")
            if is_new and not {State.OBSERVED, State.HALF} <= key:  # nothing ends that
                seen.add(key)
                queue.append((ran, order.state, found))
    assert len(seen) > 10


REFUSED: dict[str, tuple[Sequence[yqc.Pass | yqc.Recipe | str], str]] = {
    "int8,prune": (
        [Int8(), Prune()],
        (
            "channel-prune (of prune) cannot work on a graph that is 'int8', and quantize "
            "(of int8) before it makes it that; put prune before int8"
        ),
    ),
    "int4,codebook": (
        [Int4(), Codebook()],
        (
            "codebook would do nothing here: cluster finds a graph that is 'packed' already, by "
            "pack-int4 (of int4); leave one of them out"
        ),
    ),
    "fuse,int8,int8": (
        ["fuse", Int8(), Int8()],
        (
            "observe (of int8) cannot work on a graph that is 'int8', and quantize "
            "(of int8) before it makes it that; leave one int8 out"
        ),
    ),
    "int8,int4": (
        [Int8(), Int4()],
        (
            "pack-int4 (of int4) cannot work on a graph that is 'int8', and quantize "
            "(of int8) before it makes it that; put int4 before int8"
        ),
    ),
    "fp16,relu": (
        [Fp16(), Relu()],
        (
            "swap-activation (of relu) needs a graph that is 'float32', and half "
            "(of fp16) before it ends that; put relu before fp16"
        ),
    ),
    "fold-bn,observe,calibrate": (
        ["fold-bn", "observe,calibrate"],
        "the graph is left 'observed', which no file can hold; put quantize at the end",
    ),
    "prune,int8{skip=worst:x}": (
        [Prune(), Int8(skip=("worst:x",))],
        "int8: skip=worst:x: write worst:3 for the three that cost most",
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_wrong_orders_are_refused_before_anything_is_read(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the command line and in Python alike: there is no such model, and that is not reached."""
    passes, message = REFUSED[text]
    for given in (text, passes):
        with pytest.raises(PipelineError) as caught:
            yqc.compile(tmp_path / "absent.pt", given, output=tmp_path / "x.onnx")
        first, *shown = str(caught.value).splitlines()
        assert first == message
        assert shown == ([f"  {text}", f"{'':18}^^^^^^^"] if given == text and "x}" in text else [])
    run = command(monkeypatch, capsys)
    done = run("compile", tmp_path / "absent.pt", "--passes", text, "-o", tmp_path / "x.onnx")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"yqc: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_same_kind_of_pass_can_be_left_to_what_it_skipped() -> None:
    """Passes by their own names are never dropped: the second packs what the first left."""
    names = [p.name for p in yqc.Pipeline.parse("fold-bn,pack-int4{skip=a},cluster").expand()]
    assert names == ["fold-bn", "pack-int4", "cluster"]


def test_steps_of_recipes_are_not_run_twice() -> None:
    dropped: list[str] = []
    given = yqc.Given("portable", has_data=True, can_train=True)
    parts = yqc.Pipeline.parse("prune,slim,fuse,int8").expand_each(given=given, dropped=dropped)
    assert [[p.name for p in part] for part in parts] == [
        ["channel-prune"],
        ["channel-prune", "recover"],
        ["reparam", "fold-bn", "dce"],
        ["observe", "calibrate", "relax", "bias-correct", "quantize"],
    ]
    assert dropped == [
        "recover (of prune): it runs once, and recover (of slim) comes later",
        "recover (of slim): it runs once, and recover (of slim) comes later",
        "reparam (of int8): a graph that is 'reparameterized' already, by reparam (of fuse)",
        "fold-bn (of int8): a graph that is 'bn-folded' already, by fold-bn (of fuse)",
        "dce (of int8): a graph that is 'clean' already, by dce (of fuse)",
    ]


def test_a_report_lists_what_was_dropped(tmp_path: Path) -> None:
    made = yqc.compile(
        Plain(), ["fold-bn", Fuse()], output=tmp_path / "x.onnx", settings=SMALL, evaluate=False
    )
    assert (made.report.pipeline.text, made.report.pipeline.expanded) == (
        "fold-bn,fuse",
        "fold-bn,reparam,dce",
    )
    assert made.report.pipeline.dropped == (
        "fold-bn (of fuse): a graph that is 'bn-folded' already, by fold-bn",
    )
