"""Run pickle opcodes into data, calling nothing but our own builders.

It executes the opcodes that picklers of the protocols 2 to 5 write (PEP 307, PEP 3154, PEP 574),
except those for objects that contain themselves, for the extension registry and for out-of-band
buffers. Lists, dicts and sets are Python's own, a class is a `Named`, any other object an `Inert`.
"""

from collections.abc import Callable

import numpy as np

from yqc.models.pickles import numpy_arrays
from yqc.models.pickles.globals import Gate, build_value
from yqc.models.pickles.scan import CODES, NAMES, Op, dotted
from yqc.models.pickles.tensors import Storage
from yqc.models.pickles.values import Allowance, Inert, MalformedError, Named, as_key

MAX_LONG_BITS = 4096
"""Bits of an int: printing a longer one takes quadratic time."""
PROTOCOLS = range(2, 6)


class Machine:
    """Runs one pickle once; `load` resolves persistent ids."""

    def __init__(
        self, gate: Gate, load: Callable[[object], Storage | Named], allowance: Allowance
    ) -> None:
        self.gate = gate
        self.load = load
        self.allowance = allowance
        self.stack: list[object] = []
        self.outer: list[list[object]] = []
        self.memo: dict[object, object] = {}

    def run(self, ops: list[Op]) -> object:
        """Return the pickled object; raise MalformedError naming the opcode that makes no sense."""
        if not ops or ops[0][0] != CODES["PROTO"] or ops[0][1] not in PROTOCOLS:
            raise MalformedError(
                "its pickle is of none of the protocols 2 to 5 that torch.save writes"
            )
        if strange := {code for code, _ in ops} - HANDLERS.keys():
            names = ", ".join(sorted(NAMES[code] for code in strange))
            raise MalformedError(f"its pickle uses opcodes that torch.save never writes ({names})")
        for number, (code, arg) in enumerate(ops):
            try:
                HANDLERS[code](self, arg)
            except (LookupError, ValueError, TypeError, OverflowError, RuntimeError) as error:
                where = f"opcode {number} ({NAMES[code]})"
                raise MalformedError(f"its pickle makes no sense at {where}") from error
        if self.outer or len(self.stack) != 1:
            raise MalformedError("its pickle ends with a stack that is not one object")
        return self.stack[0]

    def nothing(self, _: object) -> None:
        """PROTO, FRAME, STOP: nothing to do, since the stream was decoded whole."""

    def push(self, value: object) -> None:
        """Push the value that an opcode carries."""
        self.stack.append(value)

    def drop(self) -> None:
        """POP: forget the top of the stack, as dill does with the results of calls."""
        self.stack.pop()

    def long(self, value: object) -> None:
        """LONG1, LONG4: an int, of a size that printing it later stays cheap."""
        if not isinstance(value, int) or value.bit_length() > MAX_LONG_BITS:
            raise MalformedError("it holds an integer of thousands of digits")
        self.stack.append(value)

    def mark(self, _: object) -> None:
        """MARK: begin a run of items."""
        self.outer.append(self.stack)
        self.stack = []

    def marked(self) -> list[object]:
        """Pop the items since the last MARK."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def put(self, index: object) -> None:
        """BINPUT, LONG_BINPUT."""
        self.memo[index] = self.stack[-1]

    def memoize(self, _: object) -> None:
        """MEMOIZE."""
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: object) -> None:
        """BINGET, LONG_BINGET."""
        self.stack.append(self.memo[index])

    def tuple_of(self, count: int) -> None:
        """TUPLE1, TUPLE2, TUPLE3."""
        if len(self.stack) < count:
            raise IndexError(count)
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self, items: list[object]) -> None:
        """APPEND, APPENDS: to a list, or to an inert list-like object."""
        target = self.stack[-1]
        if isinstance(target, Inert):
            target = target.items
        if type(target) is not list:
            raise MalformedError(f"it appends to a {type(target).__name__}")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        """SETITEM, SETITEMS: into a dict, or into an inert dict-like object."""
        target = self.stack[-1]
        keys, values = items[::2], items[1::2]
        if isinstance(target, Inert):
            target.items.extend(zip(keys, values, strict=True))
        elif type(target) is dict:
            for key, value in zip(keys, values, strict=True):
                target[as_key(key, self.allowance)] = value
        else:
            raise MalformedError(f"it sets items of a {type(target).__name__}")

    def add(self, _: object) -> None:
        """ADDITEMS."""
        items = self.marked()
        target = self.stack[-1]
        if type(target) is not set:
            raise MalformedError(f"it adds to a {type(target).__name__}")
        target.update(as_key(item, self.allowance) for item in items)

    def frozenset(self, _: object) -> None:
        """FROZENSET."""
        items = self.marked()
        self.stack.append(frozenset(as_key(item, self.allowance) for item in items))

    def named(self, path: str) -> None:
        """GLOBAL, STACK_GLOBAL."""
        self.stack.append(self.gate.resolve(path))

    def stack_global(self, _: object) -> None:
        """STACK_GLOBAL: module and name come from the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(module, str) and isinstance(name, str)):
            raise MalformedError("it names a class by something that is no text")
        self.named(f"{module}.{name}")

    def call(self, _: object) -> None:
        """REDUCE: a call."""
        args, cls = self.stack.pop(), self.stack.pop()
        self.stack.append(build_value(self.gate.callee(cls), args, self.allowance))

    def make(self, _: object) -> None:
        """NEWOBJ: an object of a class."""
        args, cls = self.stack.pop(), self.stack.pop()
        self.stack.append(build_value(self.gate.named(cls), args, self.allowance))

    def call_with_names(self, _: object) -> None:
        """NEWOBJ_EX: an inert object whose last argument is the dict of named ones."""
        names, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if type(names) is not dict or type(args) is not tuple:
            raise MalformedError("it makes an object without proper arguments")
        given = (*args, names) if names else args
        self.stack.append(build_value(self.gate.named(cls), given, self.allowance))

    def persistent(self, _: object) -> None:
        """BINPERSID."""
        self.stack.append(self.load(self.stack.pop()))

    def state(self, _: object) -> None:
        """BUILD: attributes of an inert object, numbers of an array; a dict's are dropped."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            if not target.class_path.startswith("dill."):  # A function may refer to itself.
                target.absorb(state, self.allowance)
        elif isinstance(target, np.ndarray):
            numpy_arrays.set_state(target, state, self.allowance)
        elif type(target) is not dict:
            raise MalformedError(f"it sets attributes of a {type(target).__name__}")


Handler = Callable[[Machine, object], None]

_BY_NAME: dict[str, Handler] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), Machine.nothing),
    **dict.fromkeys(
        (
            *("BININT", "BININT1", "BININT2", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"),
            *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        ),
        Machine.push,
    ),
    **dict.fromkeys(("LONG1", "LONG4"), Machine.long),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "POP": lambda machine, _: machine.drop(),
    "MARK": Machine.mark,
    "BINPUT": Machine.put,
    "LONG_BINPUT": Machine.put,
    "MEMOIZE": Machine.memoize,
    "BINGET": Machine.get,
    "LONG_BINGET": Machine.get,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.marked()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.marked()),
    "ADDITEMS": Machine.add,
    "FROZENSET": Machine.frozenset,
    "GLOBAL": lambda machine, arg: machine.named(dotted(arg)),
    "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.make,
    "NEWOBJ_EX": Machine.call_with_names,
    "BINPERSID": Machine.persistent,
    "BUILD": Machine.state,
}
HANDLERS: dict[str, Handler] = {CODES[name]: handler for name, handler in _BY_NAME.items()}
"""Handlers by an opcode's one-character code. An opcode that is not here is refused."""
