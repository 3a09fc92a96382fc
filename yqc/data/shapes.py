"""Write the synthetic shapes data set: drawn pictures in the YOLO layout, whole or not at all."""

import tempfile
from pathlib import Path

from PIL import Image

from yqc.data.scenes import EDITION, NAMES, SIZE, SPLITS, Scene, draw
from yqc.errors import DataError, OutputError
from yqc.progress import Progress, Silent

YAML = "shapes.yaml"


def write_shapes(
    folder: Path, train: int = 800, val: int = 200, seed: int = 0, progress: Progress | None = None
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
            _expect(folder, counts, text)
            return folder / YAML
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
            fresh = Path(name) / "fresh"
            _draw_all(fresh, counts, seed, progress or Silent())
            (fresh / YAML).write_text(text)
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


def _expect(folder: Path, counts: dict[str, int], text: str) -> None:
    """Raise an OutputError unless `folder` holds the whole data set that is asked for."""
    there = folder / YAML
    if not there.is_file() or there.read_text() != text:
        raise OutputError(
            f"{folder} is not empty and holds other data; remove it, or name another folder."
        )
    for split, count in counts.items():
        for kind in ("images", "labels"):
            found = sum(1 for _ in (folder / kind / split).glob("[!.]*"))
            if found != count:
                raise OutputError(
                    f"{folder / kind / split} holds {found} files of {count}; remove {folder} and "
                    "have it drawn again."
                )


def _draw_all(folder: Path, counts: dict[str, int], seed: int, progress: Progress) -> None:
    with progress.task("drawing shapes", total=sum(counts.values())) as advance:
        for split, count in counts.items():
            images, labels = folder / "images" / split, folder / "labels" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for i in range(count):
                scene = draw(seed, split, i)
                picture = Image.fromarray(scene.pixels)
                picture.save(images / f"{i:06d}.png", compress_level=1)
                (labels / f"{i:06d}.txt").write_text(label_text(scene))
                advance(1)


def label_text(scene: Scene) -> str:
    """Return the YOLO label lines of a scene: class, centre and size relative to the picture."""
    return "".join(
        f"{kind} {(x0 + x1) / (2 * SIZE):.6f} {(y0 + y1) / (2 * SIZE):.6f} "
        f"{(x1 - x0) / SIZE:.6f} {(y1 - y0) / SIZE:.6f}\n"
        for kind, (x0, y0, x1, y1) in zip(scene.classes, scene.boxes, strict=True)
    )
