"""The folder of a sweep's results, and the journal of what is done, a line of JSON a step.

A line is written when its files are in place, and flushed to the disk. A line that a kill cut short
is left out.
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yqc.errors import OutputError
from yqc.models.graph_files import file_sha256
from yqc.store.folders import open_work_folder

INNER = ".sweep"
"""Folder of the journal in the folder of results."""
SUFFIXES = (".onnx", ".report.json", ".recipe.toml")
"""Endings of the files of a cell."""


@dataclass
class SweepFolder:
    """The folder of results.

    Args:
        output: its path.
        resume: whether the journal of an earlier sweep counts.

    Raises:
        OutputError: it cannot be written.
    """

    output: Path
    resume: bool
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What came of each cell, by the name of its files."""
    timed: dict[str, str] = field(default_factory=dict)
    """The cells whose time was taken, each with why there is none, or an empty text."""
    older: set[str] = field(default_factory=set)
    """Cells of earlier sweeps whose files may still be there."""

    def __post_init__(self) -> None:
        before = self._read()
        open_work_folder(self.output, INNER, resume=self.resume)
        for line in before:
            self.older |= {line["name"]} if "name" in line else {*line.get("older", ())}
            if self.resume and "key" in line:
                self.done[line["name"]] = line
            elif self.resume and "timed" in line:
                self.timed[line["name"]] = line["timed"]
        if not self.resume and self.older:
            self.note({"older": sorted(self.older)})

    @property
    def journal(self) -> Path:
        """The journal's path."""
        return self.output / INNER / "journal.jsonl"

    def note(self, line: dict[str, Any]) -> None:
        """Append a line to the journal.

        Raises:
            OutputError: that is not possible.
        """
        try:
            with self.journal.open("a+b") as file:
                if file.tell():  # a line that a kill cut short ends here
                    file.seek(-1, os.SEEK_END)
                    file.write(b"\n" if file.read() != b"\n" else b"")
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.journal}: {error.strerror}") from error

    def find_done(self, name: str) -> dict[str, Any] | None:
        """Return what the journal says of a cell, if it failed or its files are as they were."""
        known = self.done.get(name)
        if known is None or known.get("failed"):
            return known
        files = [self.output / f"{name}{suffix}" for suffix in SUFFIXES]
        if not all(path.is_file() for path in files):
            return None
        return known if file_sha256(files[0]) == known.get("sha256") else None

    def make(self, folder: Path) -> Path:
        """Make a folder of results.

        Raises:
            OutputError: that is not possible.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror}") from error
        return folder

    def replace(self, path: Path, text: str) -> None:
        """Write a file whole or not at all.

        Raises:
            OutputError: that is not possible.
        """
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(text, encoding="utf-8", newline="\n")
            partial.replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error

    def remove_others(self, names: Iterable[str]) -> None:
        """Remove the files of earlier sweeps that are not of these cells."""
        for name in self.older - {*names}:
            for suffix in SUFFIXES:
                (self.output / f"{name}{suffix}").unlink(missing_ok=True)
            folder = (self.output / name).parent
            if folder.is_dir() and not any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self) -> list[dict[str, Any]]:
        try:
            lines = self.journal.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                one = json.loads(line)
            except ValueError:
                continue
            if isinstance(one, dict):
                found.append(one)
        return found
