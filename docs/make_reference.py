# ruff: noqa: INP001
"""Write the pages of `docs/reference` out of the program: commands, passes, recipe, report, Python.

    python docs/make_reference.py

`tests/test_schemas.py` holds the pages to what this writes (`make schemas`).
"""

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any

import typer

import yqc
from yqc.cli import app
from yqc.commands.listing import describe_pass
from yqc.pipeline.registry import Registry
from yqc.report import PassHelp

REFERENCE = Path(__file__).parent / "reference"
GROUPS = {
    "Compile and compare": (
        *("compile", "Session", "Result", "Settings", "SettingError"),
        *("tune", "Budget", "sweep", "compare", "Comparison"),
    ),
    "Look and measure": ("evaluate", "bench", "lint", "inspect", "diff", "explain", "text"),
}
"""Names of `yqc` that come first in the Python reference; those of passes and errors follow."""


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


def cell(text: object) -> str:
    """Return text as a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    for row in (header, ("---",) * len(header), *rows):
        yield f"| {' | '.join(map(cell, row))} |"


def page(title: str, lead: str, lines: Iterator[str]) -> str:
    """Return the text of a page."""
    return "\n".join((f"# {title}", "", lead, "", *lines)).rstrip() + "\n"


def code(text: object) -> str:
    """Return text as code, or nothing for nothing."""
    return "" if text in {"", None} else f"`{text}`"


def commands() -> str:
    """Return the page of commands, out of the command line's own tree."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("yqc", ["passes"])
    names = group.list_commands(context)
    lines = (
        line for name in names for line in command_lines(name, group.get_command(context, name))
    )
    return page(
        "Commands",
        "Made from the program; `yqc COMMAND --help` shows the same. Results go to stdout, "
        "progress and diagnostics to stderr. Exit status: 0 done, 1 failed (one message says why), "
        "2 the command line is wrong, 3 a budget is not kept.",
        lines,
    )


def command_lines(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401  # typer has no public type
    """Yield the section of a command."""
    yield from (f"## yqc {name}", "", *(command.help or "").strip().splitlines(), "")
    rows: list[tuple[object, ...]] = []
    for param in command.params:
        if param.name == "help" or getattr(param, "hidden", False):
            continue
        option = param.param_type_name == "option"
        names = ", ".join(f"`{one}`" for one in param.opts) if option else f"`{param.name.upper()}`"
        rows.append((names, default_of(param), param.help or ""))
    if rows:
        yield from table(("argument", "default", ""), rows)
        yield ""


def default_of(param: Any) -> str:  # noqa: ANN401  # see command_lines
    """Return the default of an argument as code, if it has one."""
    default = param.default
    return "" if callable(default) or default in {None, False, ()} else code(default)


def passes() -> str:
    """Return the page of built-in passes and recipes."""
    registry = Registry.default()
    found = [n for n, one in sorted(registry.found.items()) if one.origin.startswith("yqc_passes")]
    helps = [describe_pass(registry, name) for name in found]
    lines = (line for about in helps for line in pass_lines(about))
    return page(
        "Passes and recipes",
        "Made from the built-in passes; `yqc passes NAME` shows the same. A recipe stands for the "
        "passes under *expands to*, here for onnxruntime with data; those whose result the graph "
        "has already are left out.",
        lines,
    )


def pass_lines(about: PassHelp) -> Iterator[str]:
    """Yield the section of a pass."""
    first, _, rest = about.doc.partition("\n")
    yield from (f"## {about.name}", "", sentence(first.removeprefix(f"{about.name}: ")), "")
    if rest.strip():
        yield from ("```text", *rest.strip("\n").splitlines(), "```", "")
    if about.expands_to:
        yield from (f"Expands to `{about.expands_to}`.", "")
    states = {"requires": about.requires, "excludes": about.excludes, "provides": about.provides}
    if told := [f"{k} {', '.join(map(code, v))}" for k, v in states.items() if v]:
        yield from (sentence("; ".join(told) + "."), "")
    if about.options:
        rows = [(code(o.name), code(o.type), code(o.default), o.doc) for o in about.options]
        yield from table(("option", "type", "default", ""), rows)
        yield ""


def sentence(text: str) -> str:
    """Begin a text with a capital."""
    return text[:1].upper() + text[1:]


def recipe() -> str:
    """Return the page of the keys of a recipe file."""
    schema = json.loads((REFERENCE.parent / "recipe.schema.json").read_text(encoding="utf-8"))
    return page(
        "Recipe file",
        "A compile writes `NAME.recipe.toml` beside the ONNX file. `yqc compile MODEL --config "
        "NAME.recipe.toml` makes the same bytes again; options on the command line replace single "
        "keys. A key may be left out. The schema is "
        "[recipe.schema.json](../recipe.schema.json).",
        table(("key", "type", "default", ""), key_rows(schema)),
    )


def report() -> str:
    """Return the page of the keys of a report."""
    schema = json.loads((REFERENCE.parent / "report.schema.json").read_text(encoding="utf-8"))
    parts = [("The report", schema), *schema["$defs"].items()]
    return page(
        "Report",
        "A compile writes `NAME.report.json` beside the ONNX file, and `yqc compile --json` prints "
        "it. Bytes are counts, accuracies fractions of 1, times milliseconds unless a key says "
        "otherwise, every ratio before / after. `null` stands for what was not measured. The "
        "schema is [report.schema.json](../report.schema.json).",
        (line for name, part in parts for line in part_lines(name, part)),
    )


def part_lines(name: str, part: dict[str, Any]) -> Iterator[str]:
    """Yield the section of one part of the report."""
    yield from (f"## {name}", "", *part.get("description", "").strip().splitlines(), "")
    yield from table(("key", "type", ""), [(row[0], row[1], row[3]) for row in key_rows(part)])
    yield ""


def key_rows(schema: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return key, type, default and description of the keys of an object."""
    return [
        (
            code(key),
            type_of(about),
            code(json.dumps(about["default"])) if about.get("default") is not None else "",
            about.get("description", ""),
        )
        for key, about in schema.get("properties", {}).items()
    ]


def type_of(about: dict[str, Any]) -> str:  # noqa: PLR0911  # a return for each form
    """Describe a type of a JSON schema in a few words."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(type_of(one) for one in about["anyOf"]))
    if "enum" in about:
        return ", ".join(f"`{one}`" for one in about["enum"])
    if "const" in about:
        return code(about["const"])
    kind = str(about.get("type", "any"))
    if kind == "array":
        items = about.get("items") or next(iter(about.get("prefixItems", [])), None)
        return f"list of {type_of(items)}" if items else "list"
    if kind == "object" and isinstance(about.get("additionalProperties"), dict):
        return f"object of {type_of(about['additionalProperties'])}"
    return kind


def python() -> str:
    """Return the page of public names; the site shows signatures and docstrings below each."""
    first = [name for names in GROUPS.values() for name in names]
    rest = [name for name in yqc.__all__ if name not in first and name != "__version__"]
    errors = [name for name in rest if name.endswith("Error")]
    groups = GROUPS | {"Passes and graphs": [n for n in rest if n not in errors], "Errors": errors}
    return page(
        "Python",
        "The public names of `yqc`, and the packages that passes and their tests use. "
        "Signatures and docstrings stand here on the site; in a checkout, `help(yqc.compile)` "
        "shows them.",
        (line for title, names in groups.items() for line in name_lines(title, "yqc", names)),
    ) + "".join(f"\n{line}" for line in packages())


def packages() -> Iterator[str]:
    """Yield the sections of public packages below `yqc`."""
    for package in ("yqc.rewrite", "yqc.testing"):
        names = [n for n in importlib.import_module(package).__all__ if n != "nets"]
        yield from name_lines(package, package, names)


def name_lines(title: str, package: str, names: Sequence[str]) -> Iterator[str]:
    """Yield the section of some names: a table of their first lines, and a reference to each."""
    home = importlib.import_module(package)
    yield from (f"## {title}", "")
    rows = [
        (code(name), (getdoc(getattr(home, name)) or "").partition("\n\n")[0]) for name in names
    ]
    yield from (*table(("name", ""), rows), "")
    for name in names:
        yield from (f"::: {package}.{name}", "")


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "passes.md": passes,
    "recipe.md": recipe,
    "report.md": report,
    "python.md": python,
}

if __name__ == "__main__":
    main()
