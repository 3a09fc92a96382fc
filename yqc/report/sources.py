"""Protocols of measurements that parts of a report are copied from."""

from typing import Protocol


class HasDeviation(Protocol):
    """How far one run of a file is from its graph; `values` speaks of what is no detector."""

    @property
    def boxes(self) -> float: ...  # noqa: D102
    @property
    def scores(self) -> float: ...  # noqa: D102
    @property
    def values(self) -> float: ...  # noqa: D102


class HasRoundTrip(Protocol):
    """Two runs of a file against its graph, from wherever they were measured."""

    @property
    def plain(self) -> HasDeviation: ...  # noqa: D102
    @property
    def optimised(self) -> HasDeviation: ...  # noqa: D102
    def within(self) -> bool: ...  # noqa: D102
