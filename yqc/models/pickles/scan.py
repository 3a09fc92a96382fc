"""Read a pickle's opcodes without executing any, and find every global that it names.

A pickle is a straight line of opcodes without jumps (PEP 307, PEP 3154, PEP 574), so what GLOBAL,
INST and STACK_GLOBAL will look up is known by reading it. STACK_GLOBAL takes two strings from
the stack: they are known when the two values pushed last are strings or memoised strings, and every
pickler writes it so.
"""

import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass

from yqc.models.pickles.values import MalformedError

MAX_OPCODES = 1_000_000
"""Opcodes of one file; golden files have at most 115,245."""
MAX_PICKLE_BYTES = 1 << 26
"""Bytes of a pickle without its tensors; golden files have at most 275,272."""

Op = tuple[str, object]
"""An opcode's one-character code and its decoded argument."""

CODES = {op.name: op.code for op in pickletools.opcodes}
NAMES = {op.code: op.name for op in pickletools.opcodes}

GETATTR = "builtins.getattr"
"""Picklers write a method that is bound to an object as a call of it."""
SETATTR = "builtins.setattr"
"""So dill names the classes that it stores by value."""
_ARGUMENTS = {GETATTR: CODES["TUPLE2"], SETATTR: CODES["TUPLE3"]}

OPCODES = {op.code: op for op in pickletools.opcodes}

_STRINGS = {
    op.code for op in pickletools.opcodes if op.name.endswith(("STRING", "UNICODE", "UNICODE8"))
}
_PUTS = {CODES[name] for name in ("PUT", "BINPUT", "LONG_BINPUT")}
_GETS = {CODES[name] for name in ("GET", "BINGET", "LONG_BINGET")}
_SILENT = {CODES[name] for name in ("PROTO", "FRAME")}
_MEMOIZE, _STACK_GLOBAL = CODES["MEMOIZE"], CODES["STACK_GLOBAL"]
_NAMED = {CODES["GLOBAL"], CODES["INST"]}


@dataclass(frozen=True)
class Script:
    """Opcodes of one pickle; `flaw` is the reason why decoding broke off, or None."""

    ops: list[Op]
    end: int
    flaw: str | None

    def globals(self) -> Iterator[str | None]:
        """Yield dotted paths in stream order; None for one that only executing would show."""
        codes = {code for code, _ in self.ops}
        steps = Steps()
        if _STACK_GLOBAL in codes:
            found = _globals_of_strings(self.ops)
        else:
            named = ((i, code, arg) for i, (code, arg) in enumerate(self.ops))
            found = ((i, dotted(arg)) for i, code, arg in named if code in _NAMED)
        for i, path in found:
            bare = (path or "").replace("__builtin__", "builtins")
            if bare not in _ARGUMENTS or not steps.are_sound(self.ops, i, _ARGUMENTS[bare]):
                yield path

    def sound(self) -> list[Op]:
        """Return the opcodes; raise MalformedError where decoding broke off."""
        if self.flaw:
            raise MalformedError(self.flaw)
        return self.ops


def scan(data: bytes, start: int = 0, limit: int = MAX_OPCODES) -> Script:
    """Decode the opcodes of the pickle at `start` up to STOP; executes nothing, raises nothing."""
    stream = io.BytesIO(data)
    stream.seek(start)
    ops: list[Op] = []
    flaw = None
    try:
        for op, arg, _ in pickletools.genops(stream):
            ops.append((op.code, arg))
            if len(ops) > limit:
                flaw = f"its pickle has more than {MAX_OPCODES} opcodes"
                break
    except (ValueError, OverflowError, MemoryError):
        flaw = f"its pickle is cut short or damaged after {len(ops)} opcodes; fetch the file again"
    return Script(ops, stream.tell(), flaw)


class Steps:
    """Finds what is done with an object on the stack, within a limit on opcodes looked at."""

    def __init__(self) -> None:
        self.left = 10 * MAX_OPCODES

    def are_sound(self, ops: list[Op], i: int, arguments: str) -> bool:
        """Whether what opcode `i` pushes is called at once with as many things as it takes.

        So picklers write `getattr(object, "name")`: the function, the object, the name (a text),
        TUPLE2, REDUCE. What the two really are is known when the pickle is run.
        """
        height, marks = 0, list[int]()
        before: list[str] = []
        for code, _ in ops[i + 1 :]:
            self.left -= 1
            if self.left < 0:
                return False
            if code == CODES["REDUCE"] and height == 1:
                texts = _STRINGS | _GETS
                return before[-1:] == [arguments] and bool(texts.intersection(before[:1]))
            height = _height_after(OPCODES[code], height, marks)
            if height < 0:
                return False
            if code not in _PUTS and code != _MEMOIZE:
                before = [*before[-1:], code]
        return False


def _height_after(op: pickletools.OpcodeInfo, height: int, marks: list[int]) -> int:
    """Return the height of the stack after an opcode; `marks` are the heights below each MARK."""
    if op.name == "MARK":
        marks.append(height)
        return height
    taken = [kind.name for kind in op.stack_before]
    if "mark" in taken:
        if not marks:
            return -1
        height = marks.pop()
        taken = taken[: taken.index("mark")]
    return height - len(taken) + len(op.stack_after)


def dotted(arg: object) -> str:
    """Return the path `module.name` of a GLOBAL opcode's argument `"module name"`."""
    module, _, name = str(arg).partition(" ")
    return f"{module}.{name}"


def _globals_of_strings(ops: list[Op]) -> Iterator[tuple[int, str | None]]:
    """Yield the places of globals and their paths, following the strings on top of the stack."""
    memo: dict[object, str | None] = {}
    below: str | None = None
    top: str | None = None
    for i, (code, arg) in enumerate(ops):
        if code in _STRINGS:
            below, top = top, str(arg)
        elif code in _GETS:
            below, top = top, memo.get(arg)
        elif code in _PUTS:
            memo[arg] = top
        elif code == _MEMOIZE:
            memo[len(memo)] = top
        elif code not in _SILENT:
            if code == _STACK_GLOBAL:
                yield i, None if below is None or top is None else f"{below}.{top}"
            elif code in _NAMED:
                yield i, dotted(arg)
            below = top = None
