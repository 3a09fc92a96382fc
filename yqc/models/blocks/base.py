"""Base class of all twins, and the small helpers that their constructors share."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

EPS, MOMENTUM = 1e-3, 0.03
"""Of every fresh batch norm, as all three projects set them; checkpoints keep their own `eps`."""


class Block(nn.Module):
    """A module that can be rebuilt from the pickled state of the class it is a twin of.

    Class annotations of a plain type (`add: bool`, `c: int`, `scale: float`) declare the pickled
    attributes that are restored; a class-level default makes one optional. Children, parameters
    and buffers need no declaration: they are restored as stored.
    """

    __call__: Callable[..., Tensor]
    left_out: ClassVar[frozenset[str]] = frozenset()
    """Names of stored children that serve training only, and are not rebuilt."""

    def finish(self) -> None:
        """Derive what is not stored and drop what is stale, once weights are in place."""

    def child(self, name: str) -> nn.Module | None:
        """Return a child that may be absent, as after a project's own fusing."""
        return self._modules.get(name)


class ResidualBlock(Block):
    """Convolutions in a row, with a residual where `add` says so."""

    add: bool
    cv1: nn.Module
    cv2: nn.Module

    def inner(self, x: Tensor) -> Tensor:
        """Compute what is added to the input."""
        return run_module(self.cv2, self.cv1(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map `f32[N, C, H, W]` to `f32[N, C', H, W]`."""
        y = self.inner(x)
        return x + y if self.add else y


def keeping_padding(k: int | tuple[int, int], d: int = 1) -> int | tuple[int, int]:
    """Return the padding with which a kernel `k`, dilated by `d`, keeps the size at stride 1."""
    if isinstance(k, int):
        return d * (k - 1) // 2
    return d * (k[0] - 1) // 2, d * (k[1] - 1) // 2


def make_batch_norm(channels: int) -> nn.BatchNorm2d:
    """Make a batch norm with the projects' settings."""
    return nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)


def make_activation(act: bool | nn.Module) -> nn.Module:
    """Make the activation of an argument `act`: True is SiLU, False is Identity."""
    if isinstance(act, nn.Module):
        return act
    return nn.SiLU() if act else nn.Identity()


def chain_of(n: int, make: Callable[[], nn.Module]) -> nn.Sequential:
    """Chain `n` fresh modules."""
    return nn.Sequential(*(make() for _ in range(n)))


def split_halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split the channels into two equal parts."""
    first, second = torch.chunk(x, 2, 1)
    return first, second


def run_keeping(steps: Iterable[nn.Module], *parts: Tensor) -> Tensor:
    """Run modules in a row from the last part on; concatenate the parts and every result."""
    found = list(parts)
    for step in steps:
        found.append(step(found[-1]))
    return torch.cat(found, 1)


def run_module(module: nn.Module, *args: Any) -> Tensor:  # noqa: ANN401  # passed on
    """Call a module that returns one tensor; for modules whose type does not say so."""
    y: Tensor = module(*args)
    return y
