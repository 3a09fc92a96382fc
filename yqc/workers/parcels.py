"""What a session needs, sent to other machines: files and data by content, each once a machine.

A file lies there at `FOLDER/SHA256/NAME`, so that equal files are sent once whoever needs them. The
data set is sent as it was read, with its labels, and the images by content. Paths of that machine
are put back to those of the sender in all that a job brings.
"""

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from yqc.data import Data, Split
from yqc.data.sets import Annotations
from yqc.errors import CheckpointError
from yqc.models.graph_files import file_sha256
from yqc.targets import find_target
from yqc.workers.jobs import Job, Opening, session_of

T = TypeVar("T")
CHUNK = 32 << 20
"""Bytes of the files that are sent as one object. Half of it makes twice as many objects, double
holds more in memory at once."""
FOLDER = "yqc-parcels-{user}"
"""Name of the folder of files on a machine, in that for temporary files."""

Ref = Any
"""What stands for a sent object."""
Put = Callable[[object], Ref]
Get = Callable[[Ref], Any]


@dataclass(frozen=True)
class SentFile:
    """A file by its content."""

    path: str
    """Of the sender."""
    sha256: str

    def place(self, folder: Path) -> Path:
        """Return its path on this machine."""
        return folder / self.sha256[:32] / Path(self.path).name


@dataclass(frozen=True)
class Parcel:
    """What opens a session on another machine."""

    opening: Opening
    key: str
    """The hash of all of it."""
    files: tuple[SentFile, ...]
    """The model, a model's YAML, a device's file, files with passes."""
    images: tuple[SentFile, ...]
    chunks: tuple[tuple[tuple[int, ...], Ref], ...] = field(compare=False)
    """Positions among files and images, and what stands for their contents."""
    data: Ref = field(compare=False, default=None)
    """Stands for the data set as it was read; None without one."""


def node_folder() -> Path:
    """Return the folder of files that were sent to this machine."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / FOLDER.format(user=user)


def pack(opening: Opening, put: Put, sent: dict[str, Ref]) -> Parcel:
    """Read what a session needs, and send what was not sent before.

    Args:
        opening: opens it here; it is opened once, to read its data.
        put: sends an object.
        sent: what was sent, by the hash of its contents.

    Raises:
        YqcError: the model or the data cannot be read.
    """
    data: Data | None = session_of(opening).data
    device = find_target(opening.choices.get("target", "onnxruntime")).file
    named = [opening.model, opening.choices.get("arch"), device, *opening.load]
    files = tuple(_sent_file(Path(name)) for name in named if name)
    images: tuple[SentFile, ...] = ()
    if data is not None:
        paths = dict.fromkeys(path for split in (data.train, data.val) for path in split.images)
        images = tuple(_sent_file(path) for path in paths)
    chunks = []
    for positions in _chunks([*files, *images]):
        those = [[*files, *images][i] for i in positions]
        name = hashlib.sha256("".join(one.sha256 for one in those).encode()).hexdigest()
        if name not in sent:
            sent[name] = put([_read(Path(one.path)) for one in those])
        chunks.append((positions, sent[name]))
    about = [str(opening.choices), [one.sha256 for one in files], data and data.sha256]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    whole = None if data is None else put(_freeze(data))
    return Parcel(opening, key, files, images, tuple(chunks), whole)


def _sent_file(path: Path) -> SentFile:
    try:
        return SentFile(str(path), file_sha256(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def _chunks(files: Sequence[SentFile]) -> Iterator[tuple[int, ...]]:
    """Yield positions of files that are sent together: the first ones alone, images in chunks."""
    positions, size = list[int](), 0
    for i, one in enumerate(files):
        positions.append(i)
        size += Path(one.path).stat().st_size
        if size > CHUNK:
            yield tuple(positions)
            positions, size = [], 0
    if positions:
        yield tuple(positions)


def _freeze(data: Data) -> Data:
    """Return data whose labels are read, and whose hash is known."""

    def frozen(split: Split) -> Split:
        labels = split.annotations
        read = None if labels is None else functools.partial(_give, labels)
        return Split(split.name, split.images, read, split.absent)

    known = data.sha256
    return replace(
        data, train=frozen(data.train), val=frozen(data.val), held=None, known_sha256=known
    )


def _give(labels: Annotations) -> Annotations:
    return labels


@dataclass(frozen=True)
class PlacedOpening:
    """Opens a session from the files of a parcel on this machine."""

    parcel: Parcel
    get: Get = field(compare=False)

    def __call__(self) -> Any:  # noqa: ANN401  # as the opening opens
        """Open it; what is here already is not fetched.

        Raises:
            YqcError: the model cannot be read.
        """
        parcel, folder = self.parcel, node_folder()
        files = [*parcel.files, *parcel.images]
        for positions, ref in parcel.chunks:
            if any(not files[i].place(folder).is_file() for i in positions):
                for i, content in zip(positions, self.get(ref), strict=True):
                    _write(files[i].place(folder), content)
        places = {one.path: str(one.place(folder)) for one in files}
        choices = {
            name: places.get(value, value) if name in {"arch", "target"} else value
            for name, value in parcel.opening.choices.items()
            if name not in {"data", "images"}
        }
        load = tuple(Path(places[str(path)]) for path in parcel.opening.load)
        model = places[str(parcel.opening.model)]
        session = Opening(parcel.opening.open, model, choices, load)()
        if parcel.data is not None:
            where = {k: v for k, v in parcel.opening.choices.items() if k in {"data", "images"}}
            session.settings = replace(session.settings, **where)
            session.data = _move(self.get(parcel.data), places)
        return session


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; another process may write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".partial-", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)


def _move(data: Data, places: Mapping[str, str]) -> Data:
    """Return data whose images lie elsewhere."""

    def moved(split: Split) -> Split:
        return replace(split, images=tuple(Path(places[str(path)]) for path in split.images))

    return replace(data, train=moved(data.train), val=moved(data.val))


def run_placed(job: Job[T], parcel: Parcel, get: Get) -> tuple[T, dict[str, bytes]]:
    """Run a job on this machine from a parcel.

    Returns:
        What came of it, and its files by name; both name the sender's paths.
    """
    places = {str(one.place(node_folder())): one.path for one in parcel.files}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places |= {name: str(job.folder)}
        result = job.run(session_of(PlacedOpening(parcel, get)), folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    texts = {name for name in files if name.endswith((".json", ".toml"))}
    for name in texts:
        for here, there in places.items():
            old, new = (json.dumps(one, ensure_ascii=False)[1:-1].encode() for one in (here, there))
            files[name] = files[name].replace(old, new)
    return _put_back(result, places), files


def _put_back(result: T, places: Mapping[str, str]) -> T:
    """Put the sender's paths into the texts of a result."""
    if not is_dataclass(result) or isinstance(result, type):
        return result
    changed = {}
    for one in fields(result):
        value = getattr(result, one.name)
        if isinstance(value, str):
            for here, there in places.items():
                value = value.replace(here, there)
            changed[one.name] = value
    return replace(result, **changed)
