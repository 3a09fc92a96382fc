import pytest

from tests.passes.nets import calibrated, expanded, traced
from yqc import Given, Pipeline, Recipe

STEPS = "reparam,fold-bn,dce,observe,calibrate,relax,bias-correct,quantize"


def test_stands_for_its_steps_and_hands_options_on() -> None:
    assert expanded("int8") == STEPS
    assert expanded("int8{ranges=minmax skip=[a.*,b]}") == (
        "reparam,fold-bn,dce,observe{skip=[a.*,b]},calibrate{ranges=minmax},relax,bias-correct,quantize"
    )
    assert "calibrate{reduce_range=true}" in expanded("int8{reduce-range=true}")


def test_decomposes_silu_for_onnxruntime_before_it_observes() -> None:
    (recipe,) = Pipeline.parse("int8{skip=a.*}").steps
    assert isinstance(recipe, Recipe)
    text = recipe.expand(Given(target="onnxruntime"))
    assert text.startswith("reparam,fold-bn,dce,decompose-silu,observe{skip=a.*},calibrate")
    assert "decompose-silu" not in recipe.expand(Given(target="openvino"))


@pytest.mark.parametrize("before", ["fold-bn", "fuse", "fold-bn,reparam"])
def test_drops_what_is_done_already(before: str) -> None:
    steps = expanded(f"{before},int8").split(",")
    assert steps.count("fold-bn") == 1
    assert steps.count("reparam") == 1


def test_a_convolution_that_is_skipped_stays_in_float() -> None:
    gm = traced("int8{skip=b.*}", calibrated())
    quantized = {n.name for n in gm.graph.nodes if "yqc.layer" in n.meta}
    assert quantized == {"stem_conv", "a_conv", "out"}
