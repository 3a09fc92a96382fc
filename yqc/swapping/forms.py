"""Activations that can be put in the place of others: what they compute, and where they bend."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.1
"""Slope of `leaky-relu` below zero, as in YOLOv7-tiny. Half of it is closer to ReLU, double closer
to no activation at all; it was not varied."""


@dataclass(frozen=True)
class Form:
    """An activation g, put in as g(a x + b) + m with numbers a, b and m of each channel."""

    name: str
    """What the option `to` calls it."""
    make: Callable[[], nn.Module]
    """Makes its module, or that of the gate s."""
    function: Callable[[Tensor], Tensor]
    knots: tuple[float, ...]
    """Where its slope changes; between them it is straight, or taken as straight."""
    is_gate: bool = False
    """Whether it is written as x * s(x)."""

    def pieces(self) -> list[tuple[float, float, float, float]]:
        """List its straight pieces: low end, high end, slope and intercept of each."""
        ends = (self.knots[0] - 1.0, *self.knots, self.knots[-1] + 1.0)
        values = self.function(torch.tensor(ends)).tolist()
        found, last = [], len(ends) - 2
        for i in range(last + 1):
            slope = (values[i + 1] - values[i]) / (ends[i + 1] - ends[i])
            low = -math.inf if i == 0 else ends[i]
            high = math.inf if i == last else ends[i + 1]
            found.append((low, high, slope, values[i] - slope * ends[i]))
        return found

    def slope(self, x: Tensor) -> Tensor:
        """Return the derivative at every element of x."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.function(x).sum(), x)
        return found


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAK)


SMOOTH_KNOTS = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""Of x * hardsigmoid(x), which is a parabola between -3 and 3: chords of length 1.5 are off by 0.09
at most; half of it by a quarter of that, which moves no fit that was looked at."""
FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("relu", nn.ReLU, F.relu, (0.0,)),
        Form("relu6", nn.ReLU6, F.relu6, (0.0, 6.0)),
        Form("leaky-relu", lambda: nn.LeakyReLU(LEAK), _leaky, (0.0,)),
        Form("hardswish", nn.Hardswish, F.hardswish, SMOOTH_KNOTS),
        Form("hard-sigmoid", nn.Hardsigmoid, F.hardswish, SMOOTH_KNOTS, is_gate=True),
    )
}
