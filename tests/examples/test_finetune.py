"""examples/finetune.py: a user's own loop on the exported graph, and the way back."""

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import yqc
from yqc.errors import YqcError
from yqc.models.source import open_model


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "finetune.py"
    spec = importlib.util.spec_from_file_location("finetune", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_tunes_and_hands_back_what_yqc_compiles(
    example: ModuleType,
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "tuned.yqc"
    options = {"epochs": 3, "batch": 4, "lr": 2e-3, "seed": 0, "passes": "dce"}
    wish = argparse.Namespace(model=checkpoint, data=data, output=out, **options)
    assert example.finetune(wish) == out
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    tuned, before = open_model(out), open_model(checkpoint)
    assert (tuned.names, tuned.layout) == (before.names, before.layout)
    weights = [s.gm.get_parameter("model.0.conv.weight") for s in (tuned, before)]
    assert not torch.equal(*weights)
    result = yqc.compile(out, "fold-bn", output=tmp_path / "x.onnx", evaluate=False)
    assert result.files.onnx.exists()


def test_both_kinds_of_decoded_outputs_are_read(example: ModuleType) -> None:
    rows = torch.tensor([[[10.0, 20, 4, 6, 0.5, 0.2, 0.8]]])
    boxes, scores = example.predictions(rows, 2)
    assert boxes.tolist() == [[[8, 17, 12, 23]]]
    torch.testing.assert_close(scores, torch.tensor([[[0.1, 0.4]]]))
    columns = torch.tensor([[10.0, 20, 4, 6, 0.2, 0.8]]).view(1, 6, 1)
    boxes, scores = example.predictions(columns, 2)
    assert boxes.tolist() == [[[8, 17, 12, 23]]]
    torch.testing.assert_close(scores, torch.tensor([[[0.2, 0.8]]]))
    with pytest.raises(YqcError, match="end-to-end"):
        example.predictions(torch.zeros(1, 300, 6), 2)


def test_the_loss_is_least_where_everything_is_found(example: ModuleType) -> None:
    truth = [torch.tensor([[1.0, 8, 17, 12, 23]])]
    output = torch.tensor([10.0, 20, 4, 6, 0.0, 1.0]).view(1, 6, 1)
    assert float(example.loss_of(output, truth, 2)) == pytest.approx(0, abs=1e-4)
    worse = output.clone()
    worse[0, 0] += 1
    assert float(example.loss_of(worse, truth, 2)) > 0.1
    nothing = [torch.zeros(0, 5)]
    assert float(example.loss_of(output * 0 + 1e-6, nothing, 2)) == pytest.approx(0, abs=1e-3)
