"""Read the form of torch.save before PyTorch 1.6, still written on request: pickles in a row.

    magic number, protocol version, system information, the object, the storage keys,
    then for each key: int64 number of elements, the bytes

The storages come last, so their memory is set aside while the object is built, never more than the
file can fill, and filled at the end.
"""

import os
import struct
import sys
from dataclasses import dataclass, field
from io import BufferedReader

import torch
from torch import Tensor

from yqc.models.pickles.globals import Gate
from yqc.models.pickles.machine import Machine
from yqc.models.pickles.scan import MAX_OPCODES, MAX_PICKLE_BYTES, Script, scan
from yqc.models.pickles.tensors import Storage, Storages
from yqc.models.pickles.values import Allowance, MalformedError, shown

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
PICKLES = 5
_COUNT = struct.Struct("<q")


@dataclass
class _Memory:
    """Memory for storages whose bytes come later, limited to what the file still holds."""

    left: int
    rooms: dict[str, Tensor] = field(default_factory=dict)

    def reserve(self, key: str, nbytes: int) -> Tensor:
        if nbytes > self.left:
            raise MalformedError(
                f"storage {shown(key)} claims {nbytes} bytes, more than the file has"
            )
        self.left -= nbytes
        self.rooms[key] = torch.empty(nbytes, dtype=torch.uint8)
        return self.rooms[key]


def read_legacy(file: BufferedReader, gate: Gate, allowance: Allowance) -> object:
    """Read the object of a file in this form; raise MalformedError or ForbiddenGlobalError."""
    size = os.fstat(file.fileno()).st_size
    scripts = _scripts(file.read(min(size, MAX_PICKLE_BYTES)), gate)
    if _plain(scripts[0], gate) != MAGIC:
        raise MalformedError("it is a pickle, but not one that torch.save wrote")
    if scripts[-1].flaw or len(scripts) < PICKLES:
        raise MalformedError(scripts[-1].flaw or "it is cut short")
    _, version, system, main, keys = scripts
    if _plain(version, gate) != VERSION:
        raise MalformedError("it is of a form of torch.save that yqc does not know")
    match _plain(system, gate):
        case {"little_endian": bool(little)} if little == (sys.byteorder == "little"):
            pass
        case _:
            raise MalformedError("it was written with another byte order; save it again here")
    memory = _Memory(size - keys.end)
    storages = Storages(memory.reserve, modules=True)
    value = Machine(gate, storages.load, allowance).run(main.sound())
    file.seek(keys.end)
    _fill(file, storages, memory, _plain(keys, gate))
    return value


def _scripts(data: bytes, gate: Gate) -> list[Script]:
    """Scan the pickles up to the first damaged one; refuse all for one forbidden global."""
    scripts: list[Script] = []
    end, left = 0, MAX_OPCODES
    while len(scripts) < PICKLES and not (scripts and scripts[-1].flaw):
        scripts.append(scan(data, end, left))
        end, left = scripts[-1].end, left - len(scripts[-1].ops)
    for script in scripts:
        gate.check(script.globals())
    return scripts


def _plain(script: Script, gate: Gate) -> object:
    """Run a pickle of plain values, in which no storage may stand."""

    def refuse(_: object) -> Storage:
        raise MalformedError("it has a storage where none may be")

    return Machine(gate, refuse, Allowance()).run(script.sound())


def _fill(file: BufferedReader, storages: Storages, memory: _Memory, keys: object) -> None:
    """Read the bytes of every storage, in the order of `keys`, into the room set aside for it."""
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise MalformedError("its list of storages is damaged")
    if sorted(keys) != sorted(memory.rooms):
        raise MalformedError("its list of storages is not that of its tensors")
    for key in keys:
        room = memory.rooms[key].numpy().data
        count = file.read(_COUNT.size)
        if len(count) < _COUNT.size or file.readinto(room) != room.nbytes:
            raise MalformedError(f"it ends within storage {shown(key)}; fetch it again")
        if _COUNT.unpack(count)[0] * storages.found[key].dtype.itemsize != room.nbytes:
            raise MalformedError(f"storage {shown(key)} has another size than its tensors say")
