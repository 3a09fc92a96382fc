"""Saving and loading a graph: a zip of one JSON description and the tensors as safetensors.

Nothing in such a file is executed. Functions, methods and modules are names, looked up in the
tables of `yqc.graph.optable`; a name that is not there is an error. Names of nodes, inputs, modules
and arguments must be identifiers, since fx writes them into the Python code that it compiles.

    graph.json            format, version, info, nodes, modules
    tensors.safetensors   parameters and buffers by path
    float.yqc             such a file within, in a snapshot: the graph before any pass
"""

import json
import keyword
import math
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, fx, nn

from yqc.errors import CheckpointError, OutputError
from yqc.graph import optable
from yqc.graph.calls import get_attribute
from yqc.graph.edit import tidy
from yqc.graph.metadata import decode_meta, encode_meta
from yqc.graph.values import SHORT

FORMAT, VERSION = "yqc-graph", 1
LIMIT = 2 << 30
ORIGINAL = "float.yqc"
DTYPES = {str(d).removeprefix("torch."): d for d in SHORT}


def save_graph(
    gm: fx.GraphModule,
    path: Path,
    info: Mapping[str, Any] | None = None,
    *,
    original: bytes | None = None,
    **more: Tensor,
) -> None:
    """Write a graph, `info` (plain JSON values) and further named tensors, whole or not at all.

    `original` is the content of a graph file, which is kept within it.

    Raises:
        OutputError: a node has no name in `yqc.graph.optable`, or the file cannot be written.
    """
    ties = find_ties(gm)
    state = {k: v for k, v in gm.state_dict().items() if k not in ties}
    tensors = {k: v.detach() for k, v in state.items()}
    tensors |= {f"more:{k}": v.detach() for k, v in more.items()}
    nodes = []
    for node in gm.graph.nodes:
        about = {"name": node.name, "op": node.op, "target": _target(node)}
        about |= {"meta": encode_meta(node, tensors), "args": _encode(node.args)}
        nodes.append(about | {"kwargs": _encode(dict(node.kwargs))})
    modules = {}
    for node in gm.graph.nodes:
        if node.op == "call_module" and node.target not in modules:
            modules[node.target] = optable.describe_module(gm.get_submodule(node.target))
    document = {
        "format": FORMAT,
        "version": VERSION,
        "info": dict(info or {}),
        "name": type(gm).__name__,
        "modules": modules,
        "ties": ties,
        "channels_last": [name for name, tensor in tensors.items() if lies_channels_last(tensor)],
        "parameters": [name for name, _ in gm.named_parameters()],
        "nodes": nodes,
    }
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
            _add(file, "graph.json", json.dumps(document).encode(), zipfile.ZIP_DEFLATED)
            plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
            _add(file, "tensors.safetensors", save_tensors(plain), zipfile.ZIP_STORED)
            if original is not None:
                _add(file, ORIGINAL, original, zipfile.ZIP_STORED)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the disk may have become read-only
            temporary.unlink()
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def lies_channels_last(tensor: Tensor) -> bool:
    """Return whether the channels of [N, C, H, W] lie last in memory, and that is another order.

    Sums over tensors are rounded in the order in which these lie.
    """
    if tensor.ndim != 4 or tensor.is_contiguous():  # noqa: PLR2004
        return False
    return tensor.is_contiguous(memory_format=torch.channels_last)


def find_ties(gm: fx.GraphModule) -> dict[str, str]:
    """Map each name of a tensor that has several to the first of them, the first left out."""
    held = (gm.named_parameters, gm.named_buffers)
    named = [pair for each in held for pair in each(remove_duplicate=False)]
    first: dict[int, str] = {}
    return {
        name: source
        for name, tensor in named
        if (source := first.setdefault(id(tensor), name)) != name
    }


def _add(file: zipfile.ZipFile, name: str, content: bytes, how: int) -> None:
    file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, how)


def is_graph_file(path: Path) -> bool:
    """Check whether `path` is a file that `save_graph` wrote."""
    try:  # a pipe would be waited for, a device read without end
        if not os.path.isfile(path):  # noqa: PTH113  # False for a name that no file can have
            return False
        with zipfile.ZipFile(path) as file:
            return "graph.json" in file.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def read_info(path: Path) -> dict[str, Any]:
    """Return what a graph file says beside its graph; empty if that cannot be read."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.getinfo("graph.json").file_size > LIMIT:
                return {}
            return dict(json.loads(file.read("graph.json"))["info"])
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        return {}


def load_graph(path: Path) -> tuple[fx.GraphModule, dict[str, Any], dict[str, Tensor]]:
    """Read what `save_graph` wrote: the graph, `info`, and the further tensors.

    Raises:
        CheckpointError: the file is damaged, or names something that is not in the tables.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"there is no file {path}")
        with zipfile.ZipFile(path) as file:
            if sum(i.file_size for i in file.infolist()) > LIMIT:
                raise CheckpointError(f"{path} unpacks to more than {LIMIT >> 30} GiB; refused")
            document = json.loads(file.read("graph.json"))
            tensors = load_tensors(file.read("tensors.safetensors"))
            for name in document.get("channels_last", []):
                tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise CheckpointError(f"{path} is of another version of yqc; write it again")
        gm, info = _build(document, tensors), dict(document["info"])
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file may raise anything
        raise CheckpointError(f"cannot read {path}: it is damaged ({error})") from error
    more = {k.removeprefix("more:"): v for k, v in tensors.items() if k.startswith("more:")}
    return gm, info, more


def load_original(path: Path) -> fx.GraphModule | None:
    """Read the graph before any pass that a snapshot holds; None where it holds none.

    Raises:
        CheckpointError: the file is damaged, or names something that is not in the tables.
    """
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder, ORIGINAL)
        try:
            with zipfile.ZipFile(path) as file:
                if ORIGINAL not in file.namelist():
                    return None
                inner.write_bytes(file.read(ORIGINAL))
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise CheckpointError(f"cannot read {path}: it is damaged ({error})") from error
        try:
            return load_graph(inner)[0]
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(inner), f"{path}: {ORIGINAL}")) from error


def _build(document: dict[str, Any], tensors: dict[str, Tensor]) -> fx.GraphModule:
    root, ties = nn.Module(), document.get("ties", {})
    tensors |= {name: tensors[source] for name, source in ties.items()}
    for path, description in document["modules"].items():
        _place(root, _path(path), optable.make_module(description))
    graph, env = fx.Graph(), dict[str, fx.Node]()
    for item in document["nodes"]:
        target = optable.find_callable(item["op"], item["target"])
        _word(item["name"])
        if item["op"] == "placeholder":
            _word(target)
        elif item["op"] in {"get_attr", "call_module"}:
            _path(target)
        if item["op"] == "get_attr":
            _place_tensor(root, target, tensors[target], document["parameters"])
        args, kwargs = _decode(item["args"], env), _decode(item["kwargs"], env)
        for key in kwargs:
            _word(key)
        node = graph.create_node(item["op"], target, args, kwargs, item["name"])
        node.name = item["name"]
        env[item["name"]] = node
        node.meta.update(decode_meta(item["meta"], tensors))
    if [node.op for node in graph.nodes].index("output") != len(graph.nodes) - 1:
        raise CheckpointError("the graph does not end in its output")
    gm = fx.GraphModule(root, graph, str(document["name"]))
    state = {k: v for k, v in tensors.items() if not k.startswith(("more:", "meta:"))}
    gm.load_state_dict(state, strict=True, assign=True)
    for name, source in ties.items():
        owner, _, leaf = _path(name).rpartition(".")
        setattr(gm.get_submodule(owner), leaf, get_attribute(gm, _path(source)))
    for parameter in gm.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    gm.eval()
    tidy(gm)
    _check_calls(gm)
    return gm


def _check_calls(gm: fx.GraphModule) -> None:
    """Check the arguments of stored calls that have a check; it raises if they are damaged."""
    for node in gm.graph.nodes:
        check = optable.CHECKS.get(_target(node)) if node.op == "call_function" else None
        if check is not None:
            values = (
                get_attribute(gm, str(arg.target)) if isinstance(arg, fx.Node) else arg
                for arg in node.args
            )
            check(*values)


def _word(text: str) -> str:
    """Return `text` if it is one identifier."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise CheckpointError(f"the graph holds the name {text!r}, which is not allowed")
    return text


def _path(text: str) -> str:
    """Return `text` if it is a dotted path of words and numbers."""
    if not re.fullmatch(r"\w+(\.\w+)*", text):
        raise CheckpointError(f"the graph holds the path {text!r}, which is not allowed")
    return text


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    owner, name = _owner(root, path)
    owner.add_module(name, module)


def _owner(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that holds what is at a path, made where it is missing, and the name."""
    *atoms, name = path.split(".")
    for atom in atoms:
        if atom not in root._modules:  # noqa: SLF001  # the public getter raises
            root.add_module(atom, nn.Module())
        root = root.get_submodule(atom)
    return root, name


def _place_tensor(root: nn.Module, path: str, tensor: Tensor, parameters: list[str]) -> None:
    root, name = _owner(root, path)
    if name in root._buffers or name in root._parameters:  # noqa: SLF001
        return
    if path in parameters:
        root.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    else:
        root.register_buffer(name, tensor)


def _target(node: fx.Node) -> str:
    if node.op != "call_function":
        return str(node.target)
    name = optable.function_name(node.target)
    if name is None:
        raise OutputError(
            f"cannot save the graph: {node.name} calls {node.target}, which has no "
            "name in yqc.graph.optable; add it with optable.allow_function"
        )
    return name


def _encode(value: Any) -> Any:  # noqa: ANN401, PLR0911  # one return a kind
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v) for v in value]}
    if isinstance(value, list):
        return [_encode(v) for v in value]
    if isinstance(value, dict):
        return {"dict": {k: _encode(v) for k, v in value.items()}}
    if isinstance(value, slice):
        return {"slice": [_encode(v) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is Ellipsis:
        return {"ellipsis": True}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise OutputError(f"cannot save the graph: an argument of type {type(value).__name__}")


def _decode(value: Any, env: dict[str, fx.Node]) -> Any:  # noqa: ANN401, PLR0911
    if isinstance(value, list):
        return [_decode(v, env) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return env[content]
    if kind == "tuple":
        return tuple(_decode(v, env) for v in content)
    if kind == "dict":
        return {k: _decode(v, env) for k, v in content.items()}
    if kind == "slice":
        return slice(*(_decode(v, env) for v in content))
    if kind == "dtype":
        return DTYPES[content]
    return float(content) if kind == "float" else ...
