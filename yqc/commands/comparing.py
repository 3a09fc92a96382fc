"""`yqc compare`."""

from pathlib import Path
from typing import Annotated

import typer

from yqc.commands.arguments import JsonOption
from yqc.commands.common import echo, print_tables, show

CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")]


def compare_command(
    reports: Annotated[list[Path], typer.Argument(help="X.report.json, or folders of them.")],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The page; default: compare.html.")
    ] = Path("compare.html"),
    no_html: Annotated[bool, typer.Option("--no-html", help="Write no page.")] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also the bits of each layer, side by side.")
    ] = False,
    json: JsonOption = False,
    csv: CsvOption = False,
) -> None:
    """Compare compiles by their reports, and draw the front."""
    if json and csv:
        raise typer.BadParameter("choose --json or --csv", param_hint="--csv")
    from yqc.comparing import compare, save_page  # noqa: PLC0415
    from yqc.comparing.comparison import layers_tables  # noqa: PLC0415

    found = compare(reports)
    if not no_html:
        save_page(found, output)
    if csv:
        echo(found.to_csv(), nl=False)
    else:
        show(found, json=json)
    if layers and not (json or csv):
        print_tables("", layers_tables(found))
