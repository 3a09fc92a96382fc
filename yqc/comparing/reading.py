"""Reports, from files and folders, and their comparison."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias

from yqc.comparing.comparison import Comparison
from yqc.comparing.row import ComparedRow
from yqc.errors import DataError
from yqc.report import Report

SUFFIX = ".report.json"
LARGEST = 64 << 20
"""Bytes of a report at most. One of a nano model takes 40 kB, one of a thousand layers 1 MB; half
or double of the bound changes nothing but the memory that a file of another kind takes."""


class HasReport(Protocol):
    """What a compile returns; `yqc.Result` is one."""

    @property
    def report(self) -> Report:
        """The report."""
        ...


Reported: TypeAlias = str | Path | Report | HasReport
"""A report, where it lies, or what has one."""


def compare(reports: Reported | Iterable[Reported]) -> Comparison:
    """Compare compiles: size, accuracy, latency, bits of layers; and which no other one beats.

    Args:
        reports: report files, folders of them, reports, or results of compiles.

    Raises:
        DataError: there is no report, or a file is none.
    """
    given: Iterable[Reported]
    if isinstance(reports, str | Path | Report) or not isinstance(reports, Iterable):
        given = [reports]
    else:
        given = reports
    rows = [row for one in given for row in _rows_of(one)]
    if not rows:
        raise DataError("there is nothing to compare: give reports, or folders of them")
    unlike = {row.name: row for row in rows}
    if len(unlike) < len(rows):
        rows = [replace(row, name=f"{row.name} [{i}]") for i, row in enumerate(rows, 1)]
    return Comparison.of(mark_namesakes(rows))


def _rows_of(reported: Reported) -> list[ComparedRow]:
    if isinstance(reported, str | Path):
        return [read_row(name, path) for name, path in _find(Path(reported))]
    report = reported if isinstance(reported, Report) else reported.report
    row = ComparedRow.of("", report)
    return [replace(row, name=f"{row.model} {row.passes}")]


def mark_namesakes(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """Put the beginning of its hash behind the name of each model that another one has, too."""
    hashes: dict[str, set[str]] = {}
    for row in rows:
        hashes.setdefault(row.model, set()).add(row.model_sha256)
    return [
        replace(row, model=f"{row.model} {row.model_sha256[:7]}")
        if len(hashes[row.model]) > 1
        else row
        for row in rows
    ]


def read_row(name: str, path: Path) -> ComparedRow:
    """Read what counts of a report.

    Raises:
        DataError: the file is none.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} is no report: it has more than {LARGEST >> 20} MiB")
        report = Report.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (DataError, ValueError) as error:
        raise DataError(f"{path} is no report of yqc: {error}") from error
    return ComparedRow.of(name, report)


def _find(given: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and path of a report, or of those in a folder that are not hidden."""
    if not given.is_dir():
        yield str(given).removesuffix(SUFFIX), given
        return
    inside = [path for path in sorted(given.rglob(f"*{SUFFIX}")) if not _is_hidden(path, given)]
    if not inside:
        raise DataError(f"{given} has no reports, files named *{SUFFIX}")
    for path in inside:
        yield str(path.relative_to(given)).removesuffix(SUFFIX), path


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
