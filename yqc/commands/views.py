"""Print graphs, their differences and explanations; imports torch."""

from pathlib import Path

from yqc import report as rp
from yqc.commands.common import echo, print_lines, print_tables
from yqc.errors import PipelineError
from yqc.job.explain import explain
from yqc.job.staged import look, staged
from yqc.look import View, compare_views, pages, printers
from yqc.look.summary import require_file, summarize
from yqc.onnx_file import read_onnx
from yqc.pipeline.registry import Registry
from yqc.settings import Settings


def print_summary(model: Path, arch: Path | None, *, json: bool) -> None:
    """Print the summary of a file, without tracing anything."""
    require_file(model)
    if model.suffix != ".onnx":
        found = summarize(model, arch=arch)
        echo(rp.to_json(found), nl=False) if json else print_tables(rp.inspect_table(found))
        return
    view = look(model)
    about = {p.key: p.value for p in read_onnx(model, weights=False).metadata_props}
    if json:
        echo(rp.to_json({**printers.as_json(view), "metadata": about}), nl=False)
    else:
        print_tables(pages.onnx_summary(view, model.stat().st_size, about))


def print_graph(model: Path, settings: Settings, form: str) -> None:
    """Print a whole graph."""
    _print_view(look(model, settings), form)


def print_node(model: Path, settings: Settings, node: str, around: int, form: str | None) -> None:
    """Print one node and those around it."""
    view = look(model, settings)
    item, near = view.find(node), view.around(node, around)
    if form is None:
        print_tables(pages.node_page(item, view))
        print_lines(pages.graph_lines(near, item.name))
    elif form == "code":
        raise PipelineError("--as code prints a whole graph; leave --node out")
    else:
        _print_view(near, form, item.name)


def _print_view(view: View, form: str, mark: str | None = None) -> None:
    if form == "text":
        echo(view.text)
    elif form == "code":
        if view.code is None:
            raise PipelineError(f"{view.title} holds no Python; --as text prints its nodes")
        echo(view.code, nl=False)
    elif form == "table":
        print_tables(pages.nodes_table(view))
    elif form == "dot":
        echo(printers.as_dot(view, {mark: "#ffd54a"} if mark else None), nl=False)
    else:
        echo(rp.to_json(printers.as_json(view)), nl=False)


def load_sides(
    a: Path,
    b: Path | None,
    passes: list[str],
    settings: Settings,
    registry: Registry,
    *,
    quiet: bool,
) -> tuple[View, View]:
    """Return the two graphs to compare: two files, or one model under two pipelines."""
    if b is not None:
        files = [p.suffix == ".onnx" for p in (a, b)]
        before, after = (
            look(path, None if is_onnx else settings, emitted=any(files))
            for path, is_onnx in zip((a, b), files, strict=True)
        )
        return before, after
    first, second = ["", *passes][-2:]
    progress = rp.make_progress(quiet=quiet)
    before, after = (staged(a, text, settings, registry, progress) for text in (first, second))
    return before, after


def print_diff(a: View, b: View, *, context: int, params: bool, counts: bool, json: bool) -> None:
    """Print the differences of two graphs."""
    found = compare_views(a, b, context=context, params=params)
    if json:
        echo(rp.to_json(found), nl=False)
    else:
        print_tables(pages.diff_head(found))
        if not counts:
            print_lines(["", *pages.diff_lines(found)])
        for table in pages.diff_params(found):
            print_tables("", table)


def print_explained(
    passes: str, model: Path, settings: Settings, registry: Registry, form: str, *, quiet: bool
) -> None:
    """Print what a pass would do and refuses."""
    progress = rp.make_progress(quiet=quiet)
    found = explain(passes, model, settings, registry, progress, draw=form == "dot")
    if form == "json":
        echo(rp.to_json(found), nl=False)
    elif form == "dot":
        echo("".join(one.drawing or "" for one in found), nl=False)
    else:
        print_tables(pages.explain_page(found))
