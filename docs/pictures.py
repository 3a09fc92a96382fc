# ruff: noqa: INP001
"""Make the pictures of the README: the pages in a browser, and the report that a terminal shows.

    python docs/pictures.py

compiles the small detector that comes with yqc and searches its front, and writes `report.png`,
`report-dark.png`, `front.png` and `terminal.svg` beside itself. Needs a headless Chromium in the
PATH.
"""

import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

import yqc
from yqc.data import shapes
from yqc.report import Report

DOCS = Path(__file__).resolve().parent
MODEL = DOCS.parent / "examples" / "shapes" / "shapes.yqc"
SIZE = (1280, 1480)
FRONT_SIZE = (1280, 1000)
TIME = "90s"
"""Of the search whose page is shown."""


def main() -> None:
    """Compile and search, and take the pictures."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("docs/pictures.py needs a headless Chromium in the PATH")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        place = Path(folder)
        shutil.copy(MODEL, MODEL.name)  # paths that pages show are those that were given
        data = shapes.write_shapes(Path("shapes"), train=400, val=100)
        result = yqc.compile(
            MODEL.name, "int8", output="shapes-int8.onnx", data=data, sensitivity=True
        )
        for name, scheme in (("report.png", 1), ("report-dark.png", 0)):
            take(browser, place / result.files.page, DOCS / name, scheme, SIZE)
        yqc.tune(MODEL.name, data=data, time=TIME, latency=False, output="tuned")
        take(browser, place / "tuned" / "front.html", DOCS / "front.png", 1, FRONT_SIZE)
    (DOCS / "terminal.svg").write_text(terminal(result.report), encoding="utf-8")


def take(browser: str, page: Path, picture: Path, scheme: int, size: tuple[int, int]) -> None:
    """Take a picture of a page, width and height in pixels; scheme 0 is dark, 1 light."""
    options = [
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--virtual-time-budget=9000", f"--user-data-dir={page.parent / 'profile'}"),
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--window-size={size[0]},{size[1]}",
        f"--screenshot={picture}",
    ]
    subprocess.run(  # noqa: S603  # found in the PATH
        [browser, *options, page.as_uri()], check=True, capture_output=True, timeout=180
    )


def terminal(report: Report) -> str:
    """Print a report as a terminal of 80 columns shows it, as SVG that asks for no font."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(report)
    drawn = console.export_svg(title="yqc compile shapes.yqc --passes int8 --data shapes.yaml")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


if __name__ == "__main__":
    main()
