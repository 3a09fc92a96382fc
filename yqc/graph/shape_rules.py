"""Shape rules of common operations: the torch operators' documented arithmetic, without kernels.

torch's own kernels for meta tensors are written in Python, for most operations, and import its
compiler when first used, which takes seconds; nearly all operations of detectors have a rule here.
A rule gets an operation's arguments and returns meta tensors. It returns None for arguments that do
not fit together and those that it does not cover: torch's kernel then runs, and raises its error.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

ATEN = torch.ops.aten
META = torch.device("meta")

MetaResult: TypeAlias = "Tensor | tuple[Tensor, ...] | None"
ShapeRule: TypeAlias = Callable[..., MetaResult]


def new_meta(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Make a meta tensor of a shape, by default of another's dtype."""
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, device=META)


def infer_unary(x: Tensor, *_settings: object) -> MetaResult:
    """Infer the result of an elementwise operation on one floating-point tensor."""
    return new_meta(x, x.shape) if x.is_floating_point() else None


def infer_in_place(x: Tensor, *_settings: object) -> MetaResult:
    """Infer the result of an elementwise operation that writes into its first argument."""
    return x if x.is_meta and x.is_floating_point() else infer_unary(x)


def infer_softmax(x: Tensor, dim: int, widened: bool) -> MetaResult:
    """Infer a softmax in the dtype of its input."""
    return None if widened or not -x.ndim <= dim < x.ndim else infer_unary(x)


def infer_batch_norm(x: Tensor, *settings: Any) -> MetaResult:  # noqa: ANN401  # as the operations take them
    """Infer a batch norm in inference: its result, and two tensors that stay empty."""
    mean = settings[2]
    if x.ndim < 2 or not isinstance(mean, Tensor) or mean.shape != x.shape[1:2]:  # noqa: PLR2004
        return None
    return new_meta(x, x.shape), new_meta(x, (0,)), new_meta(x, (0,))


def infer_binary(x: Tensor, y: object, *_settings: object) -> MetaResult:
    """Infer an operation with broadcasting on two floating-point tensors, or one and a number."""
    if not x.is_floating_point():
        return None
    if not isinstance(y, Tensor):
        return new_meta(x, x.shape) if isinstance(y, (int, float)) else None
    if y.dtype != x.dtype:
        return None
    longest = max(x.ndim, y.ndim)
    sizes = [(1,) * (longest - z.ndim) + tuple(z.shape) for z in (x, y)]
    if any(a != b and 1 not in (a, b) for a, b in zip(*sizes, strict=True)):
        return None
    return new_meta(x, [b if a == 1 else a for a, b in zip(*sizes, strict=True)])


def infer_integer(x: Tensor, y: object) -> MetaResult:
    """Infer an operation on an integer tensor and an integer, plain or as a tensor."""
    number = type(y) is int or (isinstance(y, Tensor) and y.ndim == 0 and y.dtype == torch.int64)
    integers = not x.is_floating_point() and x.dtype != torch.bool
    return new_meta(x, x.shape) if integers and number else None


def infer_concat(parts: Sequence[Tensor], dim: int = 0) -> MetaResult:
    """Infer a concatenation."""
    first = parts[0]
    if not -first.ndim <= dim < first.ndim or any(z.ndim != first.ndim for z in parts):
        return None
    shapes = [list(z.shape) for z in parts]
    total = sum(shape.pop(dim) for shape in shapes)
    if any(s != shapes[0] for s in shapes) or any(z.dtype != first.dtype for z in parts):
        return None
    shapes[0].insert(dim % first.ndim, total)
    return new_meta(first, shapes[0])


def infer_bmm(x: Tensor, y: Tensor) -> MetaResult:
    """Infer a product of batches of matrices."""
    fits = x.ndim == y.ndim == 3 and x.shape[::2] == (y.shape[0], y.shape[1])  # noqa: PLR2004
    return new_meta(x, (*x.shape[:2], y.shape[2])) if fits and x.dtype == y.dtype else None


def count_windows(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int] | None:
    """Count the rows and columns of windows that slide over a plane; source: torch.nn.Conv2d."""
    numbers = [[*n] * 2 if len(n) == 1 else n for n in (kernel, stride, padding, dilation)]
    sides = zip(x.shape[2:], *numbers, strict=True)
    size = [(n + 2 * pad - gap * (k - 1) - 1) // step + 1 for n, k, step, pad, gap in sides]
    return size if min(size) > 0 else None


def infer_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> MetaResult:  # noqa: ANN401  # as the operation takes them
    """Infer a two-dimensional convolution, not transposed."""
    stride, padding, dilation, transposed, _, groups = settings
    planes = x.ndim == weight.ndim == 4 and not transposed  # noqa: PLR2004  # [N, C, H, W]
    if not planes or x.dtype != weight.dtype or x.shape[1] != weight.shape[1] * groups:
        return None
    made = weight.shape[0]
    if made % groups or (bias is not None and tuple(bias.shape) != (made,)):
        return None
    size = count_windows(x, weight.shape[2:], stride, padding, dilation)
    return new_meta(x, (x.shape[0], made, *size)) if size else None


def infer_max_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    up: bool = False,
) -> MetaResult:
    """Infer a two-dimensional max-pooling that rounds down, and the indices of its maxima."""
    numbers = (kernel, stride or kernel, padding, dilation)
    if up or x.ndim != 4 or any(len(n) != 2 for n in numbers):  # noqa: PLR2004  # [N, C, H, W]
        return None
    if any(2 * pad > k for pad, k in zip(padding, kernel, strict=True)):
        return None
    size = count_windows(x, *numbers)
    shape = (*x.shape[:2], *(size or ()))
    return (new_meta(x, shape), new_meta(x, shape, torch.int64)) if size else None


def infer_average_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    up: bool = False,
    *_counted: object,
) -> MetaResult:
    """Infer a two-dimensional average-pooling that rounds down."""
    found = infer_max_pool(x, kernel, stride, padding, (1, 1), up)
    return found[0] if isinstance(found, tuple) and x.is_floating_point() else None


def infer_reduction(x: Tensor, dims: Sequence[int] = (), keep: bool = False) -> MetaResult:
    """Infer a reduction over some dimensions."""
    if not x.numel() or not all(-x.ndim <= dim < x.ndim for dim in dims):
        return None
    gone = {dim % x.ndim for dim in dims} or set(range(x.ndim))
    sizes = [(i, 1 if i in gone else n) for i, n in enumerate(x.shape)]
    return new_meta(x, [n for i, n in sizes if keep or i not in gone])


def infer_upsampling(x: Tensor, size: Sequence[int], *_scales: object) -> MetaResult:
    """Infer a two-dimensional upsampling to a size."""
    return new_meta(x, (*x.shape[:2], *size)) if x.ndim == 4 and min(size) > 0 else None  # noqa: PLR2004


RULES: dict[object, ShapeRule] = {
    **dict.fromkeys(
        (
            *(ATEN.silu.default, ATEN.relu.default, ATEN.sigmoid.default, ATEN.mish.default),
            *(ATEN.leaky_relu.default, ATEN.hardswish.default, ATEN.hardtanh.default),
            *(ATEN.gelu.default, ATEN.exp.default, ATEN.rsqrt.default, ATEN.neg.default),
        ),
        infer_unary,
    ),
    **dict.fromkeys(
        (
            *(ATEN.silu_.default, ATEN.relu_.default, ATEN.sigmoid_.default, ATEN.mish_.default),
            *(ATEN.leaky_relu_.default, ATEN.hardswish_.default, ATEN.hardtanh_.default),
        ),
        infer_in_place,
    ),
    **dict.fromkeys(
        (
            *(ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor, ATEN.div.Tensor),
            ATEN.pow.Tensor_Scalar,
        ),
        infer_binary,
    ),
    ATEN.native_batch_norm.default: infer_batch_norm,
    ATEN._native_batch_norm_legit_no_training.default: infer_batch_norm,  # noqa: SLF001  # it has no other name
    ATEN.cat.default: infer_concat,
    ATEN._softmax.default: infer_softmax,  # noqa: SLF001
    ATEN.floor_divide.default: infer_integer,
    ATEN.remainder.Scalar: infer_integer,
    ATEN.bmm.default: infer_bmm,
    ATEN.convolution.default: infer_convolution,
    ATEN.max_pool2d_with_indices.default: infer_max_pool,
    ATEN.avg_pool2d.default: infer_average_pool,
    ATEN.upsample_nearest2d.default: infer_upsampling,
    ATEN.amax.default: infer_reduction,
}
