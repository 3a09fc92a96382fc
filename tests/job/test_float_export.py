"""The float graph as a file of torch.export: what is saved, and that it can be trained."""

from pathlib import Path

import pytest
import torch
from torch import nn

import yqc
from yqc.errors import PipelineError
from yqc.graph import calls
from yqc.job.float_export import LastFloat
from yqc.models.source import open_model


def last_float(checkpoint: Path, passes: str) -> LastFloat:
    gm, pipeline = open_model(checkpoint).gm, yqc.Pipeline.parse(passes)
    watcher = LastFloat(pipeline)
    pipeline.run(gm, yqc.Context(), [watcher])
    return watcher


@pytest.mark.parametrize(
    ("passes", "norms", "now"),
    [
        ("dce", True, True),
        ("fold-bn,dce", False, True),
        ("int8", True, False),
        ("fold-bn,int8", False, False),
    ],
)
def test_it_is_the_last_graph_before_quantization(
    checkpoint: Path, passes: str, norms: bool, now: bool
) -> None:
    watcher = last_float(checkpoint, passes)
    assert bool(calls(watcher.gm, nn.BatchNorm2d)) == norms
    assert not any("quantize" in str(n.target) for n in watcher.gm.graph.nodes)
    assert watcher.is_now == now


def test_the_file_computes_the_same_in_batches_and_learns(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    result = yqc.compile(checkpoint, "fold-bn", output=out, evaluate=False, emit="onnx,pt2")
    assert result.files.exported == tmp_path / "x.pt2"
    module = torch.export.load(result.files.exported).module()
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    y = module(x)
    torch.testing.assert_close(y, result.gm(x), rtol=1e-4, atol=1e-3)
    y.mean().backward()
    assert all(p.grad is not None for p in module.parameters())
    names = {name for name, _ in module.named_parameters()}
    assert names == {name for name, _ in result.gm.named_parameters()}
    assert 'emit = "onnx,pt2"' in result.files.recipe.read_text()


def test_without_being_asked_nothing_is_exported(checkpoint: Path, tmp_path: Path) -> None:
    yqc.compile(checkpoint, "", output=tmp_path / "x.onnx", evaluate=False)
    assert not (tmp_path / "x.pt2").exists()


@pytest.mark.parametrize(
    ("emit", "message"),
    [("onnx,tflite", "emit must be onnx, or onnx,pt2, not 'onnx,tflite'"), ("pt2", "not 'pt2'")],
)
def test_what_cannot_be_emitted_is_refused(
    emit: str, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=message):
        yqc.compile(checkpoint, "", output=tmp_path / "x.onnx", emit=emit)
