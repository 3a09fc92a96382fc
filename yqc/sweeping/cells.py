"""One cell of a sweep, a model and a pipeline, as a job of a process."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from yqc.compiler import Session
from yqc.errors import YqcError, first_line
from yqc.job.baseline import write_float_file
from yqc.job.keys import hash_code, model_key
from yqc.models.graph_files import file_sha256
from yqc.pipeline.base import Given
from yqc.pipeline.pipeline import Pipeline
from yqc.settings import SETTINGS
from yqc.store import user_store
from yqc.version import __version__
from yqc.workers import Opening

FLOAT = ".float"
"""Name of the float model's file until times are taken; it is ONNX, too."""


@dataclass(frozen=True)
class CellResult:
    """What came of a cell."""

    name: str
    """Of its files, `MODEL/PASSES`."""
    key: str = ""
    """The hash of all that decides the result; empty where the model could not be opened."""
    sha256: str = ""
    """Of the ONNX file."""
    failed: str = ""
    """Why there is no file."""
    imgsz: tuple[int, int] | None = None
    """Height and width; None where the file's time is not taken."""
    kept: bool = False
    """Whether an earlier run had done it."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the journal."""
        return asdict(self)


@dataclass(frozen=True)
class CellJob:
    """What makes the files of a cell, as plain values."""

    name: str
    stem: str
    """Of the files within their folder."""
    passes: str
    opening: Opening
    folder: Path
    known: dict[str, Any] | None = None
    """What the journal of an earlier run says of it, if its files are as they were."""
    brings_float: bool = False
    """Whether the float model's file is written, too: one cell of each model does."""

    def run(self, session: Session, folder: Path) -> CellResult:
        """Compile, unless it is done already; a failure is a result, too."""
        key = make_key(session, self.passes)
        runs = session.source.form is not None
        about: dict[str, Any] = {"name": self.name, "key": key}
        about["imgsz"] = session.source.imgsz if runs else None
        output = folder / f"{self.stem}.onnx"
        try:
            if runs and self.brings_float:
                settings = session.settings
                write_float_file(session.source, settings, user_store(), folder / FLOAT)
            known = self.known or {}
            if known.get("key") == key:
                told = {"sha256": known["sha256"], "failed": known["failed"]}
                return CellResult(**about, **told, kept=True)
            session.compile(self.passes, output=output, latency=False, html=False)
        except YqcError as error:
            return CellResult(**about, failed=first_line(error))
        except MemoryError:
            return self.fail("there is not enough memory")
        except OSError as error:
            return self.fail(f"{error}")
        return CellResult(**about, sha256=file_sha256(output))

    def fail(self, why: str) -> CellResult:
        """Return the result of a cell that could not run; a resumed sweep runs it again."""
        return CellResult(self.name, failed=why)


def make_key(session: Session, passes: str) -> str:
    """Return the hash of all that decides the files of a cell, but for the machine."""
    data, settings = session.data, session.settings
    pipeline = Pipeline.of(passes, session.registry)
    can_train = bool(data and data.train.images) and session.source.form is not None
    expanded = pipeline.expand(given=Given(settings.target, data is not None, can_train))
    about = {
        **model_key(session.source, settings),
        "versions": [__version__, platform.python_version(), torch.__version__],
        "settings": {name: str(getattr(settings, name)) for name in SETTINGS},
        "passes": str(pipeline),
        "code": sorted(hash_code(expanded)),
        "loaded": [sha256 for _, sha256 in pipeline.registry.files],
        "data": None if data is None else data.sha256,
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
