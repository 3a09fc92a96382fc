"""`yqc lint`: check a file against the rules of a runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yqc.commands.arguments import JsonOption
from yqc.commands.common import echo, print_lines
from yqc.errors import EmitError

if TYPE_CHECKING:
    from yqc.linting import Finding

RuntimeOption = Annotated[
    str,
    typer.Option(
        "--target",
        help="A target of compile (onnxruntime, openvino, tensorrt, portable), or what else reads "
        "ONNX: opencv, mnn, ncnn.",
    ),
]


def lint_command(
    model: Annotated[Path, typer.Argument(help="Any ONNX file.")],
    *,
    target: RuntimeOption = "onnxruntime",
    all_nodes: Annotated[
        bool, typer.Option("--all", help="A line a node, instead of a line a rule.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List what a runtime will refuse, saturate or leave unfused, node by node with the fix."""
    from yqc import report as rp  # noqa: PLC0415
    from yqc.linting import find_runtime  # noqa: PLC0415
    from yqc.linting import lint as look  # noqa: PLC0415

    name = find_runtime(target)
    found = look(model, name)
    if json:
        echo(rp.to_json({"model": str(model), "target": name, "findings": found}), nl=False)
    elif not found:
        echo(f"{model}: nothing that {name} would mind")
    else:
        print_lines(lines(found, every=all_nodes))
    if any(finding.severity == "error" for finding in found):
        nodes = sum(finding.severity == "error" for finding in found)
        raise EmitError(f"{name} cannot run {model}: {nodes} nodes are refused or computed wrong")


def lines(found: "list[Finding]", *, every: bool) -> list[str]:
    """Write findings as text: one a node, or one a rule with the first nodes it is about."""
    if every:
        return [f"{f.severity}: {f.node} ({f.op}): {f.what}; {f.fix} [{f.rule}]" for f in found]
    from yqc.linting import count_ops, group_findings, name_nodes  # noqa: PLC0415

    written = []
    for group in group_findings(found):
        one = group[0]
        written += [
            f"{one.severity}: {count_ops(group)}: {one.what} [{one.rule}]",
            f"    at  {name_nodes(group)}",
            f"    fix {one.fix}",
        ]
    return written
