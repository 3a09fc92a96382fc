"""Read graph files: a model that was traced, or a snapshot of its graph behind passes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import fx

from yqc.errors import CheckpointError
from yqc.facts import HeadFacts, Layout, ModelFacts, Task
from yqc.graph.serial import load_graph, load_original
from yqc.graph.values import TensorSpec
from yqc.models.pickles.read import file_stamp
from yqc.quant import marks  # noqa: F401  # what graph files hold of quantization
from yqc.quant.weights import ops  # noqa: F401

LARGEST = 1 << 25
"""Pixels of an image at most, such as 8192 x 4096; a larger one takes gigabytes in every layer."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A graph behind passes, as `compile --save-temps` writes it."""

    gm: fx.GraphModule
    original: fx.GraphModule
    """The float graph, as it was traced."""
    path: str
    sha256: str
    model: str
    """The file of the model that was compiled."""
    model_sha256: str
    info: dict[str, Any]
    """The run that led to it: passes, records, settings; see `yqc.job.entering`."""


def read_graph_file(
    path: Path,
) -> tuple[fx.GraphModule, ModelFacts, str, Snapshot | None]:
    """Read a graph file: graph, facts, SHA-256, and what a snapshot has beside it.

    Raises:
        CheckpointError: the file is damaged, or does not say what model it holds.
    """
    before = file_stamp(path.stat())
    gm, info, _ = load_graph(path)
    original = load_original(path)
    sha256 = file_sha256(path)
    if file_stamp(path.stat()) != before:
        raise CheckpointError(f"{path} was written to while it was read; try again")
    kind, source = info.get("kind"), info.get("input")
    if kind == "snapshot" and isinstance(source, dict):
        snapshot = Snapshot(
            gm=gm,
            original=gm if original is None else original,
            path=str(path),
            sha256=sha256,
            model=str(source.get("path")),
            model_sha256=str(source.get("sha256")),
            info=info,
        )
        return gm, read_facts(path, snapshot.original, info), sha256, snapshot
    if kind != "model":
        raise CheckpointError(
            f"{path} is a {kind or 'snapshot'} of a compile, not a model; compile the "
            "checkpoint it came from"
        )
    return gm, read_facts(path, gm, info), sha256, None


def read_facts(path: Path, gm: fx.GraphModule, info: dict[str, Any]) -> ModelFacts:
    """Read what a graph file says about its model, `gm`.

    Raises:
        CheckpointError: something is missing, or is no such value.
    """
    match info.get("imgsz"):
        case [int(high), int(wide)] if min(high, wide) > 0 and high * wide <= LARGEST:
            pass
        case other:
            raise CheckpointError(f"{path} records no image size, but {json.dumps(other)}")
    wanted = (int(info.get("channels", 3)), high, wide)
    if traced_shape(gm) != wanted:
        raise CheckpointError(f"{path} does not take the images that it says: {wanted}")
    try:
        return ModelFacts(
            family=str(info["family"]),
            name=str(info["name"]),
            task=str(_one_of(Task, info["task"]) if info["layout"] else info["task"]),
            names=tuple(map(str, info["names"])),
            strides=tuple(map(int, info["strides"])),
            imgsz=(high, wide),
            channels=int(info.get("channels", 3)),
            layout=_one_of(Layout, info["layout"]) if info["layout"] else None,
            coefficients=int(info.get("coefficients", 0)),
            kpt_shape=_pair(info.get("kpt_shape")),
            head=_read_head(info.get("head")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not say what model it holds ({error})") from error


def traced_shape(gm: fx.GraphModule) -> tuple[int, int, int] | None:
    """Return channels, height and width of the images that a traced graph takes."""
    images = next((node for node in gm.graph.nodes if node.op == "placeholder"), None)
    spec = None if images is None else images.meta.get("yqc.value")
    if not isinstance(spec, TensorSpec) or len(spec.shape) != 4:  # noqa: PLR2004  # [N,C,H,W]
        return None
    return spec.shape[1], spec.shape[2], spec.shape[3]


def _one_of(allowed: Any, found: object) -> Any:  # noqa: ANN401  # a Literal, and one of it
    """Return what was found if a `Literal` allows it.

    Raises:
        ValueError: it does not.
    """
    if found not in get_args(allowed):
        raise ValueError(f"{found!r:.40}")
    return found


def _pair(found: object) -> tuple[int, int] | None:
    """Read keypoints and numbers of each, or None.

    Raises:
        ValueError: it is something else.
    """
    match found:
        case None:
            return None
        case [int(keypoints), int(numbers)] if keypoints > 0 and numbers in (2, 3):
            return keypoints, numbers
    raise ValueError(f"kpt_shape {found!r:.40}")


def _read_head(found: object) -> HeadFacts | None:
    """Read how raw outputs are decoded, or None.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if not isinstance(found, dict):
        return None
    levels = [[(float(w), float(h)) for w, h in level] for level in found["anchors"]]
    factors = found["keypoints"]
    return HeadFacts(
        reg_max=int(found["reg_max"]),
        anchors=tuple(map(tuple, levels)),
        keypoints=None if factors is None else (float(factors[0]), float(factors[1])),
        angle=found["angle"] and _one_of(Literal["sigmoid", "radians"], found["angle"]),
    )


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
