"""The order of built-in passes: what the declarations allow runs, whatever ran before."""

import copy
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from torch import fx, nn

import yqc
from yqc.emit import emit
from yqc.errors import PipelineError
from yqc.pipeline.order import Order, Planned
from yqc.pipeline.state import TRACED, State
from yqc.pipeline.watchers import Verify
from yqc.testing import images, nets, traced
from yqc_passes import PASSES

OPTIONS = {
    "recover": "{steps=1}",
    "channel-prune": "{ratio=0.2}",
    "cluster": "{images=2}",
    "pack-int4": "{images=2}",
}
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
            if is_new:
                seen.add(key)
                queue.append((ran, order.state, found))
    assert len(seen) > 10
