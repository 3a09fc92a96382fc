"""Stand-ins for classes and objects that a pickle names and yqc never imports; allowances."""

from dataclasses import dataclass, field
from typing import Any

import torch

MAX_INT_BITS = 64
"""Bits of an int that is a dict key; hashing longer ones costs time."""
MAX_TUPLE_KEY = 8
"""Parts of a tuple that is a dict key; longer ones cost time to hash."""


class MalformedError(Exception):
    """A file cannot be read; the reader adds the path and raises a `CheckpointError`."""


@dataclass(frozen=True, slots=True)
class Named:
    """A class or function that the pickle names. It was never imported and cannot be called."""

    path: str


@dataclass(eq=False, slots=True)
class Inert:
    """An object of a class that was never imported: what the pickle says about it, as data.

    `args` are the constructor's arguments, `state` its attributes by name. A state that is no dict
    of names stands whole under `"__setstate__"`. `items` are what a list-like object was extended
    with, or the (key, value) pairs of a dict-like one. Compared and hashed by identity.
    """

    class_path: str
    args: tuple[Any, ...] = field(default=(), repr=False)
    state: dict[str, Any] = field(default_factory=dict, repr=False)
    items: list[Any] = field(default_factory=list, repr=False)

    def absorb(self, state: object, allowance: "Allowance") -> None:
        """Take in the argument of a BUILD opcode: a dict, a (dict, slots) pair, or anything."""
        match state:
            case (dict() | None as attributes, dict() | None as slots):
                parts = [attributes or {}, slots or {}]
            case dict():
                parts = [state]
            case _:
                parts = [{"__setstate__": state}]
        allowance.spend("items", sum(map(len, parts)))
        if not all(type(name) is str for part in parts for name in part):
            parts = [{"__setstate__": state}]
        for part in parts:
            self.state.update(part)


@dataclass
class Allowance:
    """Allowances of one file, counted down while it is read; real checkpoints stay far below.

    `bytes` and `items` count what opcodes copy, `tensors` rebuilt tensors, `elements` theirs, and
    `tuple_keys` tuples used as keys (their hashes can be made to collide).
    """

    bytes: int = 1 << 26
    items: int = 2_000_000
    tensors: int = 100_000
    elements: int = 1 << 24
    tuple_keys: int = 2_000

    def spend(self, what: str, amount: int) -> None:
        """Take `amount` from one of the allowances; raises MalformedError where it is used up."""
        left = getattr(self, what) - amount
        if left < 0:
            what = what.replace("_", " ")
            raise MalformedError(f"it asks for more {what} than any detector's checkpoint needs")
        setattr(self, what, left)


_PLAIN_KEYS = frozenset({str, bytes, bool, float, type(None), Named, Inert, torch.dtype})


def as_key(value: object, allowance: Allowance) -> object:
    """Return a value that may be a dict key or an element of a set; else raise MalformedError.

    Anything whose hash costs more than a moment, or can be made to collide at will, is refused.
    """
    if type(value) in _PLAIN_KEYS or isinstance(value, torch.Tensor):
        return value
    if type(value) is int and value.bit_length() <= MAX_INT_BITS:
        return value
    if type(value) is tuple and len(value) <= MAX_TUPLE_KEY:
        allowance.spend("tuple_keys", 1)
        for part in value:
            if type(part) is tuple:
                break
            as_key(part, allowance)
        else:
            return value
    raise MalformedError(f"a dict or set in it has a key of type {type(value).__name__}")


def shown(text: str, limit: int = 120) -> str:
    """Return a name out of a file made safe to print: ASCII, printable, cut to `limit`."""
    text = ascii(text)[1:-1]
    return text if len(text) <= limit else text[:limit] + "..."
