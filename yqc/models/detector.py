"""A detector: layers in a row, each fed by earlier ones, the last of them a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from yqc.errors import CheckpointError, first_line
from yqc.models.blocks.base import Block
from yqc.models.blocks.conv import Focus, ReOrg
from yqc.models.bounded import Bounded
from yqc.models.heads import ClassifyHead, DetectionHead, RegisteredHead

PROBE = 128
"""Pixels a side of the grey image that measures strides: the deepest stride in use."""
MOST_VALUES = 1 << 26
"""Values that all operations on that image may compute: the golden files, small models, compute 3
million at most. Half leaves the largest models little room, double lets hostile files take more."""


@dataclass(frozen=True)
class Route:
    """Where a layer's input comes from: indices of layers, -1 for the image."""

    sources: tuple[int, ...]
    many: bool
    """Whether the layer takes a list; one source may make a list of one."""


def read_route(f: object, i: int) -> Route:
    """Read a layer's stored `f`: an index or a list of them, negative ones counted back from `i`.

    Raises:
        CheckpointError: it is something else, or names a layer that is not before this one.
    """
    many = isinstance(f, (list, tuple))
    given = list(f) if isinstance(f, (list, tuple)) else [f]
    # Counting back one further than the first layer gives the image.
    sources = [j + i if j < 0 else j for j in given if type(j) is int and -i - 1 <= j < i]
    if not sources or len(sources) != len(given):
        raise CheckpointError(f"layer {i} takes its input from {f!r:.60}, which is not before it")
    return Route(tuple(sources), many)


class Detector(nn.Module):
    """Layers and how they are wired (one route a layer), as the three projects store them.

    The last layer is a `DetectionHead`; a layer with several inputs takes a list.
    """

    def __init__(self, layers: Sequence[nn.Module], routes: Sequence[Route]) -> None:
        super().__init__()
        if not layers or not isinstance(layers[-1], DetectionHead):
            raise CheckpointError("the model's last layer is not a detection head")
        listed = routes[-1].many or isinstance(layers[-1], RegisteredHead | ClassifyHead)
        if len(routes[-1].sources) < layers[-1].inputs or not listed:
            raise CheckpointError(
                f"the head takes {layers[-1].inputs} maps and is given {len(routes[-1].sources)}:"
                " the checkpoint is damaged"
            )
        self.model = nn.Sequential(*layers)
        self.routes = tuple(routes)
        self.factor: Tensor | None = None
        self.shift: Tensor | None = None

    @property
    def channels(self) -> int:
        """Channels of the image, from the first convolution; 3 if layer 0 is a user's own."""
        first = next((m for m in self.model if not isinstance(m, nn.Identity)), None)
        if not isinstance(first, Block | nn.Conv2d):
            return 3
        folded = 1
        for module in self.modules():
            if isinstance(module, Focus | ReOrg):
                folded *= 4
            if isinstance(module, nn.Conv2d):
                return max(module.in_channels // folded, 1)
        return 3

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Subtract a mean and divide by a deviation, one a channel, before the first layer.

        Raises:
            CheckpointError: there are not as many numbers as channels.
        """
        if len(mean) not in {1, self.channels}:
            raise CheckpointError(
                f"its images have {self.channels} channels, and their normalisation {len(mean)}"
            )
        deviation = torch.tensor(std)
        del self.factor, self.shift
        self.register_buffer("factor", (1 / deviation).view(1, -1, 1, 1))
        self.register_buffer("shift", (-torch.tensor(mean) / deviation).view(1, -1, 1, 1))

    @property
    def head(self) -> DetectionHead:
        """The last layer."""
        return cast(DetectionHead, self.model[-1])

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map images `f32[N, C, H, W]` in 0..1 to the head's outputs.

        C is `channels`; H and W are multiples of the strides.
        """
        y: Tensor | tuple[Tensor, ...] = self.head(self.features(images))
        return y

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps that the head uses, finest first as a rule."""
        needed = self.needed()
        if self.factor is not None and self.shift is not None:
            images = images * self.factor + self.shift
        results: dict[int, Tensor] = {-1: images}
        for i, layer in enumerate(list(self.model)[:-1]):
            if i in needed:
                inputs = [results[j] for j in self.routes[i].sources]
                results[i] = layer(inputs if self.routes[i].many else inputs[0])
        return [results[j] for j in self.taps()]

    def taps(self) -> tuple[int, ...]:
        """Return the layers whose maps the head uses."""
        return self.head.used(self.routes[-1].sources)

    def needed(self) -> set[int]:
        """Return the layers that the output depends on; auxiliary branches are not among them."""
        found, todo = set[int](), list(self.taps())
        while todo:
            i = todo.pop()
            if i >= 0 and i not in found:
                found.add(i)
                todo += self.routes[i].sources
        return found

    def drop_unused_layers(self) -> list[int]:
        """Empty the layers that the output does not depend on; return those that held something."""
        unused = sorted(set(range(len(self.model) - 1)) - self.needed())
        filled = [i for i in unused if next(self.model[i].parameters(), None) is not None]
        for i in unused:
            self.model[i] = nn.Identity()
        return filled

    @torch.no_grad()
    def measure_strides(self) -> tuple[float, ...]:
        """Run a small grey image and return the input pixels a cell of each map the head uses.

        Raises:
            CheckpointError: a layer cannot work on its input, or makes no map for the head.
        """
        reached: list[int] = []
        watches = [
            layer.register_forward_pre_hook(lambda *_, i=i: reached.append(i))
            for i, layer in enumerate(self.model)
        ]
        try:
            with Bounded(MOST_VALUES):
                maps = self.eval().features(torch.full((1, self.channels, PROBE, PROBE), 0.5))
        except Exception as error:
            where = f"layer {reached[-1]}, a {type(self.model[reached[-1]]).__name__},"
            reason = first_line(error)
            raise CheckpointError(f"{where} does not work on its input: {reason}") from error
        finally:
            for watch in watches:
                watch.remove()
        for i, found in zip(self.taps(), maps, strict=True):
            if not isinstance(found, Tensor) or found.ndim != 4:  # noqa: PLR2004  # [N, C, H, W]
                kind = type(self.model[i]).__name__
                raise CheckpointError(f"layer {i}, a {kind}, does not make one map for the head")
        if isinstance(self.head, RegisteredHead):
            self.head.recognise(maps)
        return self.head.strides_of(maps, PROBE)
