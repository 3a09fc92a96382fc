"""What is fuzzed: one function a reader, from bytes to nothing, or to an error that is no YqcError.

Each lets a YqcError pass, since that is the answer to a bad input, and lets anything else out.
"""

import contextlib
import copy
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from tests.models.checkpoints import make, save
from tests.models.hostile import FILES
from yqc.data import load_data
from yqc.errors import YqcError
from yqc.models import load as loading
from yqc.models.pickles.read import Inert, read_checkpoint
from yqc.models.register import known
from yqc.pipeline.pipeline import Pipeline

FOLDER = Path(tempfile.mkdtemp(prefix="yqc-fuzz-"))
FORMS: list[Callable[[bytes], bytes]] = [*FILES.values(), lambda data: data]
ANCHORS = [[10, 13, 16, 30]]
WHOLE = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C2f", [8, True]], [-1, 1, "SPPF", [8, 5]]]
MODELS: tuple[tuple[str, list[Any], list[Any]], ...] = (
    ("ultralytics", WHOLE, ["Detect", ["nc"]]),
    ("ultralytics", [[-1, 1, "Conv", [4, 3, 2]]], ["Detect", ["nc"]]),
    ("ultralytics", [[-1, 1, "C2f", [4, True]]], ["v10Detect", ["nc"]]),
    ("ultralytics", [[-1, 1, "SPPF", [4, 5]]], ["Detect", ["nc"]]),
    ("yolov5", [[-1, 1, "Conv", [4, 3, 2]], [-1, 1, "C3", [4]]], ["Detect", ["nc", "anchors"]]),
    ("yolov7", [[-1, 1, "Conv", [4, 3, 2]], [-1, 1, "MP", []]], ["IDetect", ["nc", "anchors"]]),
    ("yolov7", [[-1, 1, "RepConv", [4]]], ["Detect", ["nc", "anchors"]]),
)
"""Project, body and head of detectors so small that many a second can be loaded."""
VALUES: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 1 << 20, 1 << 40, -(1 << 40), 0.0, -1.5,
    float("nan"), float("inf"), "", "same", "zeros", "\u202e", (), (0, 0), (1, 1), (3, -3),
    (1 << 31,) * 2, [], [0], [-1, -1], [99], [-99, 0], {}, {"a": 1}, {0: "a"}, b"",
    Inert("torch.nn.modules.X"),
)  # fmt: skip
"""What a field of a pickled module may be turned into."""


def checkpoint(data: bytes) -> None:
    """Read a file, or a pickle program in one of the forms that a file may have."""
    path = FOLDER / "x.pt"
    form = FORMS[data[0] % len(FORMS)] if data else FORMS[-1]
    path.write_bytes(form(data[1:]))
    with contextlib.suppress(YqcError):
        repr(read_checkpoint(path, known))


def model(data: bytes) -> None:
    """Load a sound detector some of whose fields were turned into something else.

    The first byte chooses the detector, and every four that follow a field and what it becomes.
    """
    tree = copy.deepcopy(_trees()[data[0] % len(MODELS) if data else 0])
    for at in range(1, len(data) - 3, 4):
        places = list(_places(tree))
        if not places:
            break
        holder, key = places[int.from_bytes(data[at : at + 2]) % len(places)]
        choice = data[at + 2]
        if choice < len(VALUES):
            holder[key] = copy.deepcopy(VALUES[choice])
        elif choice % 3 == 0:
            del holder[key]
        else:
            other, name = places[data[at + 3] * 7 % len(places)]
            holder[key] = other[name]
    with (
        mock.patch.object(loading, "read_with_sha256", return_value=(tree, "")),
        contextlib.suppress(YqcError),
    ):
        loading.load(FOLDER / "sound.pt")


def options(data: bytes) -> None:
    """Parse a pipeline text; what was parsed prints as a text that parses to the same."""
    text = data.decode(errors="replace")
    with contextlib.suppress(YqcError):
        parsed = Pipeline.parse(text)
        assert Pipeline.parse(str(parsed)) == parsed, text


def data_yaml(data: bytes) -> None:
    """Read a data YAML beside a folder of two images, and the labels of one."""
    text, _, label = data.partition(b"\0")
    _images()
    labels = FOLDER / "labels" / "a.txt"
    labels.parent.mkdir(exist_ok=True)
    labels.write_bytes(label)
    _load(FOLDER / "x.yaml", text)


def coco_json(data: bytes) -> None:
    """Read a COCO instances file beside a folder of two images."""
    _images()
    _load(FOLDER / "x.json", data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "checkpoint": checkpoint,
    "model": model,
    "options": options,
    "data_yaml": data_yaml,
    "coco_json": coco_json,
}


def _load(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with contextlib.suppress(YqcError):
        found = load_data(path)
        for split in (found.train, found.val):
            repr(split.annotations)


def _images() -> None:
    folder = FOLDER / "images"
    if not folder.exists():
        folder.mkdir()
        for name in ("a", "b"):
            Image.new("RGB", (8, 6)).save(folder / f"{name}.png")


@functools.cache
def _trees() -> list[object]:
    """What the checkpoints of the small detectors hold, read once."""
    found = []
    for project, body, head in MODELS:
        spec: dict[str, Any] = {"backbone": body, "head": [[[len(body) - 1], 1, *head]]}
        spec |= {"anchors": ANCHORS} if project != "ultralytics" else {}
        path = save(FOLDER / "sound.pt", make(spec, nc=2), project, names={0: "a", 1: "b"})
        found.append(read_checkpoint(path, known))
    return found


def _places(
    value: object, seen: set[int] | None = None
) -> Iterator[tuple[dict[object, object], object]]:
    """Every key of every dict in a tree, once; the attributes of inert objects included."""
    seen = set() if seen is None else seen
    held = value.state if isinstance(value, Inert) else value
    if isinstance(held, dict) and id(held) not in seen:
        seen.add(id(held))
        for key, inner in held.items():
            yield held, key
            yield from _places(inner, seen)
