"""Lowerings that change the resolution: interpolation, pixel shuffle and its inverse."""

# ruff: noqa: ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.emit.emitter import Emitter
from yqc.emit.table import lowering

KINDS = {"nearest": "nearest", "nearest-exact": "nearest", "bilinear": "linear", "bicubic": "cubic"}
AXES_OPSET = 18
"""From here on Resize can leave batch and channels out of its sizes."""


@lowering(nn.Upsample, F.interpolate, F.upsample)
def interpolate(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    size: object = None,  # given by the shape of the result
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> str:
    """Lower an interpolation of images to a Resize that looks at the same source pixels.

    Output i reads the source at i * scale (nearest), (i + 1/2) * scale - 1/2 (the rest), or
    i * (n - 1) / (m - 1) with aligned corners; `nearest-exact` rounds halves up.
    """
    if mode not in KINDS or antialias:
        e.refuse(f"mode {mode}{' with antialias' * antialias} has no ONNX form here")
    source, wanted, sides = e.shape(x)[2:], e.shape(node)[2:], e.sides(node)[2:]
    coordinates = "align_corners" if align_corners else "half_pixel"
    given = None if recompute_scale_factor else scale_factor
    scales, sizes = None, None
    factors = _scales(source, wanted, given)
    other = _scales([new for _, new in e.sides(x)[2:]], [new for _, new in sides], given)
    if factors and factors == other:
        scales = torch.tensor([1.0, 1.0, *factors])
    elif e.opset >= AXES_OPSET:
        sizes = e.value(e.dims(sides))
    else:
        batch = e.op("Slice", e.op("Shape", x), [0], [2])
        sizes = e.op("Concat", batch, e.dims(sides), axis=0)
    rounding = "round_prefer_ceil" if mode == "nearest-exact" else "floor"
    return e.op(
        "Resize",
        *(x, None, scales, sizes),
        mode=KINDS[mode],
        coordinate_transformation_mode="asymmetric" if mode == "nearest" else coordinates,
        nearest_mode=rounding if KINDS[mode] == "nearest" else None,
        cubic_coeff_a=-0.75 if mode == "bicubic" else None,
        axes=[2, 3] if sizes is not None and e.opset >= AXES_OPSET else None,
    )


def _scales(
    source: Sequence[int], wanted: Sequence[int], given: float | Sequence[float] | None
) -> list[float] | None:
    """Return the factors to scale by, or None if only sizes say what is meant.

    The factors are float32 in an ONNX file, so they must still lead to the wanted size there.
    """
    if given is None:
        factors = [w / s for s, w in zip(source, wanted, strict=True)]
        return factors if all(f == int(f) for f in factors) else None
    factors = [given] * len(source) if isinstance(given, (int, float)) else list(given)
    reached = [
        math.floor(np.float32(s) * np.float32(f)) for s, f in zip(source, factors, strict=True)
    ]
    return factors if reached == list(wanted) else None


@lowering(nn.PixelShuffle, F.pixel_shuffle)
def pixel_shuffle(e: Emitter, _: fx.Node, x: fx.Node, upscale_factor: int) -> str:
    return e.op("DepthToSpace", x, blocksize=upscale_factor, mode="CRD")


@lowering(nn.PixelUnshuffle, F.pixel_unshuffle)
def pixel_unshuffle(e: Emitter, node: fx.Node, x: fx.Node, downscale_factor: int) -> str:
    """Lower by Reshape and Transpose: SpaceToDepth puts the channels behind the positions."""
    channels, (height, width) = e.shape(node)[1], e.sides(node)[2:]
    r = downscale_factor
    blocks = e.op("Reshape", x, e.dims([0, channels // (r * r), height, r, width, r]))
    swapped = e.op("Transpose", blocks, perm=[0, 1, 3, 5, 2, 4])
    return e.op("Reshape", swapped, e.dims([0, channels, height, width]))


@lowering(nn.UpsamplingBilinear2d)
def upsampling_bilinear(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    size: object = None,
    scale_factor: float | Sequence[float] | None = None,
) -> str:
    return interpolate(e, node, x, size, scale_factor, "bilinear", align_corners=True)
