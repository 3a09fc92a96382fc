"""Errors a user can meet. Each message says what failed, where, and what to do next."""

import difflib
from collections.abc import Iterable

__all__ = [
    "BudgetError",
    "CheckpointError",
    "DataError",
    "EmitError",
    "ForbiddenGlobalError",
    "LoweringError",
    "OptionError",
    "OutputError",
    "PassError",
    "PipelineError",
    "TraceError",
    "UnknownBlockError",
    "UnsupportedTaskError",
    "YqcError",
    "first_line",
    "near",
]


class YqcError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


class CheckpointError(YqcError):
    """A model file cannot be read."""


class ForbiddenGlobalError(CheckpointError):
    """A pickle names a class or function outside the allow-list; nothing of it was run."""


class UnknownBlockError(CheckpointError):
    """A checkpoint holds a block for which no traceable twin is registered."""


class UnsupportedTaskError(CheckpointError):
    """A checkpoint is of a task (segment, pose, obb, classify) that yqc does not compile."""


class TraceError(YqcError):
    """A module cannot be traced into an fx graph at this input size."""


class PipelineError(YqcError):
    """A pipeline text, an option, or the order of passes is wrong."""


class OptionError(PipelineError, ValueError):
    """An option of a pass has a value that it cannot have.

    Args:
        message: what is wrong, and where.
        problem: the same without the name of the pass and the place.
    """

    def __init__(self, message: str, problem: str = "") -> None:
        super().__init__(message)
        self.problem = problem or message


class PassError(YqcError):
    """A pass failed, or broke a promise that it declares."""


class LoweringError(YqcError):
    """A node of the graph has no ONNX form."""


class EmitError(YqcError):
    """The ONNX file was built but did not pass a check."""


class BudgetError(YqcError):
    """What was made costs more than was allowed; nothing was written. Exit status 3."""


class DataError(YqcError):
    """A data set, an annotation file or an image cannot be used."""


class OutputError(YqcError):
    """A result cannot be written; older results are untouched."""


def near(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest of `names` in any case, or nothing."""
    known = {one.lower(): one for one in names}
    found = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {known[found[0]]!r}?" if found else ""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
