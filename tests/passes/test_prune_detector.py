"""prune on a small detector, through the whole compile."""

from pathlib import Path

import onnxruntime as ort
import pytest
import torch

import yqc
from yqc import Context, Pipeline


def compiled(checkpoint: Path, passes: str, out: Path, data: Path | None = None) -> yqc.Result:
    settings = yqc.Settings(data=None if data is None else str(data))
    return yqc.compile(checkpoint, passes, output=out / "m.onnx", settings=settings, evaluate=False)


def test_the_plain_sentence_without_data(checkpoint: Path, tmp_path: Path) -> None:
    result = compiled(checkpoint, "prune,int8", tmp_path)
    assert result.files.onnx.is_file()
    said = next(w for w in result.report.warnings if w.startswith("prune"))
    assert "without data, only channels go that" in said


def test_a_ratio_with_data_ends_with_a_recovery(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    result = compiled(checkpoint, "prune{ratio=0.2 recover_steps=2}", tmp_path, data)
    size = result.report.size
    assert size.params_after is not None
    assert size.params_after / size.params_before == pytest.approx(0.8, abs=0.01)
    said = next(w for w in result.report.warnings if "of params removed by" in w)
    assert "2 steps of recovery" in said
    recipe = (tmp_path / "m.recipe.toml").read_text(encoding="utf-8")
    assert "recover_steps=2" in recipe
    assert "criterion=" in recipe
    want = result.gm(torch.zeros(1, 3, 64, 64))
    session = ort.InferenceSession(result.files.onnx)
    got = session.run(None, {"images": torch.zeros(1, 3, 64, 64).numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-3, atol=1e-3)


def test_a_recover_in_the_pipeline_is_the_only_one(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    result = compiled(checkpoint, "prune{ratio=0.2},recover{steps=2}", tmp_path, data)
    assert not any("of recovery" in w for w in result.report.warnings)
    assert [p.name for p in result.report.passes] == ["prune", "recover"]


def test_the_recipe_does_the_same_again(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    first = compiled(checkpoint, "prune{recover=0}", tmp_path, data)
    text = (tmp_path / "m.recipe.toml").read_text(encoding="utf-8")
    settled = text.partition('passes = "')[2].partition('"')[0]
    assert "ratio=" in settled
    (tmp_path / "again").mkdir()
    second = compiled(checkpoint, settled, tmp_path / "again", data)
    weights = zip(first.gm.parameters(), second.gm.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_passes_are_told_what_follows() -> None:
    gm = yqc.trace(torch.nn.Conv2d(3, 4, 1), torch.rand(1, 3, 8, 8))
    ctx = Context()
    seen: list[tuple[str, ...]] = []

    class Look(yqc.Pass):
        name = "look"

        def run(self, gm: torch.fx.GraphModule, ctx: Context) -> None:  # noqa: ARG002
            seen.append(ctx.upcoming)

    Pipeline([Look(), *Pipeline.parse("fold-bn,dce").steps]).run(gm, ctx)
    assert seen == [("fold-bn", "dce")]
