"""Weights in codes of variable length are trained as floats and go back as codes."""

import torch
from torch import fx

from tests.passes.nets import X, calibrated, traced
from yqc.training.fake_quantize import make_trainable
from yqc.training.rice_weights import TrainedRiceWeight


def student_of(gm: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    graph.output(graph.graph_copy(gm.graph, {}))
    return fx.GraphModule(gm, graph)


def test_nothing_changes_before_training_and_what_is_learned_is_stored() -> None:
    gm = traced("fold-bn,pack-rice{bits=5}", calibrated())
    before, student = gm(X), student_of(gm)
    weights = [w for w in make_trainable(student) if isinstance(w, TrainedRiceWeight)]
    assert len(weights) == 4
    torch.testing.assert_close(student(X), before)
    for weight in weights:
        weight.store(gm)
    assert torch.equal(gm(X), before)
    student(X).square().sum().backward()
    with torch.no_grad():
        for weight in weights:
            assert weight.value.grad is not None
            assert weight.scale.log_factor.grad is not None
            step = 0.3 * weight.value.abs().amax() * weight.value.grad.sign()
            weight.value.add_(step)
            weight.scale.log_factor.add_(0.1)
    for weight in weights:
        weight.store(gm)
    want = student(X)
    assert not torch.allclose(want, before, rtol=1e-2)
    torch.testing.assert_close(gm(X), want, rtol=1e-3, atol=1e-3)
