"""Read the facts of a checkpoint with unknown blocks, without rebuilding any module."""

from collections import Counter
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from yqc.errors import CheckpointError
from yqc.facts import HasFacts, ModelFacts
from yqc.models.content import class_names, find_content, training_size
from yqc.models.load import named_error, read_any
from yqc.models.pickles.read import Inert
from yqc.models.torch_modules import TORCH
from yqc.models.unknown import has_twin, how_to_register, walk_modules

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
    head: str
    """Path of the head's class; empty where there is none."""

    @property
    def advice(self) -> str:
        """How to make the unknown classes known."""
        return (
            "yqc has no twin for what is unknown; register one, in a file for --load:\n"
            + how_to_register(*self.unknown, head=self.head)
        )


def survey(path: Path) -> Survey:
    """Look into a checkpoint whose blocks yqc need not know; nothing of it is imported or run.

    Raises:
        CheckpointError: the file holds no YOLO model, or is damaged.
        ForbiddenGlobalError: it names something that is not allowed in a checkpoint.
        UnsupportedTaskError: it is not a detector.
    """
    try:
        top, sha256 = read_any(path)
        content = find_content(top)
    except CheckpointError as error:
        raise named_error(path, error) from error
    counts = Counter(tree.class_path for _, tree in walk_modules(content.layers))
    unknown = [kind for kind in counts if not has_twin(kind)]
    blocks: Counter[str] = Counter()
    for kind, n in counts.items():
        if kind in unknown or not kind.startswith(TORCH):
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
        unknown=tuple(sorted(unknown)),
        head=content.layers[-1].class_path if content.layers else "",
    )


def _strides(head: Inert) -> tuple[int, ...]:
    stride = head.state.get("stride")
    if not isinstance(stride, Tensor) or stride.ndim != 1 or len(stride) > MOST_LEVELS:
        return ()
    return tuple(int(x) for x in stride.float().nan_to_num().tolist())
