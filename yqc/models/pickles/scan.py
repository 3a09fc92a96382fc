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

FORWARDS = frozenset({"forward_fuse", "fuseforward", "forward_split"})
"""Methods of the projects' blocks that their `fuse` and export put in the place of `forward`."""

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
        if _STACK_GLOBAL in codes:
            yield from _globals_of_strings(self.ops)
        else:
            for i, (code, arg) in enumerate(self.ops):
                if code in _NAMED and not switches_forward(self.ops, i):
                    yield dotted(arg)

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


def switches_forward(ops: list[Op], i: int) -> bool:
    """Whether opcode `i` is GLOBAL getattr in `getattr(object, "forward_fuse")` or the like.

    The pattern is the one that picklers write for a bound method: the function, an object of the
    memo, the name as text, TUPLE2, REDUCE.
    """
    code, arg = ops[i]
    if code != CODES["GLOBAL"] or arg not in ("builtins getattr", "__builtin__ getattr"):
        return False
    following = [op for op in ops[i + 1 : i + 9] if op[0] not in _PUTS and op[0] != _MEMOIZE]
    match [code for code, _ in following[2:4]], following[:2]:
        case [str(pair), str(call)], [(str(got), _), (str(text), str(name))]:
            return (
                (pair, call) == (CODES["TUPLE2"], CODES["REDUCE"])
                and got in _GETS
                and text in _STRINGS
                and name in FORWARDS
            )
    return False


def dotted(arg: object) -> str:
    """Return the path `module.name` of a GLOBAL opcode's argument `"module name"`."""
    module, _, name = str(arg).partition(" ")
    return f"{module}.{name}"


def _globals_of_strings(ops: list[Op]) -> Iterator[str | None]:
    """Yield as `Script.globals`, following the strings on top of the stack."""
    memo: dict[object, str | None] = {}
    below: str | None = None
    top: str | None = None
    for code, arg in ops:
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
                yield None if below is None or top is None else f"{below}.{top}"
            elif code in _NAMED:
                yield dotted(arg)
            below = top = None
