"""Write the synthetic shapes data set: drawn pictures in the YOLO layout, whole or not at all.

With labels of all tasks it is

    shapes.yaml   images/    labels/       boxes
    segment.yaml  segment/images, labels   outlines
    pose.yaml     pose/images, labels      boxes with four keypoints: the ends of the object
    obb.yaml      obb/images, labels       turned rectangles
    classify/{train,val}/CLASS             square parts of the pictures, one an object

The pictures of segment, pose and obb are those of `images`, by hard links where there are any.
"""

import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from yqc.data.scene_labels import (
    KEYPOINTS,
    MIRRORED,
    cut_crops,
    write_boxes,
    write_corners,
    write_keypoints,
    write_outlines,
)
from yqc.data.scenes import EDITION, NAMES, SPLITS, Scene, draw
from yqc.errors import DataError, OutputError
from yqc.progress import Progress, Silent

YAML = "shapes.yaml"
TASKS = {"segment": write_outlines, "pose": write_keypoints, "obb": write_corners}
"""How the labels of further tasks are written; each task has a YAML and a folder of its name."""
CROPS = "classify"


def write_shapes(
    folder: Path,
    train: int = 800,
    val: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    tasks: bool = False,
) -> Path:
    """Draw the data set into `folder`, unless it is there, and return the path of its data YAML.

    It is drawn in a temporary folder beside and then moved in place, so `folder` never holds a part
    of it.

    Args:
        folder: must not exist, be empty, or hold this data set. Its parents are made.
        train: pictures of the train split; a longer split begins with a shorter one.
        val: pictures of the val split, likewise.
        seed: any number from 0; each gives other pictures.
        progress: shown a picture at a time.
        tasks: whether labels of the other tasks are written too.

    Raises:
        DataError: the numbers make no data set.
        OutputError: `folder` holds something else, or cannot be written.
    """
    counts = dict(zip(SPLITS, (train, val), strict=True))
    if min(counts.values()) < 1 or seed < 0:
        raise DataError(
            f"{train} train and {val} val pictures from seed {seed} make no data set: "
            "each split needs at least 1, and the seed must not be negative."
        )
    text = _yaml(counts, seed)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            _expect(folder, counts, text, tasks=tasks)
            return folder / YAML
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
            fresh = Path(name) / "fresh"
            _draw_all(fresh, counts, seed, progress or Silent(), tasks=tasks)
            (fresh / YAML).write_text(text, encoding="utf-8", newline="\n")
            for task in TASKS if tasks else ():
                (fresh / f"{task}.yaml").write_text(
                    _task_yaml(text, task), encoding="utf-8", newline="\n"
                )
            if folder.exists():  # Windows moves no folder to another one, not even an empty one
                folder.rmdir()
            fresh.replace(folder)
    except OSError as e:
        raise OutputError(f"cannot write the shapes data set to {folder}: {e.strerror}.") from e
    return folder / YAML


def _yaml(counts: dict[str, int], seed: int) -> str:
    """Return the data YAML; its first line identifies the data set."""
    numbers = ", ".join(f"{count} {split}" for split, count in counts.items())
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
    splits = "".join(f"{split}: images/{split}\n" for split in counts)
    title = f"# shapes drawn by yqc, edition {EDITION}, seed {seed}: {numbers}"
    return f"{title}\npath: .\n{splits}names:\n{names}"


def _task_yaml(text: str, task: str) -> str:
    """Return the data YAML of a further task, `text` that of the boxes."""
    keypoints = f"kpt_shape: [{KEYPOINTS}, 2]\nflip_idx: {MIRRORED}\n" if task == "pose" else ""
    return text.replace("path: .\n", f"path: {task}\n") + keypoints


def _expect(folder: Path, counts: dict[str, int], text: str, *, tasks: bool) -> None:
    """Raise an OutputError unless `folder` holds the whole data set that is asked for."""
    there = folder / YAML
    if not there.is_file() or there.read_text("utf-8") != text:
        raise OutputError(
            f"{folder} is not empty and holds other data; remove it, or name another folder."
        )
    kinds = [f"{part}{kind}" for part in _parts(tasks) for kind in ("images", "labels")]
    for split, count in counts.items():
        for kind in kinds:
            found = sum(1 for _ in (folder / kind / split).glob("[!.]*"))
            if found != count:
                raise OutputError(
                    f"{folder / kind / split} holds {found} files of {count}; remove {folder} and "
                    "have it drawn again."
                )


def _parts(tasks: bool) -> list[str]:
    """Return the beginnings of the paths of folders of images and labels."""
    return ["", *(f"{task}/" for task in TASKS if tasks)]


def _draw_all(
    folder: Path, counts: dict[str, int], seed: int, progress: Progress, *, tasks: bool
) -> None:
    for split in counts:
        for part in _parts(tasks):
            for kind in ("images", "labels"):
                (folder / f"{part}{kind}" / split).mkdir(parents=True)
        for name in NAMES if tasks else ():
            (folder / CROPS / split / name).mkdir(parents=True)
    with progress.task("drawing shapes", total=sum(counts.values())) as advance:
        for split, count in counts.items():
            for i in range(count):
                scene, place = draw(seed, split, i), f"{split}/{i:06d}"
                picture = folder / "images" / f"{place}.png"
                Image.fromarray(scene.pixels).save(picture, compress_level=1)
                (folder / "labels" / f"{place}.txt").write_text(
                    write_boxes(scene), encoding="utf-8", newline="\n"
                )
                if tasks:
                    _write_tasks(folder, place, scene, picture)
                advance(1)


def _write_tasks(folder: Path, place: str, scene: Scene, picture: Path) -> None:
    """Write labels of the further tasks, and crops; `place` is split and number."""
    for task, label in TASKS.items():
        _share(picture, folder / task / "images" / f"{place}.png")
        (folder / task / "labels" / f"{place}.txt").write_text(
            label(scene), encoding="utf-8", newline="\n"
        )
    split, number = place.split("/")
    for i, (kind, crop) in enumerate(zip(scene.classes, cut_crops(scene), strict=True)):
        path = folder / CROPS / split / NAMES[kind] / f"{number}-{i}.png"
        Image.fromarray(crop).save(path, compress_level=1)


def _share(file: Path, other: Path) -> None:
    """Make `other` the same file, or a copy where the file system has no hard links."""
    try:
        os.link(file, other)
    except OSError:
        shutil.copyfile(file, other)
