"""The space of a search: what passes declare, its TOML file, pipelines to choices and back."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yqc.errors import PipelineError
from yqc.pipeline.registry import Registry
from yqc.tuning.space import SearchSpace

STEPS = [10, 30, 90]


class Fixed:
    """Chooses what it is told to, and the first where it is told nothing."""

    def __init__(self, params: dict[str, object]) -> None:
        self.params = params

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return str(self.params.get(name, choices[0]))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        assert low == 0 <= high
        return int(str(self.params.get(name, 0)))


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.default(Registry.default(), STEPS, trains=True)


def test_passes_declare_the_space(space: SearchSpace) -> None:
    assert {place: {*passes} for place, passes in space.passes.items()} == {
        "activations": {"relu"},
        "channels": {"prune"},
        "training": {"recover"},
        "weights": {"codebook", "fp16", "int4", "rice"},
        "integers": {"int8"},
    }
    assert space.seeds[:4] == (
        *("fp16", "int8", "int4", "prune{ratio=0.5 recover=0},recover{steps=10},int8"),
    )
    assert space.seeds[4:6] == (
        "prune{ratio=0.9 recover=0},recover{steps=90},int4",
        "prune{ratio=0.8 recover=0},recover{steps=90},int4",
    )
    assert "prune{ratio=0.9 recover=0},recover{steps=90},rice{bits=4.0}" in space.seeds
    assert "prune{ratio=0.8 of=macs recover=0},recover{steps=90},int8" in space.seeds


def test_seeds_are_what_their_choices_give(space: SearchSpace) -> None:
    for seed in space.seeds:
        text = space.suggest(Fixed(space.params_of(seed)))
        assert space.params_of(text) == space.params_of(seed)


@settings(max_examples=40)
@given(st.data())
def test_any_choice_comes_back(space: SearchSpace, data: st.DataObject) -> None:

    class Drawn:
        def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
            return data.draw(st.sampled_from(choices), label=name)

        def suggest_int(self, name: str, low: int, high: int) -> int:
            return data.draw(st.integers(low, high), label=name)

    text = space.suggest(Drawn())
    assert space.suggest(Fixed(space.params_of(text))) == text


def test_trainings_get_longer_step_by_step(space: SearchSpace) -> None:
    text = "prune{ratio=0.7},recover{steps=10},int4"
    longer = space.longer(text)
    assert longer == "prune{ratio=0.7},recover{steps=30},int4"
    assert space.longer(str(space.longer(str(longer)))) is None
    assert space.longer("int8") is None
    assert space.prefix(text) == "prune{ratio=0.7},recover{steps=10}"
    assert space.prefix("int4,int8") == ""


def test_without_images_nothing_is_trained() -> None:
    space = SearchSpace.default(Registry.default(), STEPS, trains=False)
    assert space.seeds == ("fp16", "int8", "int4", "int4,int8", "rice{bits=4.0}")
    assert not any(space.passes[place] for place in ("activations", "channels", "training"))


def test_a_file_says_the_same(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(str(space), encoding="utf-8")
    again = SearchSpace.read(path, space.registry)
    assert str(again) == str(space)
    assert again.seeds == space.seeds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("seeds = 3", "seeds must be a list"),
        ("[weight.int4]", "no place 'weight'; did you mean"),
        ("[weights.int5]", "unknown pass 'int5'"),
        ("[channels.prune]\nratios = [0.3]", "no option 'ratios'; did you mean"),
        ("[channels.prune]\nratio = [3]", "ratio must be above 0 and below 1"),
        ("[channels.prune]\nratio = []", "no values to choose from"),
        ("seeds = ['int8']\n[weights.int4]", "int8 is not within the space"),
        ("[weights", "cannot read the space"),
    ],
)
def test_a_wrong_file_is_refused(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(PipelineError, match=why):
        SearchSpace.read(path, Registry.default())
