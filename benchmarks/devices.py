"""Nodes that example devices do not take, before and after the rewrites that a compile inserts.

    python benchmarks/devices.py ../shared

SHARED holds `models` and `golden`. Each model is compiled with `fuse` for each file of
`examples/targets`, in the form of decoding that the file names. Printed are the nodes of the float
file that do not fit, those of the written file, and each kind that is left with its reason.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import yqc

MODELS = ("models/yolov5n-coco", "models/yolov7-tiny-bccd", "models/yolov8n-bccd", "golden/yolo11n")
TARGETS = Path(__file__).parents[1] / "examples" / "targets"
SIZE = 160
"""Pixels of a side: which nodes fit does not depend on it, and small files are written quickly."""


def main() -> None:
    """Compile each model for each device, and print what does not fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--passes", default="fuse")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--devices", nargs="+", default=[p.stem for p in sorted(TARGETS.iterdir())])
    options = parser.parse_args()
    for model in options.models:
        for target in (TARGETS / f"{name}.toml" for name in options.devices):
            with tempfile.TemporaryDirectory() as folder:
                result = yqc.compile(
                    options.shared / f"{model}.pt",
                    options.passes,
                    output=Path(folder) / "m.onnx",
                    imgsz=SIZE,
                    target=str(target),
                    evaluate=False,
                    html=False,
                )
            fit = result.report.device
            if fit is None:
                sys.exit(f"{target} is no device's file")
            print(
                f"{model:24} {target.stem:13} {fit.unfit_before:4} -> {len(fit.unfit):3} of "
                f"{fit.nodes}  {','.join(fit.inserted)}",
                flush=True,
            )
            for kind, fix in fit.groups:
                print(f"    {kind}: {fix}")


if __name__ == "__main__":
    main()
