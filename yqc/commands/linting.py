"""`yqc lint`: check a file against the rules of a runtime."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yqc.commands.arguments import JsonOption, TargetOption
from yqc.commands.common import echo, print_lines
from yqc.errors import EmitError
from yqc.targets import find_target

if TYPE_CHECKING:
    from yqc.linting import Finding

SHOWN = 4
"""Nodes that a rule's line names: four names of a YOLO graph fill a line of 80."""


def lint_command(
    model: Annotated[Path, typer.Argument(help="Any ONNX file.")],
    *,
    target: TargetOption = None,
    all_nodes: Annotated[
        bool, typer.Option("--all", help="A line a node, instead of a line a rule.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List what a runtime will refuse, saturate or leave unfused, node by node with the fix."""
    from yqc import report as rp  # noqa: PLC0415
    from yqc.linting import lint as look  # noqa: PLC0415

    name = find_target(target or "onnxruntime").name
    found = look(model, name)
    if json:
        echo(rp.to_json({"model": str(model), "target": name, "findings": found}), nl=False)
    elif not found:
        echo(f"{model}: nothing that {name} would mind")
    else:
        print_lines(lines(found, every=all_nodes))
    if any(finding.severity == "error" for finding in found):
        nodes = sum(finding.severity == "error" for finding in found)
        raise EmitError(f"{name} cannot run {model}: {nodes} nodes are not supported")


def lines(found: "list[Finding]", *, every: bool) -> list[str]:
    """Write findings as text: one a node, or one a rule with the first nodes it is about."""
    if every:
        return [f"{f.severity}: {f.node} ({f.op}): {f.what}; {f.fix} [{f.rule}]" for f in found]
    written = []
    for (severity, rule), group in itertools.groupby(found, lambda f: (f.severity, f.rule)):
        same = list(group)
        names = ", ".join(f.node for f in same[:SHOWN])
        more = f" and {len(same) - SHOWN} more" if len(same) > SHOWN else ""
        written += [
            f"{severity}: {len(same)} x {same[0].op}: {same[0].what} [{rule}]",
            f"    at  {names}{more}",
            f"    fix {same[0].fix}",
        ]
    return written
