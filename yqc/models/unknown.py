"""Find the classes in a pickled model that nothing stands for, and show how to register twins."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from yqc.errors import UnknownBlockError
from yqc.models.blocks.base import Block
from yqc.models.pickles.read import Inert, shown
from yqc.models.register import find_twin
from yqc.models.torch_modules import FORMS, QUANTIZERS, TORCH, plain_form

SHOWN_AT_MOST = 20
"""Classes in one message; forks of a project add a handful."""

LOSS = re.compile(r"(Loss|Criterion)(?![a-z])")
"""In the names of losses."""

BLOCK = """\
class {twin}(torch.nn.Module):
    def forward(self, x): ...  # weights and settings come by name"""

HEAD = """\
class {twin}(torch.nn.Module):
    layout = "yolov8"  # decoded to [N, 4 + classes, cells]
    def forward(self, maps): ...  # a list of maps"""


def children(tree: Inert) -> Mapping[str, Any]:
    """Return the modules that a pickled module holds, by name."""
    found = tree.state.get("_modules")
    return found if isinstance(found, Mapping) else {}


def is_loss(tree: object) -> bool:
    """Whether a pickled object is a loss, which serves training only."""
    if not isinstance(tree, Inert):
        return False
    home, _, name = tree.class_path.rpartition(".")
    parts = {"loss", "losses", "criterion", "criterions"} & set(home.split("."))
    return bool(parts) or LOSS.search(name) is not None


def left_out_of(tree: Inert) -> frozenset[str]:
    """Return the names of the children of a pickled module that its twin leaves out."""
    twin = find_twin(tree.class_path, children(tree))
    return twin.left_out if twin is not None and issubclass(twin, Block) else frozenset()


def walk_modules(layers: Iterable[Inert]) -> Iterator[tuple[str, Inert]]:
    """Yield the pickled modules in and below some layers, each object once, with their paths.

    Losses, quantizers and what serves training only are left out: no forward of a detector runs
    them.
    """
    seen: set[int] = set()
    todo = [(f"model.{i}", layer) for i, layer in enumerate(layers)]
    while todo:
        path, tree = todo.pop(0)
        gone = is_loss(tree) or QUANTIZERS.fullmatch(tree.class_path) is not None
        if id(tree) in seen or gone:
            continue
        seen.add(id(tree))
        yield path, tree
        below = [(k, c) for k, c in children(tree).items() if k not in left_out_of(tree)]
        todo[:0] = [(f"{path}.{name}", c) for name, c in below if isinstance(c, Inert)]


def has_twin(class_path: str) -> bool:
    """Whether a module of this class can be rebuilt."""
    return find_twin(class_path) is not None or plain_form(class_path).removeprefix(TORCH) in FORMS


def refuse_unknown(layers: Sequence[Inert]) -> None:
    """Check that there is a twin for every class in a model.

    Raises:
        UnknownBlockError: naming all classes without one, where each occurs first, and the lines
            that register them.
    """
    places: dict[str, str] = {}
    for path, tree in walk_modules(layers):
        if not has_twin(tree.class_path):
            places.setdefault(tree.class_path, path)
    if not places:
        return
    named = [f"{shown(path)} is a {shown(kind)}" for kind, path in places.items()]
    rest = len(named) - SHOWN_AT_MOST
    said = ", ".join(named[:SHOWN_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
    head = layers[-1].class_path
    raise UnknownBlockError(
        f"{said}, for which yqc has no twin; nothing of it was run. Register"
        f" {'one' if len(named) == 1 else 'twins'}, in a file for --load:\n"
        f"{how_to_register(*places, head=head)}"
    )


def how_to_register(*class_paths: str, head: str = "") -> str:
    """Return the lines that register twins of classes; a head's twin says what its output is."""
    lines = ["import torch, yqc"]
    for path in class_paths:
        twin = f"{path.rpartition('.')[2]}Twin"
        lines += (HEAD if path == head else BLOCK).format(twin=shown(twin)).split("\n")
        lines.append(f'yqc.register_block("{shown(path)}", {shown(twin)})')
    return "\n".join(f"    {line}" for line in lines)
