"""`yqc lint`: check a file against the rules of a runtime."""

from pathlib import Path
from typing import Annotated

import typer

from yqc.commands.arguments import JsonOption
from yqc.commands.common import print_lines, show
from yqc.commands.completing import complete_target
from yqc.errors import EmitError

RuntimeOption = Annotated[
    str,
    typer.Option(
        "--target",
        autocompletion=complete_target,
        help="A target of compile (onnxruntime, openvino, tensorrt, portable, a device's file "
        "NPU.toml), or what else reads ONNX: opencv, mnn, ncnn.",
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
    """List what a runtime refuses, saturates or leaves unfused; fixes."""
    from yqc.interface import lint  # noqa: PLC0415

    found = lint(model, target=target)
    if json or not all_nodes or not found.findings:
        show(found, json=json)
    else:
        print_lines(
            f"{f.severity}: {f.node} ({f.op}): {f.what}; {f.fix} [{f.rule}]" for f in found.findings
        )
    if found.refused:
        what = f"{found.refused} nodes are refused or computed wrong"
        raise EmitError(f"{found.target} cannot run {model}: {what}")
