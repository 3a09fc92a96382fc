"""Keys of what is kept between runs: the hashes of all that decides a result."""

import functools
import hashlib
import inspect
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from yqc.data import Data
from yqc.graph.compare import fingerprint
from yqc.models.graph_files import file_sha256
from yqc.models.source import Source
from yqc.pipeline.base import Pass
from yqc.pipeline.options import chosen_names
from yqc.pipeline.pipeline import Pipeline
from yqc.registered import TARGET_NAMES
from yqc.report import Environment
from yqc.settings import SETTINGS, Settings
from yqc.targets import find_target
from yqc.version import __version__

AFTER_PASSES = {
    *("passes", "emit", "opset", "nms", "nms_options", "fp16_io", "uint8_input"),
    *("data", "images", "target", "threads"),
}
"""Settings that no graph behind a pass depends on, and those that a key holds in another form."""
PACKAGES = ("torch", "onnx", "onnxruntime", "onnxsim", "numpy", "pillow")


def model_key(source: Source, settings: Settings) -> dict[str, Any]:
    """Return what decides the float graph, and how it computes here."""
    return {
        "input": source.sha256 or fingerprint(source.gm),
        "arch": settings.arch and fingerprint(source.gm),
        "imgsz": list(source.imgsz),
        "head": settings.head,
        "opset": settings.opset,
        "versions": versions(),
        **({"snapshot": source.snapshot.sha256} if source.snapshot else {}),
    }


def compile_key(
    source: Source, data: Data | None, settings: Settings, pipeline: Pipeline, passes: list[Pass]
) -> dict[str, Any]:
    """Return what decides the result of a compile, but for the output's name."""
    chosen = {name: getattr(settings, name) for name in SETTINGS if name != "passes"}
    return {
        **model_key(source, settings),
        "passes": ",".join(map(str, passes)),
        "code": sorted(hash_code(passes)),
        "loaded": [sha256 for _, sha256 in pipeline.registry.files],
        "settings": chosen,
        "data": None if data is None else data.sha256,
        "device": hash_target(settings.target),
        "threads": torch.get_num_threads(),
    }


def stage_key(source: Source, data: Data | None, settings: Settings) -> dict[str, Any]:
    """Return what decides the graphs behind passes, but for the passes."""
    chosen = {name: getattr(settings, name) for name in SETTINGS if name not in AFTER_PASSES}
    return {
        **model_key(source, settings),
        "opset": None,
        "settings": chosen,
        "target": hash_target(settings.target) or settings.target,
        "data": None if data is None else [data.sha256, data.whole, len(data.train.images)],
        "threads": torch.get_num_threads(),
    }


def hash_target(name: str) -> str:
    """Return the hash of a device's file, or of that which registered a target; "" for yqc's."""
    added = None if name.endswith(".toml") else TARGET_NAMES.find(find_target(name).name)
    return find_target(name).sha256 if added is None else added.sha256


def key_of_passes(passes: Sequence[Pass], count: int) -> list[list[Any]]:
    """Return what of the first passes decides a graph behind them: options and code.

    The names of later passes count where a pass reads them.
    """
    names = [one.name for one in passes]
    return [
        [str(one), *hash_code([one]), [n for n in names[index:] if n in one.reads_upcoming]]
        for index, one in enumerate(passes[:count], start=1)
    ]


@functools.cache
def versions() -> dict[str, str]:
    """Return what computes: packages, the code of yqc itself, the processor."""
    found = {"yqc": f"{__version__} {_own_stamp()}"}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return {**found, "cpu": Environment.here(threads=1, seed=0).cpu}


def _own_stamp() -> str:
    """Hash names, sizes and times of yqc's own files: they change while yqc is worked on."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def find_source(kind: type) -> Path | None:
    """Return the file in which a class is defined; None for one of a notebook or interpreter."""
    try:
        path = inspect.getsourcefile(kind)
    except (TypeError, OSError):
        return None
    return Path(path) if path and Path(path).is_file() else None  # it may be a name like <stdin>


def hash_code(passes: Iterable[Pass]) -> set[str]:
    """Hash the files in which passes are defined; those of `--load` and of plugins change."""
    found = set()
    passes = list(passes)
    for kind in {type(each) for each in passes}:
        if (path := find_source(kind)) is not None:
            found.add(f"{kind.__name__} {file_sha256(path)}")
    named = (names.find(name) for one in passes for name, names in chosen_names(one))
    return found | {f"{one.kind} {one.name} {one.sha256}" for one in named if one is not None}
