"""Read what a classifier's checkpoint says of its images: their size, and their normalisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from yqc.errors import CheckpointError
from yqc.models.content import LARGEST_SIDE
from yqc.models.pickles.read import Inert

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, red, green, blue, in 0..1, by which YOLOv5's
classifiers are trained (He et al. 2016 and others; torchvision's models). A fact of the data."""


@dataclass(frozen=True)
class ImageTransforms:
    """How a classifier's images are made from pictures: size, then (x - mean) / std a channel."""

    size: tuple[int, int] | None = None
    """Height and width; None where not recorded."""
    mean: tuple[float, ...] = ()
    """Of pixels in 0..1; empty where they are not normalised."""
    std: tuple[float, ...] = ()

    @property
    def normalises(self) -> bool:
        """Whether the normalisation changes anything."""
        return any(self.mean) or any(each != 1 for each in self.std)


def read_transforms(found: object) -> ImageTransforms | None:
    """Read the pickled transforms of torchvision, or of YOLOv5's project, as inert data.

    Returns None where there are none.

    Raises:
        CheckpointError: a normalisation is damaged.
    """
    if not isinstance(found, Inert):
        return None
    size, mean, std = None, tuple[float, ...](), tuple[float, ...]()
    steps = found.state.get("transforms")
    for step in steps if isinstance(steps, list | tuple) else ():
        if not isinstance(step, Inert):
            continue
        name = step.class_path.rpartition(".")[2]
        if name == "Normalize":
            mean, std = (_numbers(step.state.get(key)) for key in ("mean", "std"))
            if len(mean) != len(std) or not std or not all(each > 0 for each in std):
                raise CheckpointError("the normalisation of its images is damaged")
        elif name in {"CenterCrop", "Resize"}:
            size = _size(step.state) or size
    return ImageTransforms(size, mean, std)


def _numbers(value: object) -> tuple[float, ...]:
    """Return a vector or a list of numbers as floats; nothing for anything else."""
    items = value.flatten().tolist() if isinstance(value, Tensor) else value
    fits = isinstance(items, Sequence) and all(type(item) in {int, float} for item in items)
    return tuple(map(float, items)) if fits and isinstance(items, Sequence) else ()


def _size(state: Mapping[str, object]) -> tuple[int, int] | None:
    """Return the height and width of a crop or a resize."""
    match state.get("size"), state.get("h"), state.get("w"):
        case (int(side), _, _) | ([int(side)] | (int(side),), _, _):
            sides = side, side
        case ([int(high), int(wide)] | (int(high), int(wide)), _, _) | (_, int(high), int(wide)):
            sides = high, wide
        case _:
            return None
    return sides if all(0 < side <= LARGEST_SIDE for side in sides) else None
