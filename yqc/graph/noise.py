"""Seeded images of noise, to measure and correct graphs on where no images are given.

Their spectrum falls with frequency as that of photographs does, and each has a colour of its own,
so that all channels of a detector become active.
"""

import copy

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from yqc.errors import PassError, TraceError
from yqc.graph.compare import macs
from yqc.graph.values import TensorSpec, propagate

GRAINS = 7
"""Octaves of noise that are added up: from one pixel to 64, the largest stride of detectors."""
COUNT = 8
"""Images of noise. Statistics of eight vary less than of four; sixteen take twice the time."""
WORK = 2e10
"""Multiply-accumulates that one run on all images may take: half a second on one core, at the 45 G
a second measured on a CPU with AVX-512. Larger graphs get fewer images."""


def make_noise(gm: fx.GraphModule, seed: int) -> tuple[Tensor, ...]:
    """Make images of noise in 0..1, float32 [1, C, H, W]; one where the batch size is fixed.

    Raises:
        PassError: the graph does not take one batch of images.
    """
    shape = image_shape(gm)
    if shape is None:
        raise PassError(
            "noise replaces images only where a graph takes one tensor [N, C, H, W], and this "
            "one does not; give --data"
        )
    generator = torch.Generator().manual_seed(seed)
    count = max(1, min(COUNT, int(WORK / max(1, macs(gm)))))
    count = count if accepts_batch(gm, count * shape[0], shape) else 1
    return tuple(make_image(shape, generator) for _ in range(count))


def image_shape(gm: fx.GraphModule) -> tuple[int, ...] | None:
    """Return the shape [N, C, H, W] of a graph's only input; None if it takes anything else."""
    inputs = [n.meta.get("yqc.value") for n in gm.graph.nodes if n.op == "placeholder"]
    if len(inputs) != 1 or not isinstance(inputs[0], TensorSpec) or len(inputs[0].shape) != 4:  # noqa: PLR2004
        return None
    return inputs[0].shape


def accepts_batch(gm: fx.GraphModule, count: int, shape: tuple[int, ...]) -> bool:
    """Check whether a graph runs on `count` images of a shape at once."""
    try:
        propagate(copy.deepcopy(gm), (torch.empty(count, *shape[1:]),))
    except TraceError:
        return False
    return True


def make_image(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Make one image of noise."""
    sides = shape[2:]
    total = torch.zeros(shape)
    for octave in range(GRAINS):
        coarse = [max(2, side >> octave) for side in sides]
        grain = torch.randn(*shape[:2], *coarse, generator=generator)
        loud = (0.5 + torch.rand(1, generator=generator)) * 2.0 ** (0.6 * octave)
        total = total + F.interpolate(grain, size=sides, mode="bilinear") * loud
    colour = 0.2 + 0.6 * torch.rand(*shape[:2], 1, 1, generator=generator)
    return (0.25 * total / total.std() + colour).clamp(0, 1)
