"""Which compiles can be ranked against each other, and which of them no other one beats."""

from collections.abc import Sequence
from dataclasses import replace

from yqc.comparing.row import ComparedRow
from yqc.report import human
from yqc.report.pareto import find_unbeaten


def group_rows(rows: Sequence[ComparedRow]) -> tuple[ComparedRow, ...]:
    """Number the groups of rows, and mark those on the front of each.

    A group has one data set, figure, target and version of yqc; without labels, where the figure
    compares a file with its own float model, one model too. Times count where all of a group were
    taken on one machine.
    """
    numbers: dict[tuple[object, ...], int] = {}
    groups: dict[int, list[int]] = {}
    found = list(rows)
    for i, row in enumerate(rows):
        if row.failed:
            continue
        number = numbers.setdefault(_key(row), len(numbers) + 1)
        groups.setdefault(number, []).append(i)
        found[i] = replace(row, group=number, on_front=False)
    for places in groups.values():
        timed = len({found[i].machine for i in places}) == 1
        values = [found[i].values if timed else found[i].values[:2] for i in places]
        for position in find_unbeaten(values):
            i = places[position]
            found[i] = replace(found[i], on_front=True)
    return tuple(found)


def _key(row: ComparedRow) -> tuple[object, ...]:
    own = row.model_sha256 or row.model if row.main in {"agreement", "sqnr_db"} else None
    return row.data_sha256, row.images, row.main, row.target, row.yqc, own


def describe_differences(rows: Sequence[ComparedRow]) -> tuple[str, ...]:
    """Say in sentences what keeps rows from being ranked against each other."""
    made = [row for row in rows if not row.failed]
    kinds = {
        "data": [(row.data_sha256, row.data or "none") for row in made],
        "target": [(row.target, row.target) for row in made],
        "version of yqc": [(row.yqc, row.yqc) for row in made],
    }
    said = []
    for what, pairs in kinds.items():
        names = [*dict(pairs).values()]
        if len(names) > 1:
            said.append(f"{what} differs ({_listed(names)}): figures are ranked within each alone")
    machines = [*dict.fromkeys(row.machine for row in made if row.machine)]
    if len(machines) > 1:
        said.append(f"times of other machines are not ranked: {_listed(machines, '; ')}")
    failed = len(rows) - len(made)
    return (*said, *([f"{human.plural(failed, 'compile')} failed"] if failed else []))


def _listed(names: Sequence[str], between: str = ", ", most: int = 4) -> str:
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return between.join([*names[:most], *more])
