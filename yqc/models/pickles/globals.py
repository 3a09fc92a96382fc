"""Map the globals of a checkpoint's pickle to data: the allow-list, and the gate that applies it.

Nothing here is ever imported by the name that a file gives. A name is looked up in a table: it is a
constant, or has a builder of ours, or stands for data that comes out as `Inert`, or is refused.
"""

import re
import sys
from collections.abc import Callable, Iterable

import torch

from yqc.errors import ForbiddenGlobalError
from yqc.models.pickles import dill, numpy_arrays, tensors
from yqc.models.pickles.scan import GETATTR, SETATTR
from yqc.models.pickles.values import Allowance, Inert, MalformedError, Named, as_key, shown

Build = Callable[[tuple[object, ...], Allowance], object]
MAX_GLOBALS, SHOWN_AT_MOST = 5_000, 5
"""Distinct globals of a pickle (golden files: at most 32), and names in one message."""


def _mapping(args: tuple[object, ...], allowance: Allowance) -> object:
    match args:
        case ():
            return {}
        case (dict() as given,):
            allowance.spend("items", len(given))
            return dict(given)
        case (list() | tuple() as pairs,):
            allowance.spend("items", len(pairs))
            if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):  # noqa: PLR2004
                return {as_key(key, allowance): value for key, value in pairs}
    raise MalformedError("it holds a dict of an unknown kind")


def _items(args: tuple[object, ...], allowance: Allowance) -> list[object]:
    match args:
        case ():
            return []
        case (list() | tuple() | set() | frozenset() as given,):
            allowance.spend("items", len(given))
            return list(given)
    raise MalformedError("it builds a container from something that is none")


def _set(args: tuple[object, ...], allowance: Allowance) -> set[object]:
    return {as_key(item, allowance) for item in _items(args, allowance)}


def _encode(args: tuple[object, ...], allowance: Allowance) -> bytes:
    match args:
        case (str(text), "latin1" | "latin-1"):
            allowance.spend("bytes", len(text))
            return text.encode("latin1")
    raise MalformedError("it holds bytes of an unknown kind")


def _bytearray(args: tuple[object, ...], allowance: Allowance) -> object:
    match args:
        case (bytes(data),):
            allowance.spend("bytes", len(data))
            return bytearray(data)
    return bytearray(_encode(args, allowance) if args else b"")


def _complex(args: tuple[object, ...], _: Allowance) -> object:
    match args:
        case (float(real), float(imaginary)):
            return complex(real, imaginary)
    raise MalformedError("it holds a complex number of an unknown kind")


def _path(args: tuple[object, ...], allowance: Allowance) -> object:
    parts = [part for part in args if isinstance(part, str)]
    if len(parts) != len(args):
        raise MalformedError("it holds a path whose parts are no text")
    allowance.spend("bytes", sum(map(len, parts)))
    root = parts.pop(0) if parts and parts[0].endswith(("/", "\\")) else ""
    return root + "/".join(parts)


def bind_method(args: tuple[object, ...], _: Allowance) -> object:
    """Stand for `getattr(object, name)`: the name of a method, without the object."""
    match args:
        case (Inert(), str(name)) if name.isidentifier() and not name.startswith("__"):
            return Inert(GETATTR, (name,))
        case (Named(path), "forward") if foreign(path):
            return Inert(GETATTR, ("forward",))  # heads of tasks hold that of their base class
    raise MalformedError("it takes an attribute of something that is no object of a class")


def _bound_method(args: tuple[object, ...], allowance: Allowance) -> object:
    """Stand for `MethodType(function, object)`, as `bind_method`."""
    match args:
        case (Named(path) | Inert(class_path="dill.global", args=(str(path),)), Inert() as owner):
            return bind_method((owner, path.rpartition(".")[2]), allowance)
        case (Inert(), Inert()):
            return Inert("types.MethodType")
    raise MalformedError("it binds something that is no function to an object")


BUILDERS: dict[str, Build] = {
    **tensors.REBUILDERS,
    "torch._tensor._rebuild_from_type_v2": tensors.from_type,
    "torch.Size": tensors.rebuild_size,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": lambda args, allowance: _mapping(args[1:], allowance),
    "collections.deque": lambda args, allowance: _items(args[:1], allowance),
    "builtins.dict": _mapping,
    "builtins.list": _items,
    "builtins.tuple": lambda args, allowance: tuple(_items(args, allowance)),
    "builtins.set": _set,
    "builtins.frozenset": lambda args, allowance: frozenset(_set(args, allowance)),
    "builtins.bytes": lambda args, allowance: _encode(args, allowance) if args else b"",
    "builtins.bytearray": _bytearray,
    "builtins.complex": _complex,
    GETATTR: bind_method,
    SETATTR: dill.set_attribute,
    "types.MethodType": _bound_method,
    **dill.BUILDERS,
    "_codecs.encode": _encode,
    **{
        f"{module}.{flavour}Path": _path
        for module in ("pathlib", "pathlib._local")
        for flavour in ("Posix", "Windows", "PurePosix", "PureWindows")
    },
    **{
        f"numpy.{core}.{name}": build
        for core in ("core", "_core")
        for name, build in (
            ("multiarray._reconstruct", numpy_arrays.blank),
            ("multiarray.scalar", numpy_arrays.scalar),
            ("numeric._frombuffer", numpy_arrays.from_buffer),
        )
    },
}
"""Builders for the functions and classes that a pickle calls, safe for any arguments."""

DATA = re.compile(
    r"""
    torch\.nn\.(modules|parallel)(\.\w+)+\._?[A-Z]\w*   # modules: the loader gives them meaning
  | torch\.optim(\.\w+)+\.[A-Z]\w*                      # what unstripped training files carry
  | torch\.(cuda\.)?amp\.grad_scaler\.[A-Z]\w*
  | torch\.utils\.hooks\.[A-Z]\w*
  | torchvision\.transforms\.transforms\.(Compose|Resize|CenterCrop|ToTensor|Normalize)
  | torchvision\.transforms\.functional\.InterpolationMode
  | torch\.(device|Tensor|nn\.parameter\.(Parameter|Buffer)|serialization\._get_layout)
  | (ultralytics\.(yolo\.)?)?utils\.(loss|tal|torch_utils)\.[A-Z]\w*
  | ultralytics\.(yolo\.)?utils\.IterableSimpleNamespace
  | torch\.nn\.(functional|init)\.\w+ | torch\._C\._nn\.\w+  # functions that blocks hold
  | torch\.nn\.utils\.(prune|weight_norm|spectral_norm)\.[A-Z]\w*
  | torch\.(_dynamo|_inductor|_functorch)(\.\w+)+ | torch\._TorchCompile\w*  # torch.compile
  | contextlib\.nullcontext | torch\.fx(\.\w+)*\.[A-Z]\w*
  | torch\.utils\.(data|tensorboard)(\.\w+)*\.[A-Z]\w*
  | torch\.(_C\.)?Generator | logging\.(getLogger|Logger) | uuid\.UUID | re\._compile
  | dill\.(_dill|dill|settings)\.\w+
  | typing\.[A-Z]\w* | argparse\.Namespace | types\.SimpleNamespace | functools\.partial
  | datetime\.(datetime|date|time|timedelta|timezone)
  | builtins\.(int|float|str|bool|object|range|xrange|slice)
  | numpy\.(dtype|ndarray|bool_?|str_|bytes_|u?int\d+|float\d+|complex\d+|dtypes\.\w+DType)
    """,
    re.VERBOSE | re.ASCII,
)
"""Names that come out as data: `Named` standing alone, `Inert` where the pickle makes objects."""

_STANDARD = {*sys.stdlib_module_names, "__builtin__", "copy_reg", "commands", "torch", "numpy"}


def foreign(path: str) -> bool:
    """Whether a class lives outside Python, torch and numpy: perhaps a user's own block."""
    return path.partition(".")[0] not in _STANDARD


class Gate:
    """Applies the allow-list to one file.

    `known` adds class paths with a registered twin; `inert` adds others that are read as data, of
    classes only: a function that it adds may be named, and never called.
    """

    def __init__(
        self,
        origin: str,
        known: Callable[[str], bool],
        inert: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._origin = origin
        self._known = known
        self._inert = inert
        self._named: dict[str, object] = {}

    def check(self, paths: Iterable[str | None]) -> None:
        """Refuse a pickle by the globals it names, before anything of it runs.

        Raises ForbiddenGlobalError naming them; None stands for a name hidden from reading.
        """
        seen: set[str | None] = set()
        refused = []
        for path in paths:
            if path not in seen and len(seen) < MAX_GLOBALS:
                seen.add(path)
                if path is None or not self.allows(path):
                    refused.append(path)
        if refused:
            raise ForbiddenGlobalError(f"{self._origin}: {_refusal(refused)}")
        if len(seen) == MAX_GLOBALS:
            raise MalformedError(f"its pickle names {MAX_GLOBALS} classes or more")

    def allows(self, path: str) -> bool:
        """Whether this global may stand in a checkpoint."""
        path = _modern(path)
        return path not in {GETATTR, SETATTR} and (self._is_listed(path) or self._inert(path))

    def _is_listed(self, path: str) -> bool:
        return (
            path in BUILDERS
            or path in tensors.STORAGES
            or path in tensors.DTYPES
            or DATA.fullmatch(path) is not None
            or self._known(path)
        )

    def resolve(self, path: str) -> object:
        """Return what a global stands for, a dtype or a `Named`, after checking it again."""
        if path not in self._named:
            path_now = _modern(path)
            if path_now not in {GETATTR, SETATTR}:  # The scan let it pass for what it does.
                self.check([path])
            dtype: torch.dtype | None = tensors.DTYPES.get(path_now)
            self._named[path] = dtype or Named(path_now)
        return self._named[path]

    def named(self, cls: object) -> object:
        """Return what an object is made of; a global that dill hid behind an attribute is checked.

        Raises ForbiddenGlobalError.
        """
        match cls:
            case Inert(class_path=dill.GLOBAL, args=(str(path),)):
                return self.resolve(path)
        return cls

    def callee(self, function: object) -> object:
        """Return what is called, as `named`; a function of another package is refused.

        Raises ForbiddenGlobalError.
        """
        function = self.named(function)
        match function:
            case Named(path) if path not in {GETATTR, SETATTR} and not self._is_listed(path):
                if not path.rpartition(".")[2].lstrip("_")[:1].isupper():
                    raise ForbiddenGlobalError(f"{self._origin}: {_refusal([path])}")
        return function


def build_value(cls: object, args: object, allowance: Allowance) -> object:
    """Build the result of a call (REDUCE, NEWOBJ): only our own builders are ever called."""
    if type(args) is tuple and type(cls) is Inert and cls.class_path.startswith("dill."):
        return Inert(f"{cls.class_path}()")
    if type(cls) is not Named or type(args) is not tuple:
        raise MalformedError("it calls something that is neither a class nor a function")
    builder = BUILDERS.get(cls.path)
    return builder(args, allowance) if builder else Inert(cls.path, args)


def _modern(path: str) -> str:
    """Return the name in Python 3: protocols up to 2 call `builtins` `__builtin__`."""
    module, dot, name = path.partition(".")
    return f"builtins.{name}" if module == "__builtin__" and dot else path


def _refusal(paths: list[str | None]) -> str:
    """Write the message for refused globals; for a foreign class, how to register a twin."""
    advice = (
        "nothing of it was run. Save the weights alone (model.state_dict()), and give them with"
        " --arch MODEL.yaml"
    )
    if None in paths:
        return f"its pickle hides the name of a class or function, as no pickler does; {advice}"
    names = [path for path in paths if path is not None]
    outsiders = list(filter(foreign, names))
    if len(outsiders) < len(names):
        named = _listed([name for name in names if not foreign(name)])
        known = "which is not among what a detector's checkpoint may hold"
        return f"its pickle names {named}, {known}; {advice}"
    lines = "".join(
        f'\n    yqc.register_block("{shown(name)}", MyTwin)' for name in outsiders[:SHOWN_AT_MOST]
    )
    return (
        f"its pickle names {_listed(outsiders)}, for which yqc has no twin; nothing of it was run. "
        "If that is a block you know, register a traceable twin for it, in a file for --load:\n"
        f"    import yqc\n    class MyTwin(nn.Module): ...{lines}"
    )


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN_AT_MOST
    return ", ".join(map(shown, names[:SHOWN_AT_MOST])) + (f" and {rest} more" if rest > 0 else "")
