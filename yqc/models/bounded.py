"""Limit what running a module may allocate, for modules that an untrusted file describes.

A file of a few kilobytes can hold forty upsamplings in a row, or a concat of itself, again and
again. Each operation is tried on meta tensors first, which have shapes and no memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from yqc.graph.meta_tensors import PlainDispatchMode, run_on_meta


class TooLargeError(RuntimeError):
    """An operation would compute more elements than are allowed."""


class Bounded(PlainDispatchMode):  # type: ignore[no-untyped-call]  # torch's own metaclass
    """While it is entered, all operations together may compute `elements` values, and no more.

    >>> with Bounded(1000):
    ...     _ = torch.ones(10).repeat(10)

    Args:
        elements: how many; views compute none.

    Raises:
        TooLargeError: by the operation that would compute more, before it takes any memory.
    """

    def __init__(self, elements: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = self.limit = elements

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # the operation's result
        """Count what an operation will compute, then run it."""
        given = dict(kwargs or {})
        if not getattr(func, "is_view", False):
            self.left -= sum(t.numel() for t in self._ahead(func, args, given))
        if self.left < 0:
            raise TooLargeError(f"it computes more than {self.limit:,} values of a small image")
        return func(*args, **given)

    @staticmethod
    def _ahead(
        func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[Tensor]:
        """Return the operation's results as meta tensors; none where it has no meta kernel."""
        try:
            found = run_on_meta(func, args, kwargs)
        except (RuntimeError, IndexError, TypeError, ValueError):
            # Any of these is how a meta kernel says that arguments do not fit, or that there is
            # none: `func` then runs as it is, and says better what is wrong.
            return []
        return [t for t in tree_leaves(found) if isinstance(t, Tensor)]
