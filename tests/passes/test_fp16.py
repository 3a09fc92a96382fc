"""fp16: what it stands for; `test_half.py` has what its pass does."""

from tests.passes.nets import expanded
from yqc import Given, Pipeline


def test_stands_for_its_steps_and_hands_options_on() -> None:
    assert expanded("fp16") == "reparam,fold-bn,dce,half"
    steps = "reparam,fold-bn,dce,half{skip=a.* images=2}"
    assert expanded("fp16{skip=a.* images=2}") == steps


def test_drops_what_is_done_already_and_comes_last() -> None:
    assert expanded("fuse,fp16").split(",").count("fold-bn") == 1
    assert expanded("prune{recover=0},fp16").endswith("half")


def test_is_the_same_for_every_target() -> None:
    for target in ("onnxruntime", "openvino", "tensorrt", "portable"):
        steps = Pipeline.parse("fp16").expand(given=Given(target))
        assert [step.name for step in steps] == ["reparam", "fold-bn", "dce", "half"]
