"""Keep records of long work in the order in which they are made, some at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from yqc.pipeline.base import Cache, Pause

Record: TypeAlias = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and plain values by name."""


@dataclass
class KeptRecords:
    """Records that a resumed compile finds again; without a cache nothing is kept.

    Every saving writes those that were added since the last one.
    """

    cache: Cache | None
    name: str
    _count: int = 0
    _new: list[Record] = field(default_factory=list)
    _pause: Pause = field(default_factory=Pause)

    def restore(self) -> list[Record]:
        """Return what an interrupted compile has kept."""
        found: list[Record] = []
        while self.cache and (kept := self.cache.load(f"{self.name}-{len(found)}")) is not None:
            tensors, about = kept
            records: list[Record] = [({}, plain) for plain in about["records"]]
            for key, tensor in tensors.items():
                number, _, name = key.partition(".")
                records[int(number)][0][name] = tensor
            found += records
        self._count = len(found)
        return found

    def add(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Add a record; save those that are new if the last saving is long ago."""
        if self.cache is not None:
            self._new.append((dict(tensors), dict(about)))
            if self._pause.is_over():
                self.save()

    def save(self) -> None:
        """Save the records that are new."""
        if self.cache is None or not self._new:
            return
        tensors = {f"{i}.{k}": v for i, (own, _) in enumerate(self._new) for k, v in own.items()}
        with self._pause.measured():
            about = {"records": [plain for _, plain in self._new]}
            self.cache.save(f"{self.name}-{self._count}", tensors, about)
        self._count += len(self._new)
        self._new = []
