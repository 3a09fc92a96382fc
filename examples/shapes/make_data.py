"""Draw the shapes data set with labels of all tasks, by default into `data/shapes`.

Prints the path of the YAML of boxes; those of other tasks lie beside it.
"""

import argparse
import inspect
import sys
from pathlib import Path

from yqc.data import shapes
from yqc.errors import YqcError
from yqc.report.progress import make_progress


def main() -> int:
    """Read the command line and write the data set; returns the exit status."""
    usual = {k: p.default for k, p in inspect.signature(shapes.write_shapes).parameters.items()}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default="data/shapes", help="where to")
    for name in ("train", "val"):
        parser.add_argument(f"--{name}", type=int, default=usual[name], help=f"{name} pictures")
    parser.add_argument("--seed", type=int, default=usual["seed"], help="other pictures")
    wish = parser.parse_args()
    try:
        print(shapes.write_shapes(**vars(wish), progress=make_progress(), tasks=True))
    except YqcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
