"""Load the data set that `--data` names, of any kind, as two splits."""

from dataclasses import replace
from pathlib import Path

from yqc.data.coco import load_coco
from yqc.data.files import find_copies, is_dir, is_file, list_images
from yqc.data.sets import Data, Split
from yqc.data.yolo import load_yolo
from yqc.errors import DataError


def load_data(spec: Path, *, images: Path | None = None, strict: bool = False) -> Data:
    """Read a YOLO data YAML, a COCO instances JSON or a folder of images.

    Args:
        spec: the `.yaml`, the `.json` or the folder. A JSON or a folder alone is cut in two: its
            first half is for calibration, its second for evaluation.
        images: where the images of a JSON are, if not beside it.
        strict: whether a bad label is an error; otherwise its image is left out and counted in
            `warnings`.

    Raises:
        DataError: there is no such data, or it is malformed; the message says where.
    """
    kind = "folder" if is_dir(spec) else spec.suffix.lower()
    if images is not None and kind != ".json":
        raise DataError(f"--images goes with a COCO JSON; {spec} says itself where its images are.")
    if kind == "folder":
        data = _load_folder(spec)
    elif not is_file(spec):
        raise DataError(f"there is no data at {spec}.")
    elif kind in (".yaml", ".yml"):
        data = load_yolo(spec, strict=strict)
    elif kind == ".json":
        data = load_coco(spec, images)
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


def _load_folder(folder: Path) -> Data:
    images = list_images(folder.resolve())
    if not images:
        raise DataError(f"there is no image in {folder}.")
    half = len(images) // 2
    return Data("folder", folder, None, Split("train", images[:half]), Split("val", images[half:]))
