"""What the tests of emission share: modules made of functions, and the comparison with PyTorch."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from yqc.emit import emit
from yqc.emit.roundtrip import OPTIMISED, PLAIN, open_session, run_session
from yqc.models.trace import trace


class One(nn.Module):
    """A module whose forward is a function of one tensor."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Two(nn.Module):
    """A module whose forward is a function of two tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


def randomise(module: nn.Module) -> nn.Module:
    """Give every parameter and statistic a value that is no identity."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            low, high = (0.5, 2.0) if name.endswith("running_var") else (-1.0, 1.0)
            tensor.data.uniform_(low, high, generator=generator)
    return module.eval()


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
    ) -> onnx.ModelProto: ...


@pytest.fixture
def agrees() -> Agrees:
    """Emit a module or a function, run it plain and optimised, compare all outputs with PyTorch's.

    Shapes and dtypes are exact, values within 1e-5 + 1e-5 relative. With `dynamic`, a batch three
    times as large as the example is compared too, its images all different.
    """

    def check(
        thing: nn.Module | Callable[..., Any],
        *examples: Tensor,
        opset: int | None = None,
        dynamic: bool = False,
    ) -> onnx.ModelProto:
        if isinstance(thing, nn.Module):
            module = randomise(thing)
        else:
            module = One(thing) if len(examples) == 1 else Two(thing)
        model = emit(trace(module, examples), opset=opset, dynamic=dynamic)
        batches = [list(examples)]
        if dynamic:
            batches.append([torch.cat([x, x.flip(-1), x.flip(1)]) for x in examples])
        for loaded in (open_session(model, level) for level in (PLAIN, OPTIMISED)):
            for batch in batches:
                with torch.no_grad():
                    want = [w.numpy() for w in flat(module(*(x.clone() for x in batch)))]
                for g, w in zip(run_session(loaded, [x.numpy() for x in batch]), want, strict=True):
                    assert (g.shape, g.dtype) == (w.shape, w.dtype)
                    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)
        return model

    return check
