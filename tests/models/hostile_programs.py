"""Programs of allowed names that make no sense or ask for too much.

Each stands with words of the refusal that it must meet, as a regular expression.
"""

import struct

from tests.models.hostile import named, text


def storage(
    kind: str = "torch.FloatStorage", key: str = "0", numel: bytes = b"K\4", tag: str = "storage"
) -> bytes:
    return b"(" + text(tag) + named(kind) + text(key) + text("cpu") + numel + b"tQ"


def tensor(offset: bytes = b"K\0", sides: bytes = b"K\4\x85", strides: bytes = b"K\1\x85") -> bytes:
    rebuild = named("torch._utils._rebuild_tensor_v2") + b"("
    return rebuild + storage() + offset + sides + strides + b"\x89}tR"


def array(dtype: bytes, sides: bytes, data: bytes) -> bytes:
    blank = (
        named("numpy.core.multiarray._reconstruct") + named("numpy.ndarray") + b"K\0\x85U\1b\x87R"
    )
    return blank + b"(K\1" + sides + named("numpy.dtype") + dtype + b"\x85R\x89" + data + b"tb"


def call(path: str, args: bytes) -> bytes:
    return named(path) + b"(" + args + b"tR"


HUGE = b"\x8a\x07" + (1 << 38).to_bytes(7, "little")  # elements: a terabyte of float32
HASHES = b"".join(
    b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(9000)
)
F4 = text("f4")
BROKEN = {
    "storage that is absent": ("no record for storage 1|list of storages", storage(key="1")),
    "storage up the tree": (
        r"no record for storage \.\./data.pkl|list of storages",
        storage(key="../data.pkl"),
    ),
    "storage of a terabyte": ("storage 0 claims 1099511627776 bytes", storage(numel=HUGE)),
    "storage of minus one": ("claims a negative size", storage(numel=b"J\xff\xff\xff\xff")),
    "storage of another size": ("claims 20 bytes|ends within storage 0", storage(numel=b"K\5")),
    "storage of another type": (
        "described in two ways",
        storage() + storage("torch.IntStorage") + b"\x86",
    ),
    "storage of a class": ("persistent id", storage("torch.nn.modules.conv.Conv2d")),
    "storage of no class": (
        "persistent id",
        b"(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\4tQ",
    ),
    "storage by itself": ("bare storage", storage()),
    "persistent id of another kind": ("persistent id", storage(tag="object")),
    "persistent id that is text": ("persistent id", text("storage 0") + b"Q"),
    "persistent id that is a list": ("persistent id", b"](" + text("storage") + b"eQ"),
    "tensor past the end": ("reaches to element 4 of a storage of 4", tensor(offset=b"K\1")),
    "tensor far past the end": ("reaches to element 274877906947 ", tensor(offset=HUGE)),
    "tensor before the start": (
        "impossible size, stride or offset",
        tensor(offset=b"J\xff\xff\xff\xff"),
    ),
    "tensor with a long stride": (
        "reaches to element 6 of a storage of 4",
        tensor(strides=b"K\2\x85"),
    ),
    "tensor with a stride back": (
        "impossible size, stride or offset",
        tensor(strides=b"J\xff\xff\xff\xff\x85", offset=b"K\3"),
    ),
    "tensor of a terabyte": ("reaches to element 274877906943 ", tensor(sides=HUGE + b"\x85")),
    "tensor of a terabyte of one": (
        "more elements than",
        tensor(sides=HUGE + b"\x85", strides=b"K\0\x85"),
    ),
    "tensor of many terabytes": (
        "more elements than",
        tensor(sides=b"(" + HUGE * 60 + b"t", strides=b"(" + b"K\0" * 60 + b"t"),
    ),
    "tensor of nothing, huge": (
        "more elements than",
        tensor(sides=HUGE + b"K\0\x86", strides=b"K\1K\1\x86"),
    ),
    "tensor of minus four": (
        "impossible size, stride or offset",
        tensor(sides=b"J\xfc\xff\xff\xff\x85"),
    ),
    "tensor with two strides": ("impossible size, stride or offset", tensor(strides=b"K\1K\1\x86")),
    "tensor with a float side": (
        "impossible size, stride or offset",
        tensor(sides=b"G" + struct.pack(">d", 4) + b"\x85"),
    ),
    "tensor with a true side": ("impossible size, stride or offset", tensor(sides=b"\x88\x85")),
    "tensor with sides in a list": ("impossible size, stride or offset", tensor(sides=b"]K\4a")),
    "tensor over no storage": (
        "tensor of an unknown kind",
        call("torch._utils._rebuild_tensor_v2", b"NK\0K\1\x85K\1\x85\x89}"),
    ),
    "tensor over a tensor": (
        "tensor of an unknown kind",
        call("torch._utils._rebuild_tensor", tensor() + b"K\0K\1\x85K\1\x85"),
    ),
    "tensor with attributes set": (
        "sets attributes of a Tensor",
        tensor() + b"}" + text("x") + b"Nsb",
    ),
    "tensor of a type that calls": (
        "tensor of an unknown kind",
        call(
            "torch._tensor._rebuild_from_type_v2",
            named("_codecs.encode") + named("torch.Tensor") + text("a") + text("latin1") + b"\x86}",
        ),
    ),
    "parameter of a list": (
        "parameter of an unknown kind",
        call("torch._utils._rebuild_parameter", b"]\x89}"),
    ),
    "array of objects": ("type 'O8'", array(text("O8"), b"K\1\x85", b"]Na")),
    "array of a terabyte": ("impossible shape", array(F4, HUGE + b"\x85", text("abcd"))),
    "array of a terabyte of nothing": ("type 'S0'", array(text("S0"), HUGE + b"\x85", text(""))),
    "array of minus one": (
        "impossible shape",
        array(F4, b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", text("abcd")),
    ),
    "array of too few bytes": ("do not fill its shape", array(F4, b"K\2\x85", text("abcd"))),
    "array of numbers": ("without its bytes", array(F4, b"K\1\x85", b"K\1")),
    "array filled twice": (
        "state that numpy never writes",
        b"(" + array(F4, b"K\1\x85", text("abcd")) + b"q\0}bt",
    ),
    "array of a dtype that reads files": (
        "type 'i4,O'",
        array(text("i4,O"), b"K\1\x85", text("abcd")),
    ),
    "scalar of too few bytes": (
        "do not fill its shape",
        call("numpy.core.multiarray.scalar", named("numpy.dtype") + F4 + b"\x85R" + text("ab")),
    ),
    "itself in a list": ("contains itself", b"]q\0h\0a"),
    "itself in a dict": ("contains itself", b"}q\0K\1h\0s"),
    "itself in a state": (
        "contains itself",
        named("builtins.object") + b")\x81q\0}" + text("x") + b"h\0sb",
    ),
    "a hundred thousand levels": ("200 levels deep", b")" + b"\x85" * 100_000),
    "a hundred thousand lists": ("200 levels deep", b"]" * 100_000 + b"a" * 99_999),
    "two to the sixty parts": ("unfolds to more than", b"K\1\x85" + b"q\0h\0\x86" * 60),
    "two to the sixty in a key": ("key of type tuple", b"}K\1\x85" + b"q\0h\0\x86" * 60 + b"Ns"),
    "two to the sixty in a set": (
        "key of type tuple",
        b"\x8f(K\1\x85" + b"q\0h\0\x86" * 60 + b"\x90",
    ),
    "keys of one hash": ("key of type int", b"}(" + HASHES + b"u"),
    "tuples as keys, thousands": (
        "more tuple keys than",
        b"}(" + b"".join(b"M%sK\1\x86N" % struct.pack("<H", k) for k in range(9000)) + b"u",
    ),
    "an integer of megabytes": (
        "thousands of digits",
        b"\x8b" + struct.pack("<i", 1 << 21) + b"\1" * (1 << 21),
    ),
    "states copied over": (
        "more items than",
        b"(}("
        + b"".join(text(str(k)) + b"N" for k in range(9000))
        + b"uq\1"
        + named("builtins.object")
        + b"q\0"
        + b"h\0)\x81h\1b" * 9000
        + b"t",
    ),
    "a million opcodes": ("more than 1000000 opcodes", b"N0" * 600_000 + b"N"),
    "ten thousand names": (
        "names 5000 classes",
        b"(" + b"".join(named(f"torch.optim.x.A{k}") for k in range(10_000)) + b"t",
    ),
    "bytes by the terabyte": ("bytes of an unknown kind", call("builtins.bytearray", HUGE)),
    "bytes of a wrong code": (
        "bytes of an unknown kind",
        call("_codecs.encode", text("a") + text("rot13")),
    ),
    "a dict of a number": ("dict of an unknown kind", call("collections.OrderedDict", b"K\7")),
    "a set of lists": ("key of type list", call("builtins.set", b"]]a")),
    "a list of a range": (
        "container from something that is none",
        call("builtins.list", call("builtins.range", HUGE)),
    ),
    "a path of numbers": ("whose parts are no text", call("pathlib.PosixPath", b"K\1")),
    "a text called": ("calls something", text("os.system") + b")R"),
    "a dtype called": ("calls something", named("torch.float32") + b")R"),
    "a class with its state set": (
        "attributes of a Named",
        named("torch.nn.modules.conv.Conv2d") + b"}b",
    ),
    "arguments in a list": ("calls something", named("builtins.set") + b"]R"),
    "names in a list": ("without proper arguments", named("builtins.object") + b")]\x92"),
    "a memo that is empty": ("opcode 1 .BINGET", b"h\0"),
    "a stack that is empty": ("opcode 1 .REDUCE", b"R"),
    "a mark that is missing": ("opcode 2 .TUPLE", b"Nt"),
    "two objects": ("not one object", b"NN"),
    "an open mark": ("not one object", b"(N"),
    "appending to a dict": ("appends to a dict", b"}Na"),
    "items into a list": ("items of a list", b"]K\1Ns"),
    "items without a value": ("opcode 4 .SETITEMS", b"}(K\1u"),
    "adding to a list": ("adds to a list", b"](N\x90"),
    "a duplicate": ("never writes .DUP", b"N2\x86"),
    "an extension": ("never writes .EXT1", b"\x82\1"),
    "a buffer": ("never writes .NEXT_BUFFER", b"\x97"),
    "an unknown opcode": ("damaged after 1 opcodes", b"\xff"),
    "text past the end": ("damaged after 1 opcodes", b"X\xff\xff\xff\x7fabc"),
    "bytes past the end": ("damaged after 1 opcodes", b"\x8e" + b"\xff" * 7 + b"\x7fabc"),
}
