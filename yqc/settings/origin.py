"""What a recipe was written for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HashedFile:
    """A file, or a data set, and the SHA-256 of what was read of it."""

    path: str
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
        return tuple(f"the recipe was written for {one}: results can differ" for one in said)
