"""How much longer an evaluation takes than the model's runs in it; the aim is at most 1.3 times.

    python benchmarks/evaluate_overhead.py yolov5n.onnx data.yaml --threads 2 --images 128 --runs 5

Prints one line for each repetition and the median. Wall time is that of reading, running, decoding
and suppression, without pycocotools' matching; both come from the same repetition.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

from yqc.data import load_data
from yqc.evaluation import detect

AIM = 1.3


def main() -> int:
    """Measure, print, and return 1 if the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("data", type=Path, help="a data YAML, a COCO JSON or a folder")
    parser.add_argument("--images", type=int, default=128, help="evaluate so many")
    parser.add_argument("--threads", type=int, default=2, help="threads of onnxruntime")
    parser.add_argument("--runs", type=int, default=5, help="repetitions")
    options = parser.parse_args()

    split = load_data(options.data).val
    split = replace(split, images=split.images[: options.images])
    detect(options.model, replace(split, images=split.images[:4]), threads=options.threads)
    ratios = []
    for _ in range(options.runs):
        found = detect(options.model, split, threads=options.threads)
        ratios.append(found.seconds_total / found.seconds_session)
        each = 1000 * found.seconds_session / len(found.boxes)
        print(
            f"{len(found.boxes)} images  wall {found.seconds_total:.2f} s  "
            f"runs {found.seconds_session:.2f} s ({each:.1f} ms each)  ratio {ratios[-1]:.3f}"
        )
    print(f"median ratio {median(ratios):.3f}, aim {AIM}")
    return int(median(ratios) > AIM)


if __name__ == "__main__":
    sys.exit(main())
