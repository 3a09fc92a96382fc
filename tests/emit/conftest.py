"""What the tests of emission share: modules made of functions, and the comparison with PyTorch."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from yqc.emit import emit
from yqc.emit.roundtrip import OPTIMISED, PLAIN, run, session
from yqc.models.trace import trace

RTOL, ATOL = 1e-5, 1e-5


class Fn(nn.Module):
    """A module whose forward is a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs: Tensor) -> Any:
        return self.function(*xs)


class One(Fn):
    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Two(Fn):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


def randomise(module: nn.Module, seed: int = 1) -> nn.Module:
    """Give every parameter and statistic a value that is no identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            low, high = (0.5, 2.0) if name.endswith("running_var") else (-1.0, 1.0)
            tensor.data.uniform_(low, high, generator=generator)
    return module.eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_module(thing: nn.Module | Callable[..., Any], inputs: int) -> nn.Module:
    if isinstance(thing, nn.Module):
        return randomise(thing).eval()
    return (One if inputs == 1 else Two)(thing)


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for item in value for t in flat(item)]


class Agrees(Protocol):
    def __call__(
        self,
        thing: nn.Module | Callable[..., Any],
        *examples: Tensor,
        opset: int | None = None,
        dynamic: bool = False,
        rtol: float = RTOL,
        atol: float = ATOL,
    ) -> onnx.ModelProto: ...


def compare(
    model: onnx.ModelProto, module: nn.Module, inputs: Sequence[Tensor], rtol: float, atol: float
) -> None:
    with torch.no_grad():
        want = flat(module(*(x.clone() for x in inputs)))
    for level in (PLAIN, OPTIMISED):
        got = run(session(model, level), [x.numpy() for x in inputs])
        for g, w in zip(got, [w.numpy() for w in want], strict=True):
            assert (g.shape, g.dtype) == (w.shape, w.dtype)
            np.testing.assert_allclose(g, w, rtol=rtol, atol=atol)


@pytest.fixture
def agrees() -> Agrees:
    """Emit a module or function and compare every output with PyTorch's, shape and dtype too.

    With `dynamic` the batch is the example's and three times as large.
    """

    def check(
        thing: nn.Module | Callable[..., Any],
        *examples: Tensor,
        opset: int | None = None,
        dynamic: bool = False,
        rtol: float = RTOL,
        atol: float = ATOL,
    ) -> onnx.ModelProto:
        module = as_module(thing, len(examples))
        model = emit(trace(module, examples), opset=opset, dynamic=dynamic)
        compare(model, module, examples, rtol, atol)
        if dynamic:
            more = [torch.cat([x, x.flip(-1), x.flip(1)]) for x in examples]
            compare(model, module, more, rtol, atol)
        return model

    return check
