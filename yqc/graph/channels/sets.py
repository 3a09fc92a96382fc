"""Sets of channels that must be removed together, and where each set occurs.

An identity is an integer; a tensor's channels are an int64 array of them. Identities that were
unified form a set. Removing a set takes its channels out of every tensor and weight it occurs in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import fx

Ids: TypeAlias = NDArray[np.int64]
Side: TypeAlias = Literal["out", "in", "channels"]


@dataclass(frozen=True)
class Slot:
    """One axis of the weights of one module (or of one tensor that the graph reads)."""

    target: str
    """Dotted path of the module or tensor."""
    side: Side
    """What it makes (`out`), what it reads (`in`), or what passes through it (`channels`)."""
    ids: Ids
    """Set numbers, one a channel."""
    dim: int = 0
    """For a tensor: its axis that holds the channels."""

    def __str__(self) -> str:
        return self.target if self.side == "channels" else f"{self.target}.{self.side}"


@dataclass(frozen=True)
class Cut:
    """A node whose arguments name numbers of channels, which change when channels go."""

    node: fx.Node
    kind: Literal["parts", "slice", "size"]
    """`parts`: chunk or split; `slice`: an index from a to b; `size`: one size among others."""
    ids: tuple[Ids, ...]
    """For `parts`, set numbers of each; for `slice`, of what is before it and of it; for `size`,
    of the channels counted."""
    place: int = 0
    """For `slice`, the index's place; for `size`, the place among the sizes."""


@dataclass(frozen=True)
class Axis:
    """The channels of one tensor."""

    dim: int
    ids: Ids


@dataclass(frozen=True)
class ChannelBlock:
    """Sets that occur side by side in the same places: n channels, removable one by one."""

    first: int
    """Number of its first set; the others follow."""
    count: int
    places: tuple[tuple[int, int], ...]
    """Slot (its index) and first channel of each occurrence."""
    pin: str
    """Why its channels must stay; empty if they may go."""


@dataclass(frozen=True)
class Channels:
    """All channels of a graph."""

    slots: tuple[Slot, ...]
    cuts: tuple[Cut, ...]
    axes: Mapping[fx.Node, Axis]
    """Each tensor's channels, by the node that computes it."""
    pins: tuple[str, ...]
    """For each set: why it must stay, or an empty text."""
    blocks: tuple[ChannelBlock, ...]

    @property
    def count(self) -> int:
        """The number of sets."""
        return len(self.pins)

    def slot(self, target: str, side: Side) -> Slot | None:
        """Return a slot by its path and side, or None."""
        return next((s for s in self.slots if s.target == target and s.side == side), None)


class Sets:
    """Union-find over identities; those that are found together carry one reason to stay."""

    def __init__(self) -> None:
        self.made = 0
        self.pairs: list[tuple[Ids, Ids]] = []
        self.pins: list[tuple[Ids, str]] = []

    def new(self, count: int) -> Ids:
        """Make new identities."""
        self.made += count
        return np.arange(self.made - count, self.made, dtype=np.int64)

    def unify(self, a: Ids, b: Ids) -> None:
        """Make identities of two arrays of one length go together, one by one."""
        self.pairs.append((a, b))

    def pin(self, ids: Ids, why: str) -> None:
        """Forbid the removal of identities."""
        self.pins.append((ids, why))

    def number(self) -> tuple[Ids, tuple[str, ...]]:
        """Return the number of each identity's set, counted by first identity, and the pins."""
        parent = list(range(self.made))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for a, b in self.pairs:
            for i, j in zip(a.tolist(), b.tolist(), strict=True):
                first, second = root(i), root(j)
                parent[max(first, second)] = min(first, second)
        roots = np.array([root(i) for i in range(self.made)], dtype=np.int64)
        unique, numbers = np.unique(roots, return_inverse=True)
        reasons = [""] * len(unique)
        for ids, why in reversed(self.pins):  # the first reason given is the one that is kept
            for i in np.unique(numbers[ids]).tolist():
                reasons[i] = why
        return numbers.astype(np.int64).reshape(-1), tuple(reasons)


def find_blocks(
    slots: Iterable[Slot], parts: Iterable[Ids], pins: tuple[str, ...]
) -> tuple[ChannelBlock, ...]:
    """Gather sets that occur side by side in the same slots, and in the same parts of tensors."""
    arrays = [s.ids for s in slots]
    known = len(arrays)
    arrays += parts
    where: list[list[tuple[int, int]]] = [[] for _ in pins]
    for index, ids in enumerate(arrays):
        for position, number in enumerate(ids.tolist()):
            where[number].append((index, position))
    blocks: list[ChannelBlock] = []
    first = 0
    for number in range(1, len(pins) + 1):
        if number < len(pins) and _follows(where, pins, number):
            continue
        places = tuple(p for p in where[first] if p[0] < known)
        blocks.append(ChannelBlock(first, number - first, places, pins[first]))
        first = number
    return tuple(blocks)


def _follows(where: list[list[tuple[int, int]]], pins: tuple[str, ...], number: int) -> bool:
    """Check whether a set stands right behind the one before it in every array."""
    if pins[number] != pins[number - 1]:
        return False
    return where[number] == [(index, position + 1) for index, position in where[number - 1]]
