"""`yqc cache`: show, check and clear what is kept between runs."""

from pathlib import Path
from typing import Annotated

import typer

from yqc.commands.arguments import JsonOption
from yqc.commands.common import show
from yqc.errors import OutputError

KINDS = {
    "float": "float models, as ONNX",
    "boxes": "detections of float models",
    "work": "interrupted compiles",
}


def cache_command(
    *,
    folder: Annotated[
        Path | None, typer.Option(help="Another store, such as X.cache beside an output.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read every entry; exit status 1 if one is damaged.")
    ] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all entries.")] = False,
    trim: Annotated[
        str | None, typer.Option(help="Such as 1GB: remove the least recently used beyond it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what is kept between runs, check it, and clear it."""
    from yqc import report as rp  # noqa: PLC0415
    from yqc.store import Store, user_store  # noqa: PLC0415

    store = user_store() if folder is None else Store(folder)
    if clear:
        store.remove()
    if trim is not None:
        store.trim(_bytes_of(trim))
    entries = store.entries()
    damaged = store.damaged() if check else []
    rows = [
        rp.CacheRow(
            kind=kind,
            what=what,
            entries=sum(entry.kind == kind for entry in entries),
            bytes=sum(entry.bytes for entry in entries if entry.kind == kind),
        )
        for kind, what in KINDS.items()
    ]
    found = rp.CacheListing(
        path=str(store.folder),
        bound=store.bound,
        bytes=sum(entry.bytes for entry in entries),
        kinds=tuple(rows),
        damaged=tuple(map(str, damaged)),
    )
    show(found, json=json)
    if damaged:
        raise OutputError(f"{len(damaged)} entries are damaged, such as {damaged[0]}; --clear")


def _bytes_of(text: str) -> int:
    """Read a number of bytes: 500MB, 1GB, 1000."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1, "": 1}
    for unit, factor in units.items():
        number = text.upper().removesuffix(unit).strip() if unit else text
        if text.upper().endswith(unit) and number.isdecimal():
            return int(number) * factor
    raise typer.BadParameter(f"{text!r} is no size; write 500MB or 1GB", param_hint="--trim")
