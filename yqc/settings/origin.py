"""What a recipe was written for."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class HashedFile:
    """A file, or a data set, and the SHA-256 of what was read of it."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Plugin:
    """Something that a compile used and that is not yqc's own."""

    kind: str
    """`pass`, `criterion`, `range method`, `observer`, `weight scheme` or `target`."""
    name: str
    origin: str
    """Package and version, or the path of the file that `--load` gave."""
    file: str
    """That has it; of a package, within the package."""
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """What a recipe was written for."""

    version: str = ""
    """Of yqc."""
    model: HashedFile | None = None
    data: HashedFile | None = None
    loaded: tuple[HashedFile, ...] = ()
    """Python files given by `--load`."""
    target_file: HashedFile | None = None
    """The device's file that `target` names."""
    plugins: tuple[Plugin, ...] = ()
    """What is not yqc's own."""

    def changes(self, now: "Provenance") -> tuple[str, ...]:
        """Describe in sentences what is other now; nothing where the recipe records nothing."""
        if not self.version:
            return ()
        said = [f"version {self.version} of yqc"] if self.version != now.version else []
        pairs = [(self.model, now.model, "model"), (self.data, now.data, "data set")]
        pairs.append((self.target_file, now.target_file, "file of the target"))
        for was, found, what in pairs:
            if was is not None and (found is None or was.sha256 != found.sha256):
                said.append(f"another {what}, {was.path} (SHA-256 {was.sha256[:12]})")
        if [f.sha256 for f in self.loaded] != [f.sha256 for f in now.loaded]:
            names = ", ".join(file.path for file in self.loaded) or "none"
            said.append(f"other --load files ({names})")
        known = {(one.kind, one.name): one for one in now.plugins}
        for one in self.plugins:
            other = known.get((one.kind, one.name))
            if other is None or other.sha256 != one.sha256:
                what = f"{one.kind} {one.name!r} of {one.origin}"
                said.append(f"another {what} (SHA-256 {one.sha256[:12]} of {one.file})")
        return tuple(f"the recipe was written for {one}: results can differ" for one in said)

    def advise(self, given: Collection[str] = ()) -> str:
        """Say which files and packages are needed; `given` are hashes of files that were loaded.

        Empty where none is missing.
        """
        files = [f"--load {one.path}" for one in self.loaded if one.sha256 not in given]
        own = {one.origin for one in self.plugins if one.sha256 not in given}
        packages = sorted(own - {one.path for one in self.loaded})
        needs = " and ".join(files + [f"the package {one}" for one in packages])
        return f"; it needs {needs}" if needs else ""
