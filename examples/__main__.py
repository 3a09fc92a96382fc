"""Copy the examples, with the small trained detector, out of an installation of yqc.

python -m yqc_examples [FOLDER]
"""

import shutil
import sys
from pathlib import Path


def main(folder: Path) -> int:
    """Copy the examples into a folder that must not exist yet; returns the exit status."""
    if folder.exists():
        print(f"error: {folder} is there already; nothing was written", file=sys.stderr)
        return 1
    shutil.copytree(Path(__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples")))
