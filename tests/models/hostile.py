"""Hostile checkpoints by the hundred: forbidden globals, ways to call them, kinds of files."""

import io
import itertools
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator

WORDS = """
    os.system posix.system nt.system os.popen os.execv os.remove subprocess.Popen subprocess.run
    builtins.eval builtins.exec builtins.compile builtins.getattr builtins.setattr builtins.open
    builtins.__import__ builtins.print builtins.type builtins.vars builtins.globals builtins.map
    __builtin__.eval __builtin__.apply __builtin__.getattr __builtin__.file builtins.breakpoint
    copyreg._reconstructor copyreg.__newobj__ copy_reg._reconstructor copyreg.add_extension
    importlib.import_module runpy._run_code runpy.run_path pty.spawn socket.create_connection
    shutil.rmtree ctypes.CDLL pickle.loads _pickle.Unpickler marshal.loads types.CodeType
    types.FunctionType operator.attrgetter operator.methodcaller functools.reduce sys.exit
    timeit.timeit cProfile.run pdb.run webbrowser.open commands.getoutput torch.load torch.save
    torch.hub.load torch.jit.load torch.storage._load_from_bytes torch.serialization.load
    torch._utils._rebuild_device_tensor_from_numpy torch._utils._rebuild_sparse_tensor
    torch.utils.cpp_extension.load torch.nn.modules.module.os.system torch.nn.modules.conv.os
    torch.nn.modules.conv.Conv2d.__init__ torch.nn.modules.conv.Conv2d.run torch.ops.load_library
    torch.Tensor.__class__ torch.QInt8Storage torch.from_file numpy.load numpy.fromfile numpy.os
    numpy.core.multiarray.fromfile numpy.f2py.crackfortran.myeval numpy.ndarray.tofile
    collections.OrderedDict.__reduce__ collections.namedtuple collections._sys _codecs.decode
    pathlib.Path.unlink argparse.Namespace.__init__ datetime.sys pip.main evil.Payload
    models.common.Unknown ultralytics.utils.os.system ultralytics.utils.loss.os models.common.run
    utils.loss.torch.load __main__.Model logging.config.dictConfig requests.get
"""
GLOBALS = WORDS.split()


def named(path: str) -> bytes:
    """GLOBAL: module and name, a line each."""
    module, _, name = path.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def on_stack(path: str) -> bytes:
    module, _, name = path.rpartition(".")
    return text(module) + b"\x94" + text(name) + b"\x94\x93"


def remembered(path: str) -> bytes:
    """STACK_GLOBAL of two strings that come out of the memo, where they lay amid others."""
    module, _, name = path.rpartition(".")
    return b"(%sq\x07%sr\0\1\0\0lj\0\1\0\0h\x07\x93" % (text(name), text(module))


SHELL = text("touch was-here")
CALLS: dict[str, Callable[[str], bytes]] = {
    "reduce": lambda path: named(path) + SHELL + b"\x85R",
    "newobj": lambda path: named(path) + SHELL + b"\x85\x81",
    "newobj-ex": lambda path: named(path) + SHELL + b"\x85}\x92",
    "stack": lambda path: on_stack(path) + SHELL + b"\x85R",
    "memo": lambda path: remembered(path) + SHELL + b"\x85R",
    "inst": lambda path: b"(" + SHELL + b"i" + named(path)[1:],
    "obj": lambda path: b"(" + named(path) + SHELL + b"o",
    "build": lambda path: named("builtins.object") + b")\x81}" + text("f") + named(path) + b"sb",
    "idle": lambda path: named(path) + b"0N",
    "hidden": lambda path: named("collections.OrderedDict") + b"(" + named(path) + b")Rl\x85R",
    "key": lambda path: b"}" + named(path) + SHELL + b"\x85RNs",
    "partial": lambda path: named("functools.partial") + named(path) + b"\x85R",
    "module": lambda path: b"(" + text("module") + named(path) + b"NNtQ",
    "late": lambda path: b"0" * 40 + named(path) + SHELL + b"\x85R",
    "cut": lambda path: named(path) + SHELL + b"\x85R\x8d\xff",
}


def zipped(program: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", bytes(16))
    return out.getvalue()


def legacy(program: bytes, keys: bytes = b"\x80\x02]X\1\0\0\0" + b"0a.") -> bytes:
    """The older form, with one storage of four float32."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": sys.byteorder == "little"}]
    rows = [pickle.dumps(value, 2) for value in head]
    return b"".join(rows) + program + keys + struct.pack("<q", 4) + bytes(16)


def no_storage(program: bytes) -> bytes:
    """The older form, whose list of storages is empty."""
    return legacy(program, keys=b"\x80\2].")


NONE = b"\x80\x02N."
FILES: dict[str, Callable[[bytes], bytes]] = {
    "zip": zipped,
    "legacy": legacy,
    "bare": lambda program: program,
    "first": lambda program: program + legacy(NONE),
    "last": lambda program: legacy(NONE, keys=program),
}


def forbidden() -> Iterator[tuple[str, str, bytes]]:
    """The name of the case, the global that must be named, and the file."""
    ways = list(itertools.product(CALLS, FILES))
    turns = itertools.cycle(ways)
    cases = [(path, way) for path in GLOBALS for way in itertools.islice(turns, 2)]
    cases += [("os.system", way) for way in ways]
    for path, (call, file) in cases:
        program = b"\x80\x04" + CALLS[call](path) + b"."
        yield f"{path}-{call}-{file}", path, FILES[file](program)
    yield "protocol-0", "os.system", b"cos\nsystem\n(S'touch was-here'\ntR."
    for path in ("x.\u202ename", "os.sys\x1b[31mtem", "os.a b", "a\nb.c"):
        yield f"odd-{path!a}", path, zipped(b"\x80\x04" + on_stack(path) + b")R.")
