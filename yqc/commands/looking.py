"""`yqc passes`, `inspect`, `diff`, `explain`, `new-pass`: look at passes and graphs."""

from pathlib import Path
from typing import Annotated

import typer

from yqc.commands.arguments import (
    Chosen,
    FormChoice,
    JsonOption,
    LoadOption,
    QuietOption,
    with_settings,
)
from yqc.commands.common import echo, find_passes, show
from yqc.commands.completing import complete_pipeline
from yqc.settings import DATA, MODEL


def passes_command(
    name: Annotated[
        str | None, typer.Argument(help="One pass, in full.", autocompletion=complete_pipeline)
    ] = None,
    *,
    load: LoadOption = None,
    json: JsonOption = False,
) -> None:
    """List recipes and passes, or explain one with its options."""
    from yqc import report as rp  # noqa: PLC0415
    from yqc.commands import listing  # noqa: PLC0415

    registry = find_passes(load)
    found: rp.Shown
    found = listing.listings(registry) if name is None else listing.describe_pass(registry, name)
    show(found, json=json)


@with_settings(*MODEL)
def inspect_command(
    model: Annotated[Path, typer.Argument(help="Checkpoint, graph file, snapshot or ONNX file.")],
    *,
    form: Annotated[FormChoice | None, typer.Option("--as", help="Print the whole graph.")] = None,
    node: Annotated[str | None, typer.Option(help="A node, or a module's path.")] = None,
    around: Annotated[int, typer.Option(min=0, help="With --node: how many steps from it.")] = 1,
    json: JsonOption = False,
    chosen: Chosen,
) -> None:
    """Summarise a model, or print its graph, or one node of it."""
    from yqc.commands import views  # noqa: PLC0415
    from yqc.interface import inspect  # noqa: PLC0415
    from yqc.look import NodeView, View  # noqa: PLC0415

    wanted = FormChoice.json if json and node is not None else form
    graph = node is None and wanted is not None
    found = inspect(model, graph=graph, node=node, around=around, settings=chosen.settings())
    if isinstance(found, NodeView):
        views.print_node(found, wanted and wanted.value)
    elif isinstance(found, View) and wanted is not None:
        views.print_view(found, wanted.value)
    else:
        show(found, json=json)


@with_settings(*MODEL, *DATA, "target")
def diff_command(
    a: Annotated[Path, typer.Argument(help="Checkpoint, graph file, snapshot or ONNX file.")],
    b: Annotated[Path | None, typer.Argument(help="Another; or give --passes.")] = None,
    *,
    passes: Annotated[
        list[str] | None, typer.Option(help="Pipeline; twice, to compare two.")
    ] = None,
    params: Annotated[bool, typer.Option("--params", help="Weights and bytes too.")] = False,
    counts: Annotated[bool, typer.Option("--counts", help="Only how many ops.")] = False,
    context: Annotated[int, typer.Option("-U", "--context", min=0, help="Lines around.")] = 3,
    json: JsonOption = False,
    quiet: QuietOption = False,
    chosen: Chosen,
) -> None:
    """Compare two graphs, or what two pipelines make of one."""
    registry = chosen.registry
    asked = passes or []
    if b is None and not 1 <= len(asked) <= 2:  # noqa: PLR2004  # before and after
        raise typer.BadParameter("give a second file, or --passes once or twice")
    if b is not None and asked:
        raise typer.BadParameter("two files are compared as they are; leave --passes out")

    from yqc.commands import views  # noqa: PLC0415
    from yqc.interface import diff  # noqa: PLC0415
    from yqc.report import make_progress  # noqa: PLC0415

    found = diff(
        *(a, b),
        passes=asked,
        params=params,
        context=context,
        registry=registry,
        settings=chosen.settings(),
        progress=make_progress(quiet=quiet),
    )
    views.print_counts(found) if counts and not json else show(found, json=json)


@with_settings(*MODEL, *DATA, "target")
def explain_command(
    passes: Annotated[
        str,
        typer.Argument(
            metavar="PASS", help="A pass, with its options.", autocompletion=complete_pipeline
        ),
    ],
    model: Annotated[Path, typer.Argument(help="Checkpoint, graph file or snapshot.")],
    *,
    form: Annotated[FormChoice | None, typer.Option("--as", help="text, dot or json.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    chosen: Chosen,
) -> None:
    """Explain what a pass would do to a model, and what it refuses."""
    registry = chosen.registry
    wanted = FormChoice.json if json else form or FormChoice.text
    if wanted not in {FormChoice.text, FormChoice.dot, FormChoice.json}:
        raise typer.BadParameter("text, dot or json", param_hint="--as")

    from yqc.interface import explain  # noqa: PLC0415
    from yqc.report import make_progress  # noqa: PLC0415

    found = explain(
        *(passes, model),
        draw=wanted == FormChoice.dot,
        registry=registry,
        settings=chosen.settings(),
        progress=make_progress(quiet=quiet),
    )
    if wanted == FormChoice.dot:
        echo("".join(one.drawing or "" for one in found.passes), nl=False)
    else:
        show(found, json=wanted == FormChoice.json)


def new_pass_command(
    name: Annotated[str, typer.Argument(help="Of the pass, such as my-pass.")],
    *,
    folder: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.")] = Path(),
    package: Annotated[bool, typer.Option("--package", help="Make it installable too.")] = False,
) -> None:
    """Write a new pass and its test from a template."""
    from yqc.pipeline import new_pass  # noqa: PLC0415

    written = new_pass.new_pass(name, folder, package=package, registry=find_passes(None))
    for path in written:
        echo(str(path))
