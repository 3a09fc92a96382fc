"""Activations that can be put in the place of others: what they compute, and where they bend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTH: tuple[type[nn.Module], ...] = (
    *(nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.ELU, nn.CELU, nn.SELU, nn.Softplus),
    *(nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.ReLU),
)
"""Modules that are swapped. Gates such as Sigmoid are not: what they compute is multiplied."""
SMOOTH_FUNCTIONS = (
    *(F.silu, F.gelu, F.mish, F.hardswish, F.elu, F.celu, F.selu, F.softplus, F.leaky_relu),
    *(F.relu6, F.relu, torch.relu),
)
"""The same as functions."""


@dataclass(frozen=True)
class Form:
    """An activation g to put in the place of others, as max(g(a x + b), 0) + m of each channel."""

    name: str
    """What the option `to` calls it."""
    make: Callable[[], nn.Module]
    function: Callable[[Tensor], Tensor]
    knots: tuple[float, ...]
    """Where its slope changes; between them it is straight, or taken as that."""

    @property
    def pieces(self) -> list[tuple[float, float, float, float]]:
        """List its straight pieces: low and high end, and the line's slope and intercept there."""
        ends = (self.knots[0] - 1.0, *self.knots, self.knots[-1] + 1.0)
        values = self.function(torch.tensor(ends)).tolist()
        found = []
        for i in range(len(ends) - 1):
            slope = (values[i + 1] - values[i]) / (ends[i + 1] - ends[i])
            low = -torch.inf if i == 0 else ends[i]
            high = torch.inf if i == len(ends) - 2 else ends[i + 1]
            found.append((low, high, slope, values[i] - slope * ends[i]))
        return found

    def slope(self, x: Tensor) -> Tensor:
        """Return the derivative at every element of x."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.function(x).sum(), x)
        return found


LEAK = 0.1
"""Slope of `leaky-relu` below zero, that of YOLOv7-tiny."""
FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("relu", nn.ReLU, F.relu, (0.0,)),
        Form("relu6", nn.ReLU6, F.relu6, (0.0, 6.0)),
        Form("leaky-relu", lambda: nn.LeakyReLU(LEAK), lambda x: F.leaky_relu(x, LEAK), (0.0,)),
        Form("hardswish", nn.Hardswish, F.hardswish, (-3.0, -1.5, 0.0, 1.5, 3.0)),
    )
}


def names(forms: Sequence[Form] = tuple(FORMS.values())) -> str:
    """Name the forms in a sentence."""
    return ", ".join(form.name for form in forms)
