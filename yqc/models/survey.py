"""Read the facts of a checkpoint with unknown blocks, without rebuilding any module."""

from collections import Counter
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from yqc.errors import CheckpointError
from yqc.facts import HasFacts, ModelFacts
from yqc.models.content import children, class_names, find_content, training_size
from yqc.models.load import named_error, read_any
from yqc.models.pickles.globals import foreign
from yqc.models.pickles.read import Inert
from yqc.models.register import find_twin, how_to_register, known
from yqc.models.torch_modules import FORMS, TORCH, plain_form

MOST_LEVELS = 8
"""Strides that a head may record: released heads have at most 4."""


@dataclass(frozen=True, kw_only=True)
class Survey(HasFacts):
    """Facts and blocks of a model that cannot be built; strides as its head records them."""

    sha256: str
    """Of the file."""
    blocks: dict[str, int]
    """Name of a project's or an unknown class -> how many modules of it there are."""
    unknown: tuple[str, ...]
    """Paths of the classes without a twin."""

    @property
    def advice(self) -> str:
        """How to make the unknown classes known."""
        return (
            "yqc has no twin for what is unknown; register one, in a file for --load:\n"
            + how_to_register(*self.unknown)
        )


def survey(path: Path) -> Survey:
    """Look into a checkpoint whose blocks yqc need not know; nothing of it is imported or run.

    Classes of other packages are read as data here. Functions of Python's own library and the like
    are refused as in loading.

    Raises:
        CheckpointError: the file holds no YOLO model, or is damaged.
        ForbiddenGlobalError: it names something that is not allowed in a checkpoint.
        UnsupportedTaskError: it is not a detector.
    """
    outsiders: dict[str, None] = {}

    def readable(class_path: str) -> bool:
        if known(class_path):
            return True
        outside = foreign(class_path) and all(map(str.isidentifier, class_path.split(".")))
        if outside:
            outsiders[class_path] = None
        return outside

    try:
        top, sha256 = read_any(path, readable)
        content = find_content(top)
    except CheckpointError as error:
        raise named_error(path, error) from error
    counts = count_blocks(content.layers)
    blocks: Counter[str] = Counter()
    for kind, n in counts.items():
        if kind in outsiders or not kind.startswith(TORCH):
            blocks[kind.rpartition(".")[2]] += n
    stored = content.names
    return Survey(
        sha256=sha256,
        facts=ModelFacts(
            family=content.family,
            name=content.name,
            names=class_names(stored, len(stored) if isinstance(stored, Sized) else 0)[0],
            strides=_strides(content.layers[-1]) if content.layers else (),
            imgsz=training_size(content),
        ),
        blocks=dict(sorted(blocks.items())),
        unknown=tuple(sorted({*outsiders, *(kind for kind in counts if not has_twin(kind))})),
    )


def count_blocks(layers: Iterable[Inert]) -> Counter[str]:
    """Count the pickled modules in and below some layers by class path, each object once."""
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    todo: list[object] = list(layers)
    while todo:
        tree = todo.pop()
        if isinstance(tree, Inert) and id(tree) not in seen:
            seen.add(id(tree))
            counts[tree.class_path] += 1
            todo += children(tree).values()
    return counts


def has_twin(class_path: str) -> bool:
    """Whether a module of this class can be rebuilt."""
    return find_twin(class_path) is not None or plain_form(class_path).removeprefix(TORCH) in FORMS


def _strides(head: Inert) -> tuple[int, ...]:
    stride = head.state.get("stride")
    if not isinstance(stride, Tensor) or stride.ndim != 1 or len(stride) > MOST_LEVELS:
        return ()
    return tuple(int(x) for x in stride.float().nan_to_num().tolist())
