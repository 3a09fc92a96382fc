"""The shapes example beyond boxes: committed models, their accuracy, and what int8 costs them."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import yqc
from yqc.data import shapes
from yqc.emit.raw_heads import refuse_cut
from yqc.models.source import open_model
from yqc.progress import Silent

EXAMPLE = Path(__file__).parents[2] / "examples" / "shapes"
FLOORS = {"segment": 0.3, "pose": 0.3}
"""Least main figure of each committed model on the first 10 val pictures; on 24 they are
0.44 (masks) and 0.50 (keypoints)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shapes") / "shapes"
    return shapes.write_shapes(place, train=8, val=10, tasks=True).parent


@pytest.fixture(scope="module", autouse=True)
def example() -> Iterator[None]:
    """The example's scripts import each other as scripts do, by their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        yield
    for name in ("batches", "loss", "model", "tasks", "train", "train_tasks"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("task", FLOORS)
def test_int8_keeps_what_the_committed_model_finds(task: str, folder: Path, tmp_path: Path) -> None:
    path = EXAMPLE / f"shapes-{task}.yqc"
    assert path.stat().st_size < 1_000_000
    found = yqc.compile(
        path, "int8", output=tmp_path / "x.onnx", data=folder / f"{task}.yaml", latency=False
    ).report.accuracy
    assert found.float_ is not None
    assert found.compiled is not None
    assert found.main is not None
    figure = found.float_.figure(found.main)
    assert figure is not None
    assert figure > FLOORS[task]
    assert (found.drop or 0.0) < 0.05 * figure + 0.01
    assert [one.name for one in found.classes] == list(open_model(path).names)


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_the_net_of_each_task_is_small_and_its_loss_reaches_all_weights(
    task: str, tmp_path: Path
) -> None:
    script = importlib.import_module("train_tasks")
    batches = importlib.import_module("batches")
    training = script.TaskTraining(script.TaskPlan(task=task, pictures=3))
    path = tmp_path / "x.yqc"
    script.write_task_model(training.average, path)
    assert path.stat().st_size < 1_000_000
    assert open_model(path).task == task
    some = (
        batches.crops(3, 0, tmp_path, Silent(), script.CROP)
        if task == "classify"
        else batches.drawn(3, 0, tmp_path, Silent(), tasks=True)
    )
    ((images, objects),) = batches.varied(some.part(slice(3)), 3, seed=1)
    losses = training.losses(training.model, images, objects)
    torch.autograd.backward(torch.stack(tuple(losses.values())).sum())
    learned = [p for p in training.model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)


@pytest.mark.parametrize("name", ["shapes", "shapes-segment", "shapes-pose"])
def test_the_committed_models_say_how_their_raw_heads_are_decoded(name: str) -> None:
    source = open_model(EXAMPLE / f"{name}.yqc")
    assert refuse_cut(source.form, source.facts.head) == ""
