"""The version of yqc, as the package's metadata has it."""

__version__ = "0.1.0"


def describe_code() -> str:
    """Return the version, and the beginning of a hash of the code."""
    import hashlib  # noqa: PLC0415  # the command line starts with this module
    from pathlib import Path  # noqa: PLC0415

    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return f"{__version__} {digest.hexdigest()[:8]}"
