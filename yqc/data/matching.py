"""Match the classes and channels of a data set with those of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from yqc.data.pixels import read_image
from yqc.data.sets import Annotations, Data, Split
from yqc.errors import DataError


def fit_classes(
    data: Data, names: Sequence[str] | None, *, nc: int | None = None, single_class: bool = False
) -> Data:
    """Number the classes of a data set as a model does.

    By name where the model's names are the data's categories without some that no annotation uses;
    else class i is the i-th category, and a sentence in `warnings` says so where a name differs.

    Args:
        data: the data set; a folder of images fits any model.
        names: the model's class names in class order, None if they are not known.
        nc: how many classes the model predicts; by default as many as it has names.
        single_class: count every object as the one class of the model.

    Returns:
        The data set with the model's class numbers; its `names` are the model's.

    Raises:
        DataError: the numbers of classes differ, or the model has more classes than one.
    """
    if data.names is None:
        return data
    nc = len(names) if nc is None and names else nc
    if single_class:
        if nc not in (None, 1):
            raise DataError(
                f"--single-class is for a model of one class, and this one predicts {nc}; "
                "leave it out"
            )
        return _renumber(data, dict.fromkeys(range(len(data.names)), 0), [*(names or ["object"])])
    if names and (classes := _by_name(data, names)) is not None:
        same = classes == {i: i for i in range(len(data.names))}
        return data if same else _renumber(data, classes, names)
    if nc is not None and len(data.names) != nc:
        raise DataError(
            f"{data.source} has {len(data.names)} classes but the model predicts {nc}; "
            f"{advise(nc)}."
        )
    for i, (ours, theirs) in enumerate(zip(data.names, names or data.names, strict=False)):
        if _plain(ours) != _plain(theirs):
            note = (
                f"class {i} is '{ours}' in {data.source.name} and '{theirs}' in the model: "
                "classes are matched by their order"
            )
            return replace(data, warnings=(*data.warnings, note))
    return data


def fit_channels(data: Data, channels: int) -> Data:
    """Check that a model of so many input channels can read the images of a data set.

    Grey and RGB are read as each other. Of any other number, the data YAML and the first image of
    each split must have as many.

    Raises:
        DataError: they have another number.
    """
    said = data.channels
    if said not in (None, channels):
        note = f"{data.source} says channels: {said}, and the model takes {channels}"
        if not {said, channels} <= {1, 3}:
            raise DataError(f"{note}; give the data that the model was trained on.")
        read = "grey" if channels == 1 else "colour"
        data = replace(data, warnings=(*data.warnings, f"{note}: images are read as {read}"))
    for split in (data.train, data.val):
        if channels in (1, 3) or not split.images:
            continue
        first = split.images[0]
        try:
            read_image(first, channels)
        except DataError as error:
            raise DataError(f"{first} cannot be read for this model: {error}.") from error
        except Exception:  # noqa: BLE001, S112  # Pillow raises anything; it is counted when read
            continue
    return data


def _by_name(data: Data, names: Sequence[str]) -> dict[int, int] | None:
    """Return the model's class of each class of the data, None where names do not decide it.

    A category that no annotation uses is dropped unless it is the only one with a model's name.
    """
    theirs = {_plain(name): i for i, name in enumerate(names)}
    ours = dict(enumerate(map(_plain, data.names or ())))
    if len(theirs) < len(names) or not theirs.keys() <= set(ours.values()):
        return None
    if len(ours) > len(theirs):
        used = _used_classes(data)
        taken = {ours[i] for i in used}
        ours = {i: n for i, n in ours.items() if i in used or n in theirs.keys() - taken}
    if len(ours) != len(theirs) or set(ours.values()) != theirs.keys():
        return None
    return {i: theirs[name] for i, name in ours.items()}


def _used_classes(data: Data) -> set[int]:
    """Return the classes that an annotation of either split has."""
    found = filter(None, (data.train.annotations, data.val.annotations))
    return {entry["category_id"] - 1 for one in found for entry in one["annotations"]}


def advise(nc: int) -> str:
    """Say what to do where a model predicts `nc` classes and the data has others."""
    one = (
        "add --single-class to count every object as the model's one class, or " if nc == 1 else ""
    )
    return f"{one}give the data that the model was trained on"


def _renumber(data: Data, classes: Mapping[int, int], names: Sequence[str]) -> Data:
    """Return the data with other class numbers; objects of classes that are left out go."""

    def change(split: Split) -> Split:
        def read() -> Annotations:
            annotations = cast(Annotations, split.annotations)
            kept = [one for one in annotations["annotations"] if one["category_id"] - 1 in classes]
            return {
                "images": annotations["images"],
                "annotations": [
                    {**one, "category_id": classes[one["category_id"] - 1] + 1} for one in kept
                ],
                "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
            }

        return replace(split, read=read) if split.read else split

    return replace(data, names=tuple(names), train=change(data.train), val=change(data.val))


def _plain(name: str) -> str:
    """Return a class name as it is compared: without case and outer spaces."""
    return name.strip().casefold()
