"""What an interrupted compile goes on with: its part of the stores.

Without `--resume` it lies in the store in the user's cache folder. With it, in one beside the
output, where it can be seen and moved; what an earlier run has left in either is found. It goes
when the compile has succeeded. Of two compiles of one output at the same time, the one that came
first keeps its work, and the other keeps nothing.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import BaseFileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from yqc.data import Data
from yqc.errors import OutputError
from yqc.graph.serial import lies_channels_last
from yqc.job.keys import compile_key, key_of_passes, stage_key
from yqc.job.outputs import Outputs
from yqc.models.source import Source
from yqc.pipeline.base import Context, Pass
from yqc.pipeline.pipeline import Pipeline
from yqc.settings import Settings
from yqc.store import Store, user_store
from yqc.store.folders import is_marked
from yqc.store.locks import lock_folder

KIND, STAGE = "work", "stage"
ABOUT = "__about__"
"""Name under which plain values lie among the tensors, as JSON."""
LAID = "__channels_last__"
"""Among them, the names of the tensors whose channels lie last in memory: sums over them are
rounded in another order otherwise, and a resumed compile would differ in the last place."""


class Work:
    """Keeps tensors and plain values by name, for one compile.

    Args:
        stores: the first one is written to, all are read.
        key: what decides the result, plain values; `output` in it names the file that is made.
        user: the store in the user's cache folder; the last one by default.
        stage_key: what decides graphs behind passes, which any compile may begin with; `key` by
            default.
        resume: whether what an earlier run has kept may be used.
        warn: called once if nothing can be kept; None makes that an error.
        note: called in the end with what was wrong with a store.

    Raises:
        OutputError: `resume`, and another process is at the same output.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        key: Mapping[str, Any],
        user: Store | None = None,
        *,
        stage_key: Mapping[str, Any] | None = None,
        resume: bool,
        warn: Callable[[str], None] | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.stores, self._warn, self._note = tuple(stores), warn, note
        self.user = user or self.stores[-1]
        """The store in the user's cache folder."""
        self.key: dict[str, Any] = json.loads(json.dumps(dict(key)))
        self.stage_key = dict(key if stage_key is None else stage_key)
        self._resume, self._names = resume, set[str]()
        self._lock: BaseFileLock | None = None
        self._silent = False
        if resume and is_marked(self.stores[0].folder) and not self._is_locked():
            raise OutputError(
                f"{self.key.get('output')} belongs to a compile that is still running; wait for "
                "it, or leave --resume out"
            )

    @property
    def holds_anything(self) -> bool:
        """Whether this run has kept something."""
        return bool(self._names)

    def differences(self) -> str:
        """Say in what the key differs from those of other work on this output; "" if there is none.

        Work under this very key counts as none.
        """
        found: set[str] = set()
        for entry in self._entries():
            mine, theirs = self.key, {k: v for k, v in entry.key.items() if k != "name"}
            if mine == theirs:
                return ""
            found |= {k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)}
        return ", ".join(sorted(found))

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was kept under a name, or None if there is nothing, or it is damaged."""
        content = self.load_bytes(name)
        if content is None:
            return None
        try:
            tensors = load(content)
            about = json.loads(tensors.pop(ABOUT).numpy().tobytes())
            for key in about.pop(LAID):
                tensors[key] = as_channels_last(tensors[key])
        except (SafetensorError, ValueError, KeyError):
            return None
        return tensors, about

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep tensors and plain values under a name, in place of what was kept before.

        Raises:
            OutputError: that is not possible, and resuming was asked for.
        """
        plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        laid = [k for k, v in tensors.items() if lies_channels_last(v)]
        text = bytearray(json.dumps({**about, LAID: laid}).encode())
        self.save_bytes(name, save({**plain, ABOUT: torch.frombuffer(text, dtype=torch.uint8)}))

    def load_bytes(self, name: str) -> bytes | None:
        """Return the bytes kept under a name, by this run or one that is resumed, or None."""
        if not self._resume and name not in self._names:
            return None
        for store in self.stores:
            if (content := store.get(KIND, {**self.key, "name": name})) is not None:
                return content
        return None

    def save_bytes(self, name: str, content: bytes) -> None:
        """Keep bytes under a name; see `save`."""
        if self._is_locked() and self._put(KIND, {**self.key, "name": name}, content, name):
            self._names.add(name)

    def load_stage(self, passes: Sequence[Pass], count: int) -> bytes | None:
        """Return what any compile has kept behind the first `count` of these passes, or None."""
        key = {**self.stage_key, "passes": key_of_passes(passes, count)}
        found = (store.get(STAGE, key) for store in self.stores)
        return next((content for content in found if content is not None), None)

    def save_stage(self, passes: Sequence[Pass], count: int, content: bytes) -> None:
        """Keep bytes behind passes, and that this compile has come there; see `save`."""
        key = {**self.stage_key, "passes": key_of_passes(passes, count)}
        if self._put(STAGE, key, content, STAGE):
            self.save_bytes(STAGE, str(passes[count - 1]).encode())

    def _put(self, kind: str, key: Mapping[str, Any], content: bytes, name: str) -> bool:
        """Write to the first store; say why once if that is not possible."""
        store = self.stores[0]
        if store.put(kind, key, content):
            return True
        if store.trouble and not self._silent:
            self._silent = True
            if self._warn is None:
                raise OutputError(f"cannot keep {name} for --resume: {store.trouble}")
            self._warn(f"a kill would lose this compile's work: {store.trouble}")
        return False

    def delete(self) -> None:
        """Remove all work on this output, and the store beside it; called when it is made."""
        beside = [s.entries() for s in self.stores if s.folder != self.user.folder]
        stages = [entry for found in beside for entry in found if entry.kind == STAGE]
        for entry in (*self._entries(), *stages):
            with contextlib.suppress(OSError):
                entry.path.unlink()
        if self._lock is not None:
            path = Path(self._lock.lock_file)
            self._lock.release(force=True)
            self._lock = None
            with contextlib.suppress(OSError):
                path.unlink()
        for store in self.stores:
            if store.trouble:
                self._note(store.trouble)
            if store.folder != self.user.folder and not store.entries():
                store.remove()

    def _entries(self) -> list[Any]:
        found = [entry for store in self.stores for entry in store.entries()]
        output = self.key.get("output")
        return [e for e in found if e.kind == KIND and e.key.get("output") == output]

    def _is_locked(self) -> bool:
        """Lock this output for this process, if no other one has it."""
        if self._lock is None:
            name = hashlib.sha256(str(self.key.get("output")).encode(errors="replace")).hexdigest()
            with contextlib.suppress(OSError):
                self.stores[0].open()
                self._lock = lock_folder(self.stores[0].folder, f"{name[:32]}.lock")
            if not is_marked(self.stores[0].folder):
                return True  # nothing can be kept there; the store says why
        return self._lock is not None


def as_channels_last(tensor: Tensor) -> Tensor:
    """Return [N, C, H, W] with its channels last in memory."""
    return tensor.contiguous(memory_format=torch.channels_last)


def stores_of(folder: Path, user: Store, *, resume: bool) -> tuple[Store, ...]:
    """Return where work is kept, in the order of `Work`: beside the output where that was asked.

    A folder of somebody else's there is left alone; the user's cache folder serves then.

    Raises:
        OutputError: resuming was asked for, and neither can be written.
    """
    beside = Store(folder, user.bound or Store(folder).bound)
    taken = os.path.lexists(folder) and not is_marked(folder)
    if not resume or taken:
        return (user,) if taken else (user, beside)
    try:
        beside.open()
    except OSError as error:
        raise OutputError(
            f"cannot keep work for --resume in {folder}: {error.strerror or error}"
        ) from error
    return (beside, user)


def open_work(
    files: Outputs,
    source: Source,
    data: Data | None,
    settings: Settings,
    pipeline: Pipeline,
    passes: list[Pass],
    ctx: Context,
    *,
    resume: bool,
    verify: bool = True,
) -> Work:
    """Open the work of one compile; everything that decides its result is in its key.

    Raises:
        OutputError: `resume`, and another process is at the same output, or nothing can be kept.
    """
    key = compile_key(source, data, settings, pipeline, passes)
    key["output"] = os.fsdecode(files.onnx.resolve())
    user = user_store()
    stores = stores_of(files.cache, user, resume=resume)
    note = ctx.progress.note
    warn = None if resume else ctx.warn
    behind = {**stage_key(source, data, settings), "verify": verify, "loaded": key["loaded"]}
    work = Work(stores, key, user, stage_key=behind, resume=resume, warn=warn, note=note)
    if resume and stores[0] is user:
        note(f"{files.cache} is not yqc's: work is kept in {user.folder}")
    if resume and (names := work.differences()):
        note(f"--resume: what was kept is of another compile ({names} differ); anew")
    return work


def has_work(files: Outputs) -> bool:
    """Return whether something is kept that a compile of these files could go on with."""
    output = os.fsdecode(files.onnx.resolve())
    entries = [e for store in (user_store(), Store(files.cache)) for e in store.entries()]
    return any(e.kind == KIND and e.key.get("output") == output for e in entries)
