"""`yqc new-pass`: a pass and its test from a template, which pass at once."""

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from yqc.errors import OutputError, PipelineError
from yqc.pipeline.registry import Registry


def new_pass(name: str, folder: Path, *, package: bool, registry: Registry) -> tuple[Path, ...]:
    """Write a pass, its test, and with `package` a pyproject.toml that makes them installable.

    The folder is made if it is not there; no file in it is overwritten. Returns the files written.

    Raises:
        PipelineError: the name is taken, or is no name of a pass.
        OutputError: a file is there already, or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise PipelineError(f"{name!r} is no name of a pass: write small letters, `my-pass`")
    if name in registry.found:
        taken = registry.found[name].origin
        raise PipelineError(f"there is a pass {name!r} already, from {taken}; choose another name")
    module = name.replace("-", "_")
    values = {
        "name": name,
        "module": module,
        "class_name": "".join(word.capitalize() for word in name.split("-")),
        "distribution": f"yqc-{name}",
    }
    wanted = {f"{module}.py": "pass.py.txt", f"test_{module}.py": "test.py.txt"}
    wanted |= {"pyproject.toml": "pyproject.toml.txt"} if package else {}
    paths = {folder / file: template for file, template in wanted.items()}
    for path in paths:
        if path.exists():
            raise OutputError(f"{path} is there already; nothing was written")
    templates = files("yqc.pipeline") / "templates"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in paths.items():
            text = Template((templates / template).read_text(encoding="utf-8"))
            path.write_text(text.substitute(values), encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
    return tuple(paths)
