"""The float model that a compiled file is compared with, kept between compiles.

Its ONNX file and what it finds in images depend on model, data, settings and versions only, not on
the passes. Latency is never kept: it is taken anew, in turn with the compiled file.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from yqc import evaluation as ev
from yqc.data import Data, Split, Unreadable
from yqc.emit import emit, save
from yqc.job.keys import model_key
from yqc.job.work import Work
from yqc.models.source import Source
from yqc.pipeline.base import Pause
from yqc.progress import Progress
from yqc.report.parts import Baseline
from yqc.settings import Settings
from yqc.store import Store


def write_float_file(source: Source, settings: Settings, store: Store, path: Path) -> None:
    """Write the float model as an ONNX file: the one that is kept, or a new one to keep."""
    key = model_key(source, settings)
    content = store.get("float", key)
    if content is not None:
        path.write_bytes(content)
        return
    save(emit(source.gm, opset=settings.opset), path)
    store.put("float", key, path.read_bytes())


FLOAT_LABEL = "evaluating the float model"


def detect_with_float(
    file: Path,
    data: Data,
    source: Source,
    settings: Settings,
    work: Work,
    *,
    threads: int,
    progress: Progress,
) -> tuple[ev.Detections, Baseline]:
    """Return what the float model's file finds in the evaluation images, and whether it was kept.

    Raises:
        CheckpointError, DataError: see `detect`.
    """
    split, store = data.val, work.user
    names = "\n".join(path.name for path in split.images)
    key = {
        **model_key(source, settings),
        "file": hashlib.sha256(file.read_bytes()).hexdigest(),
        "data": data.sha256,
        "images": hashlib.sha256(names.encode(errors="replace")).hexdigest(),
        "threads": threads,
    }
    return load_or_detect(
        store,
        key,
        split,
        lambda: detect_resumably(
            file, split, source, work, threads=threads, progress=progress, label=FLOAT_LABEL
        ),
    )


def load_or_detect(
    store: Store, key: Mapping[str, Any], split: Split, detect: Callable[[], ev.Detections]
) -> tuple[ev.Detections, Baseline]:
    """Return what is kept of the detections in images, or detect and keep them; and which it was.

    The key must hold all that decides them.
    """
    content = store.get("boxes", key)
    if content is not None and (found := unpack_boxes(content, split)) is not None:
        return found, "kept"
    found = detect()
    store.put("boxes", key, pack_boxes(found))
    return found, "measured"


def detect_resumably(
    file: Path,
    split: Split,
    source: Source,
    work: Work,
    *,
    threads: int,
    progress: Progress,
    label: str = "evaluating",
) -> ev.Detections:
    """Return what a file finds in images; what is found on the way is kept for a resumed compile.

    Raises:
        CheckpointError, DataError: see `detect`.
    """
    name = f"boxes-{hashlib.sha256(file.read_bytes()).hexdigest()[:32]}"
    content, pause = work.load_bytes(name), Pause()

    def keep(found: Callable[[], ev.Detections]) -> None:
        if pause.is_over():
            with pause.measured():
                work.save_bytes(name, pack_boxes(found()))

    return ev.detect(
        file,
        split,
        imgsz=source.imgsz,
        form=source.form,
        threads=threads,
        progress=progress,
        label=label,
        known=None if content is None else unpack_boxes(content, split),
        keep=keep,
    )


def pack_boxes(found: ev.Detections) -> bytes:
    """Turn detections into bytes: plain arrays in a zip."""
    about = {
        "form": asdict(found.head),
        "skipped": [[each.index, each.why] for each in found.skipped],
        "seconds": [found.seconds_total, found.seconds_session],
    }
    arrays: dict[str, Any] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "index": np.asarray(list(found.boxes), np.int64),
        **ev.stack_boxes([*found.boxes.values()]),
    }
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def unpack_boxes(content: bytes, split: Split) -> ev.Detections | None:
    """Undo `pack_boxes`; None for bytes that do not fit the images."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays["about"].tobytes())
        index = map(int, arrays["index"])
        boxes = dict(zip(index, ev.unstack_boxes(arrays), strict=True))
        skipped = tuple(Unreadable(i, split.images[i], why) for i, why in about["skipped"])
        form = ev.OutputForm(**about["form"])
        if form.kpt_shape is not None:  # JSON has lists only
            keypoints, numbers = form.kpt_shape
            form = replace(form, kpt_shape=(keypoints, numbers))
        return ev.Detections(boxes, form, skipped, *about["seconds"])
    except (ValueError, KeyError, TypeError, LookupError, OSError):
        return None
