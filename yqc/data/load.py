"""load_data: whatever `--data` names, as a data set in two halves."""

from pathlib import Path

from yqc.data.coco import load_coco
from yqc.data.files import is_dir, is_file, list_images
from yqc.data.sets import Data, Split
from yqc.data.yolo import load_yolo
from yqc.errors import DataError


def load_data(spec: Path, *, images: Path | None = None) -> Data:
    """Read a YOLO data YAML, a COCO instances JSON or a folder of images.

    Args:
        spec: the `.yaml`, the `.json` or the folder. A JSON or a folder alone is cut in two: its
            first half is for calibration, its second for evaluation.
        images: where the images of a JSON are, if not beside it.

    Raises:
        DataError: there is no such data, or it is malformed; the message says where.
    """
    kind = "folder" if is_dir(spec) else spec.suffix.lower()
    if images is not None and kind != ".json":
        raise DataError(f"--images goes with a COCO JSON; {spec} says itself where its images are.")
    if kind == "folder":
        return _load_folder(spec)
    if not is_file(spec):
        raise DataError(f"there is no data at {spec}.")
    if kind in (".yaml", ".yml"):
        return load_yolo(spec)
    if kind == ".json":
        return load_coco(spec, images)
    raise DataError(f"{spec} is neither a data YAML, nor a COCO JSON, nor a folder of images.")


def _load_folder(folder: Path) -> Data:
    images = list_images(folder.resolve())
    if not images:
        raise DataError(f"there is no image in {folder}.")
    half = len(images) // 2
    return Data(
        kind="folder",
        source=folder,
        names=None,
        train=Split("train", images[:half]),
        val=Split("val", images[half:]),
    )
