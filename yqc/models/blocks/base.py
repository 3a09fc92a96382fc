"""What all twins have in common."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

EPS, MOMENTUM = 1e-3, 0.03  # As all three projects set them on every batch norm.


class Block(nn.Module):
    """A module that can be rebuilt from the pickled state of the class it is a twin of.

    Class annotations of a plain type (`add: bool`, `c: int`, `scale: float`) declare the pickled
    attributes that are restored; a class-level default makes one optional. Children, parameters
    and buffers need no declaration: they are restored as stored.
    """

    __call__: Callable[..., Tensor]

    def finish(self) -> None:
        """Derive what is not stored, once weights are in place. Called by every loader."""

    def child(self, name: str) -> nn.Module | None:
        """Return a child that may be absent, as after a project's own fusing."""
        return self._modules.get(name)


def same_padding(k: int | tuple[int, int], d: int = 1) -> int | tuple[int, int]:
    """Return the padding with which a kernel `k`, dilated by `d`, keeps the size at stride 1."""
    if isinstance(k, int):
        return d * (k - 1) // 2
    return d * (k[0] - 1) // 2, d * (k[1] - 1) // 2


def make_batch_norm(channels: int) -> nn.BatchNorm2d:
    """Make a batch norm with the projects' settings."""
    return nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)


def make_activation(act: bool | nn.Module) -> nn.Module:
    """Make the activation that an argument `act` asks for: True is SiLU, False is none."""
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


def run_module(module: nn.Module, *args: Any) -> Tensor:  # noqa: ANN401  # whatever the module takes
    """Call a module whose type says nothing of its result."""
    y: Tensor = module(*args)
    return y
