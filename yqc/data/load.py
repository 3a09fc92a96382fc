"""Load the data set that `--data` names, of any kind, as two splits."""

from dataclasses import replace
from pathlib import Path

from yqc.data.class_folders import has_classes, is_for_classifier, load_classes
from yqc.data.coco import load_coco
from yqc.data.files import find_copies, is_dir, is_file, list_images
from yqc.data.sets import Data, Labelling, Split
from yqc.data.yolo import load_yolo
from yqc.errors import DataError


def load_data(
    spec: Path,
    *,
    images: Path | None = None,
    strict: bool = False,
    labelling: Labelling | None = None,
) -> Data:
    """Read a YOLO data YAML, a COCO JSON, folders of classes or a folder of images.

    Args:
        spec: the `.yaml`, the `.json` or the folder. A JSON or a folder alone is cut in two: its
            first half is for calibration, its second for evaluation.
        images: where the images of a JSON are, if not beside it.
        strict: whether a bad label is an error; otherwise its image is left out and counted in
            `warnings`.
        labelling: what is read of the labels; boxes by default.

    Raises:
        DataError: there is no such data, or it is malformed; the message says where.
    """
    kind = "folder" if is_dir(spec) else spec.suffix.lower()
    if images is not None and kind != ".json":
        raise DataError(f"--images goes with a COCO JSON; {spec} says itself where its images are.")
    labelling = labelling or Labelling()
    _check_kind(spec, kind, labelling)
    if kind == "folder":
        classify = labelling.task == "classify" and is_for_classifier(spec)
        data = load_classes(spec) if classify else _load_folder(spec)
    elif not is_file(spec):
        raise DataError(f"there is no data at {spec}.")
    elif kind in (".yaml", ".yml"):
        data = load_yolo(spec, labelling, strict=strict)
    elif kind == ".json":
        data = load_coco(spec, images, labelling)
    else:
        raise DataError(f"{spec} is neither a data YAML, nor a COCO JSON, nor a folder of images.")
    common = find_copies(data.train.images, data.val.images)
    if not common:
        return data
    note = (
        f"{len(common)} of the {len(data.val.images)} images of 'val' of {data.source} are in "
        f"'train' too, such as {common[0].name}: calibration sees what accuracy is measured on"
    )
    return replace(data, common=common, warnings=(*data.warnings, note))


def _check_kind(spec: Path, kind: str, labelling: Labelling) -> None:
    """Raise a DataError where the labels are for another task than the model's."""
    classify = labelling.task == "classify"
    if kind == "folder" and not classify and has_classes(spec):
        raise DataError(
            f"{spec} holds folders of classes (train/CLASS, val/CLASS), which are for a "
            f"classifier, and the task here is {labelling.task}; give a data YAML or a COCO JSON."
        )
    if kind in (".yaml", ".yml", ".json") and classify:
        raise DataError(
            f"{spec} describes objects in images, and this model is a classifier: give the folder "
            "that holds train/CLASS and val/CLASS."
        )


def _load_folder(folder: Path) -> Data:
    images = list_images(folder.resolve())
    if not images:
        raise DataError(f"there is no image in {folder}.")
    half = len(images) // 2
    absent = "" if half else f"the only image of {folder} is for evaluation"
    train, val = Split("train", images[:half], absent=absent), Split("val", images[half:])
    return Data("folder", folder, None, train, val)
