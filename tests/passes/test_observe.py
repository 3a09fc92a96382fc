import pytest
from torch import fx

from tests.passes.nets import X, traced
from yqc import Context, calls, text
from yqc.errors import PipelineError
from yqc.pipeline.pipeline import Pipeline
from yqc.quant import Observer


def observed(gm: fx.GraphModule) -> dict[str, str]:
    return {c.node.all_input_nodes[0].name: c.module.group for c in calls(gm, Observer)}


def test_marks_what_convolutions_read_and_groups_what_meets_in_a_concat() -> None:
    gm = traced("fold-bn,observe")
    assert text(gm).splitlines()[-8:] == [
        "%add: f32[1,4,8,8] = add(%stem_act_observer, %b_act)",
        "%add_observer: f32[1,4,8,8] = Observer(%add)",
        "%cat: f32[1,8,8,8] = cat([%a_act_observer, %add_observer], 1)",
        "%cat_observer: f32[1,8,8,8] = Observer(%cat)",
        "%pool: f32[1,8,7,7] = MaxPool2d(%cat_observer)",
        "%pool_observer: f32[1,8,7,7] = Observer(%pool)",
        "%out: f32[1,2,7,7] = Conv2d(%pool_observer)",
        "return %out",
    ]
    assert observed(gm) == {
        "images": "images",
        "stem_act": "stem_act",
        "a_act": "a_act",
        "add": "a_act",
        "cat": "a_act",
        "pool": "a_act",
    }


def test_marks_all_of_a_decomposed_silu_for_onnxruntime() -> None:
    ctx = Context(example=X, target="onnxruntime")
    gm = traced("fold-bn,decompose-silu,observe", ctx)
    lines = text(gm).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("%a_conv:"))
    assert lines[at : at + 6] == [
        "%a_conv: f32[1,4,8,8] = Conv2d(%stem_act_observer)",
        "%a_conv_observer: f32[1,4,8,8] = Observer(%a_conv)",
        "%a_act_sigmoid: f32[1,4,8,8] = sigmoid(%a_conv_observer)",
        "%a_act_sigmoid_observer: f32[1,4,8,8] = Observer(%a_act_sigmoid)",
        "%a_act: f32[1,4,8,8] = mul(%a_conv_observer, %a_act_sigmoid_observer)",
        "%a_act_observer: f32[1,4,8,8] = Observer(%a_act)",
    ]
    assert "out" not in observed(gm)


def test_names_the_pass_that_decomposes_silu_for_onnxruntime() -> None:
    ctx = Context(example=X, target="onnxruntime")
    gm = traced("fold-bn,observe", ctx)
    assert {name: why for name, why in ctx.skips if "SiLU" in why} == dict.fromkeys(
        ("a_act", "b_act"),
        "onnxruntime has no integer kernel for SiLU; put decompose-silu before observe",
    )
    assert {"a_conv", "a_act"} <= observed(gm).keys()


def test_leaves_a_convolution_of_few_channels_in_float_for_onnxruntime() -> None:
    ctx = Context(example=X, target="onnxruntime")
    gm = traced("fold-bn,decompose-silu,observe", ctx)
    assert ctx.skips == [
        ("stem_act", "its convolution reads at most 3 channels and stays in float"),
        ("stem_conv", "at most 3 input channels run faster in float here"),
    ]
    assert not {"images", "stem_conv"} & observed(gm).keys()


def test_gives_tensorrt_symmetric_integers() -> None:
    gm = traced("fold-bn,observe", Context(example=X, target="tensorrt"))
    assert all(c.module.symmetric and c.module.dtype == "int8" for c in calls(gm, Observer))


def test_skips_what_it_is_asked_to_and_says_so() -> None:
    ctx = Context(target="portable", example=X)
    gm = traced("fold-bn,observe{skip=b.*|out}", ctx)
    assert ctx.skips == [("b_conv", "asked to skip it"), ("out", "asked to skip it")]
    assert "b_act" not in observed(gm)


def test_needs_folded_batch_norms_and_names_the_pass_that_folds_them() -> None:
    with pytest.raises(PipelineError, match="put fold-bn before it"):
        Pipeline.parse("observe").expand()
