# ruff: noqa: INP001
"""Make the pictures of the README: the pages in a browser, and the report that a terminal shows.

    python docs/pictures.py
    python docs/pictures.py tuned/front.json

The first compiles the small detector that comes with yqc, and writes `report.png`,
`report-dark.png` and `terminal.svg` beside itself; the second writes `front.png`, the page of a
search: `yqc tune yolov8n-bccd.pt --data bccd.yaml --imgsz 320 --time 20m`. Both need a headless
Chromium in the PATH.
"""

import contextlib
import io
import json
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
from yqc.tuning.front import Front, FrontPoint
from yqc.tuning.page import write_page

DOCS = Path(__file__).resolve().parent
MODEL = DOCS.parent / "examples" / "shapes" / "shapes.yqc"
SIZE = (1280, 1480)
FRONT_SIZE = (1280, 680)


def main() -> None:
    """Take the pictures."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("docs/pictures.py needs a headless Chromium in the PATH")
    fronts = [Path(name).resolve() for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if not fronts:
            take_report(browser, Path(folder))
        for front in fronts:
            page = Path(folder) / "front.html"
            page.write_text(write_page(read_front(front)), encoding="utf-8")
            take(browser, page, DOCS / "front.png", 1, FRONT_SIZE)


def take_report(browser: str, place: Path) -> None:
    """Compile in a folder, which is the current one, and take pictures of page and terminal."""
    shutil.copy(MODEL, MODEL.name)  # paths that pages show are those that were given
    data = shapes.write_shapes(Path("shapes"), train=400, val=100)
    how = {"latency": False, "sensitivity": True}  # times of one machine say little
    result = yqc.compile(MODEL.name, "int8", output="shapes-int8.onnx", data=data, **how)
    for name, scheme in (("report.png", 1), ("report-dark.png", 0)):
        take(browser, place / result.files.page, DOCS / name, scheme, SIZE)
    (DOCS / "terminal.svg").write_text(terminal(result.report), encoding="utf-8")


def read_front(path: Path) -> Front:
    """Read what a search printed, without the folders of its model and data."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    for name in ("model", "data"):
        plain[name] = Path(plain[name]).name
    points = tuple(FrontPoint(**point) for point in plain.pop("points"))
    return Front(**plain, points=points)


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
