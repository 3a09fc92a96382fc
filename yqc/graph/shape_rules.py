"""What common operations give, by shape: the torch operators' documented arithmetic, no kernels.

torch's own kernels for meta tensors are written in Python, for most operations, and import its
compiler when first used, which takes seconds; a detector's operations are nearly all told here.
A rule gets an operation's arguments and returns meta tensors, or None where they do not fit
together or it does not know: then torch's kernel is asked, which says what is wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

ATEN = torch.ops.aten
META = torch.device("meta")

Told: TypeAlias = "Tensor | tuple[Tensor, ...] | None"
Rule: TypeAlias = Callable[..., Told]


def new(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Make a meta tensor of a shape, by default of another's dtype."""
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, device=META)


def alike(x: Tensor, *_settings: object) -> Told:
    """Tell what works on a floating-point tensor, element by element."""
    return new(x, x.shape) if x.is_floating_point() else None


def into(x: Tensor, *_settings: object) -> Told:
    """Tell what writes into its first argument, element by element."""
    return x if x.is_meta and x.is_floating_point() else alike(x)


def softmax(x: Tensor, dim: int, widened: bool) -> Told:
    """Tell a softmax in the dtype of what it reads."""
    return None if widened or not -x.ndim <= dim < x.ndim else alike(x)


def norm(x: Tensor, *settings: Any) -> Told:  # noqa: ANN401  # as the operations take them
    """Tell a batch norm at inference: the result, and two tensors that stay empty."""
    mean = settings[2]
    if x.ndim < 2 or not isinstance(mean, Tensor) or mean.shape != x.shape[1:2]:  # noqa: PLR2004
        return None
    return new(x, x.shape), new(x, (0,)), new(x, (0,))


def paired(x: Tensor, y: object, *_settings: object) -> Told:
    """Tell what works on two floating-point tensors, or one and a number, by broadcasting."""
    if not x.is_floating_point():
        return None
    if not isinstance(y, Tensor):
        return new(x, x.shape) if isinstance(y, (int, float)) else None
    if y.dtype != x.dtype:
        return None
    longest = max(x.ndim, y.ndim)
    sizes = [(1,) * (longest - z.ndim) + tuple(z.shape) for z in (x, y)]
    if any(a != b and 1 not in (a, b) for a, b in zip(*sizes, strict=True)):
        return None
    return new(x, [b if a == 1 else a for a, b in zip(*sizes, strict=True)])


def whole(x: Tensor, y: object) -> Told:
    """Tell what works on an integer tensor and a whole number, as it is or as a tensor."""
    number = type(y) is int or (isinstance(y, Tensor) and y.ndim == 0 and y.dtype == torch.int64)
    integers = not x.is_floating_point() and x.dtype != torch.bool
    return new(x, x.shape) if integers and number else None


def joined(parts: Sequence[Tensor], dim: int = 0) -> Told:
    """Tell a concatenation."""
    first = parts[0]
    if not -first.ndim <= dim < first.ndim or any(z.ndim != first.ndim for z in parts):
        return None
    shapes = [list(z.shape) for z in parts]
    total = sum(shape.pop(dim) for shape in shapes)
    if any(s != shapes[0] for s in shapes) or any(z.dtype != first.dtype for z in parts):
        return None
    shapes[0].insert(dim % first.ndim, total)
    return new(first, shapes[0])


def multiplied(x: Tensor, y: Tensor) -> Told:
    """Tell a product of batches of matrices."""
    fits = x.ndim == y.ndim == 3 and x.shape[::2] == (y.shape[0], y.shape[1])  # noqa: PLR2004
    return new(x, (*x.shape[:2], y.shape[2])) if fits and x.dtype == y.dtype else None


def windows(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int] | None:
    """Return over how many rows and columns of a plane windows slide; source: torch.nn.Conv2d."""
    numbers = [[*n] * 2 if len(n) == 1 else n for n in (kernel, stride, padding, dilation)]
    sides = zip(x.shape[2:], *numbers, strict=True)
    size = [(n + 2 * pad - gap * (k - 1) - 1) // step + 1 for n, k, step, pad, gap in sides]
    return size if min(size) > 0 else None


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Told:  # noqa: ANN401  # as the operation takes them
    """Tell a convolution over a plane, but no transposed one."""
    stride, padding, dilation, transposed, _, groups = settings
    planes = x.ndim == weight.ndim == 4 and not transposed  # noqa: PLR2004  # [N, C, H, W]
    if not planes or x.dtype != weight.dtype or x.shape[1] != weight.shape[1] * groups:
        return None
    made = weight.shape[0]
    if made % groups or (bias is not None and tuple(bias.shape) != (made,)):
        return None
    size = windows(x, weight.shape[2:], stride, padding, dilation)
    return new(x, (x.shape[0], made, *size)) if size else None


def pooled(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    up: bool = False,
) -> Told:
    """Tell a max-pooling over a plane, which rounds down, and the places of its maxima."""
    numbers = (kernel, stride or kernel, padding, dilation)
    if up or x.ndim != 4 or any(len(n) != 2 for n in numbers):  # noqa: PLR2004  # [N, C, H, W]
        return None
    if any(2 * pad > k for pad, k in zip(padding, kernel, strict=True)):
        return None
    size = windows(x, *numbers)
    shape = (*x.shape[:2], *(size or ()))
    return (new(x, shape), new(x, shape, torch.int64)) if size else None


def averaged(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    up: bool = False,
    *_counted: object,
) -> Told:
    """Tell an average-pooling over a plane, which rounds down."""
    found = pooled(x, kernel, stride, padding, (1, 1), up)
    return found[0] if isinstance(found, tuple) and x.is_floating_point() else None


def reduced(x: Tensor, dims: Sequence[int] = (), keep: bool = False) -> Told:
    """Tell what keeps a number of each slice along some dimensions."""
    if not x.numel() or not all(-x.ndim <= dim < x.ndim for dim in dims):
        return None
    gone = {dim % x.ndim for dim in dims} or set(range(x.ndim))
    sizes = [(i, 1 if i in gone else n) for i, n in enumerate(x.shape)]
    return new(x, [n for i, n in sizes if keep or i not in gone])


def enlarged(x: Tensor, size: Sequence[int], *_scales: object) -> Told:
    """Tell an upsampling of a plane to a size."""
    return new(x, (*x.shape[:2], *size)) if x.ndim == 4 and min(size) > 0 else None  # noqa: PLR2004


RULES: dict[object, Rule] = {
    **dict.fromkeys(
        (
            *(ATEN.silu.default, ATEN.relu.default, ATEN.sigmoid.default, ATEN.mish.default),
            *(ATEN.leaky_relu.default, ATEN.hardswish.default, ATEN.hardtanh.default),
            *(ATEN.gelu.default, ATEN.exp.default, ATEN.rsqrt.default, ATEN.neg.default),
        ),
        alike,
    ),
    **dict.fromkeys(
        (
            *(ATEN.silu_.default, ATEN.relu_.default, ATEN.sigmoid_.default, ATEN.mish_.default),
            *(ATEN.leaky_relu_.default, ATEN.hardswish_.default, ATEN.hardtanh_.default),
        ),
        into,
    ),
    **dict.fromkeys(
        (
            *(ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor, ATEN.div.Tensor),
            ATEN.pow.Tensor_Scalar,
        ),
        paired,
    ),
    ATEN.native_batch_norm.default: norm,
    ATEN._native_batch_norm_legit_no_training.default: norm,  # noqa: SLF001  # it has no other name
    ATEN.cat.default: joined,
    ATEN._softmax.default: softmax,  # noqa: SLF001
    ATEN.floor_divide.default: whole,
    ATEN.remainder.Scalar: whole,
    ATEN.bmm.default: multiplied,
    ATEN.convolution.default: convolved,
    ATEN.max_pool2d_with_indices.default: pooled,
    ATEN.avg_pool2d.default: averaged,
    ATEN.upsample_nearest2d.default: enlarged,
    ATEN.amax.default: reduced,
}
"""Operation -> what tells its result."""
