"""Write the `metadata_props` that YOLO runtimes read."""

from collections.abc import Sequence


def yolo_metadata(
    names: Sequence[str],
    strides: Sequence[int],
    imgsz: tuple[int, int],
    *,
    batch: int = 1,
    task: str = "detect",
    channels: int = 3,
    kpt_shape: tuple[int, int] | None = None,
    dynamic: bool = False,
    nms: bool = False,
    **yqc: str,
) -> dict[str, str]:
    """Return the metadata of a detector as the YOLO projects' own exports write it.

    Args:
        names: of the classes; written as the Python text of a dict, which runtimes parse.
        strides: of the levels, in pixels; the largest is written.
        imgsz: height and width in pixels.
        batch: images a run; that of the example if it is dynamic.
        task: `detect`, `segment`, `pose`, `obb` or `classify`.
        channels: of the input.
        kpt_shape: keypoints of a detection and numbers of each, where it has some.
        dynamic: whether batch, height and width vary; Ultralytics' runtime reads that in `args`.
        nms: whether boxes are suppressed in the file; it is in `args`, too.
        yqc: `version`, `pipeline`, `input_sha256`, ...: written as `yqc.version` and so on.
    """
    about = {} if kpt_shape is None else {"kpt_shape": str(list(kpt_shape))}
    return {
        "names": str(dict(enumerate(names))),
        "stride": str(max(int(stride) for stride in strides)),
        "task": task,
        "imgsz": str([int(side) for side in imgsz]),
        "batch": str(batch),
        "channels": str(channels),
        "dynamic": str(dynamic),
        "args": str({"batch": batch, "dynamic": dynamic, "nms": nms}),
        **about,
    } | {f"yqc.{key}": str(value) for key, value in yqc.items()}
