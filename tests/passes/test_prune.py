"""prune stands for channel-prune and, where there is data, recover."""

from collections.abc import Sequence

import pytest

from yqc import Given, Pipeline
from yqc.errors import PipelineError

TRAINABLE = Given(has_data=True, can_train=True)


def expanded(passes: str, given: Given = TRAINABLE) -> Sequence[str]:
    return [str(action) for action in Pipeline.parse(passes).expand(given=given)]


def test_with_data_five_minutes_of_training_follow() -> None:
    assert expanded("prune") == ["channel-prune", "recover{time=5m batch=4 agreement=0.97}"]


@pytest.mark.parametrize("given", [Given(), Given(has_data=True)])
def test_without_training_images_nothing_is_trained(given: Given) -> None:
    assert expanded("prune{ratio=0.3 recover_steps=5}", given) == ["channel-prune{ratio=0.3}"]


def test_the_options_of_channel_prune_are_passed_on() -> None:
    options = (
        "ratio=0.4 of=macs criterion=l1 scope=layer agreement=0.9 round_to=4 max_per_layer=0.5 "
        'min_channels=2 keep=[a,b.*] only=["c d"]'
    )
    assert expanded(f"prune{{{options} recover=0}}") == [f"channel-prune{{{options}}}"]


def test_the_length_of_the_training_is_passed_on() -> None:
    assert expanded("prune{recover=90s}")[1] == "recover{time=90s batch=4 agreement=0.97}"
    assert expanded("prune{recover=0}") == ["channel-prune"]
    steps = "recover{steps=7 batch=4 agreement=0.8}"
    assert expanded("prune{recover_steps=7 agreement=0.8}")[1] == steps
    assert expanded("prune{recover=0 recover_steps=7 agreement=0.8}")[1] == steps


@pytest.mark.parametrize("later", ["recover{steps=5}", "int8,recover{steps=5}"])
def test_a_later_recover_is_the_only_one(later: str) -> None:
    names = expanded(f"prune{{ratio=0.3}},{later}")
    assert names[0] == "channel-prune{ratio=0.3}"
    assert [name for name in names if name.startswith("recover")] == ["recover{steps=5}"]


def test_what_a_user_writes_himself_is_kept() -> None:
    names = expanded("recover{steps=1},prune,recover{steps=2}")
    assert names == ["recover{steps=1}", "channel-prune", "recover{steps=2}"]


@pytest.mark.parametrize(
    "text",
    ["prune{ratio=0.46 criterion=l2 recover_steps=233}", "prune{ratio=0.3},recover{steps=5}"],
)
def test_texts_of_older_recipe_files_still_parse(text: str) -> None:
    assert str(Pipeline.parse(text)) == text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("ratio=1", "ratio must be above 0 and below 1, not 1"),
        ("agreement=0", "agreement must be above 0 and at most 1, not 0"),
        ("round_to=0", "round_to must be 1 or above, not 0"),
        ("recover_steps=0", "recover_steps must be 1 or above, not 0"),
        ("recover=soon", "recover must be a time such as 90s, 10m or 1.5h, not soon"),
        ("criterion=best", "criterion must be one of auto, bn-scale"),
    ],
)
def test_bad_options_point_at_the_text_of_the_user(options: str, why: str) -> None:
    with pytest.raises(PipelineError, match=why) as caught:
        Pipeline.parse(f"prune{{{options}}}")
    assert f"prune{{{options}}}\n" in str(caught.value)
