"""Modules of a graph, with the type that a test expects of them."""

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def part(gm: nn.Module, path: str, kind: type[M]) -> M:
    """Return the module at a path, which must be of this kind."""
    found = gm.get_submodule(path)
    assert isinstance(found, kind), f"{path} is a {type(found).__name__}"
    return found


def conv(gm: nn.Module, path: str) -> nn.Conv2d:
    return part(gm, path, nn.Conv2d)


def norm(gm: nn.Module, path: str) -> nn.BatchNorm2d:
    return part(gm, path, nn.BatchNorm2d)
