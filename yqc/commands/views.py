"""Print graphs in the forms of `--as`; imports torch."""

from yqc.commands.common import echo, print_tables, show
from yqc.errors import PipelineError
from yqc.look import Diff, NodeView, View, pages, printers


def print_view(view: View, form: str, mark: str | None = None) -> None:
    """Print a graph as text, code, table, dot or json; in a drawing one node is marked."""
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
        show(view, json=True)


def print_node(found: NodeView, form: str | None) -> None:
    """Print a node and those around it."""
    if form is None:
        show(found, json=False)
    elif form == "code":
        raise PipelineError("--as code prints a whole graph; leave --node out")
    else:
        print_view(found.near, form, found.node.name)


def print_counts(found: Diff) -> None:
    """Print how often each op occurs, and what else was counted, without the nodes."""
    print_tables(pages.diff_head(found), *(pages.diff_params(found)[1:]))
