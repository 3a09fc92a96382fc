"""prune on a small detector, through the whole compile."""

import re
from pathlib import Path

import onnxruntime as ort
import pytest
import torch

import yqc
from yqc import Context, Pipeline
from yqc.job.explain import explain


def compiled(checkpoint: Path, passes: str, out: Path, data: Path | None = None) -> yqc.Result:
    settings = yqc.Settings(data=None if data is None else str(data))
    return yqc.compile(checkpoint, passes, output=out / "m.onnx", settings=settings, evaluate=False)


@pytest.mark.slow
def test_the_plain_sentence_without_data(checkpoint: Path, tmp_path: Path) -> None:
    result = compiled(checkpoint, "prune,int8", tmp_path)
    assert result.files.onnx.is_file()
    said = next(w for w in result.report.warnings if w.startswith("prune"))
    assert "without data, only channels go that" in said
    assert result.report.pipeline.expanded.startswith("channel-prune,reparam,")


def test_a_ratio_with_data_ends_with_a_recovery(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    result = compiled(checkpoint, "prune{ratio=0.2 recover_steps=2}", tmp_path, data)
    size = result.report.size
    assert size.params_after is not None
    assert size.params_after / size.params_before == pytest.approx(0.8, abs=0.01)
    assert [p.name for p in result.report.passes] == ["channel-prune", "recover"]
    assert "of params removed by" in result.report.passes[0].says[0]
    assert not any("removed" in warning for warning in result.report.warnings)
    expanded = "channel-prune{ratio=0.2},recover{steps=2 batch=4 agreement=0.97}"
    assert result.report.pipeline.expanded == expanded
    recipe = (tmp_path / "m.recipe.toml").read_text(encoding="utf-8")
    assert "channel-prune{ratio=0.2 criterion=" in recipe
    assert "recover{steps=2 batch=4 agreement=0.97}" in recipe
    want = result.gm(torch.zeros(1, 3, 64, 64))
    session = ort.InferenceSession(result.files.onnx)
    got = session.run(None, {"images": torch.zeros(1, 3, 64, 64).numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-3, atol=1e-3)


def test_a_recover_in_the_pipeline_is_the_only_one(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    result = compiled(checkpoint, "prune{ratio=0.2},recover{steps=2}", tmp_path, data)
    assert [p.name for p in result.report.passes] == ["channel-prune", "recover"]
    assert result.report.pipeline.expanded == "channel-prune{ratio=0.2},recover{steps=2}"


def test_the_recipe_does_the_same_again(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    first = compiled(checkpoint, "prune{agreement=0.6 recover=0.1s}", tmp_path, data)
    text = (tmp_path / "m.recipe.toml").read_text(encoding="utf-8")
    settled = text.partition('passes = "')[2].partition('"')[0]
    assert re.fullmatch(
        r"channel-prune\{ratio=\S+ criterion=\S+ agreement=0.6\}"
        r",recover\{steps=\d+ batch=4 agreement=0.6\}",
        settled,
    )
    (tmp_path / "again").mkdir()
    second = compiled(checkpoint, settled, tmp_path / "again", data)
    weights = zip(first.gm.parameters(), second.gm.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    assert first.files.onnx.read_bytes() == second.files.onnx.read_bytes()
    again = (tmp_path / "again" / "m.recipe.toml").read_text(encoding="utf-8")
    assert again.partition('passes = "')[2].partition('"')[0] == settled


def test_passes_are_told_what_follows() -> None:
    gm = yqc.trace(torch.nn.Conv2d(3, 4, 1), torch.rand(1, 3, 8, 8))
    ctx = Context()
    seen: list[tuple[str, ...]] = []

    class Look(yqc.Pass):
        name = "look"
        reads_upcoming = frozenset({"dce"})

        def run(self, gm: torch.fx.GraphModule, ctx: Context) -> None:
            seen.append(ctx.upcoming)

    Pipeline([Look(), *Pipeline.parse("fold-bn,dce").steps]).run(gm, ctx)
    assert seen == [("dce",)]


@pytest.mark.slow
def test_explains_the_passes_that_it_stands_for(checkpoint: Path, data: Path) -> None:
    with_data = yqc.Settings(data=str(data))
    first, second = explain("prune{ratio=0.2 recover_steps=3}", checkpoint, with_data, draw=True)
    assert (first.name, second.name) == ("channel-prune", "recover")
    assert any(" => " in line for line in first.lines)
    assert re.fullmatch(r"would go by \w+: [\d.]+ kB of [\d.]+ kB, 2\d\.\d% of .*", first.lines[0])
    ends = first.lines.index("tied together:")
    gone = [line.split() for line in first.lines[2:ends] if " -> " in line]
    assert gone
    assert all(int(before) > int(after) for before, _, after, *_ in gone)
    assert first.groups is not None
    assert second.after == "channel-prune{ratio=0.2}"
    assert second.lines[0].startswith("3 steps of 4 images, from ")
    (last,) = explain("prune{ratio=0.2},recover{steps=3}", checkpoint, with_data)
    assert (last.name, last.after) == ("recover", "channel-prune{ratio=0.2}")
    (alone,) = explain("prune{ratio=0.2}", checkpoint)
    assert alone.name == "channel-prune"
