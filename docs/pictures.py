# ruff: noqa: INP001
"""Make the pictures of the README: the report in a browser, and the page that a terminal shows.

    python docs/pictures.py

compiles the small detector that comes with yqc, and writes `report.png`, `report-dark.png` and
`terminal.svg` beside itself. Needs a headless Chromium in the PATH.
"""

import io
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

import yqc
from yqc.data import shapes
from yqc.report import Report

DOCS = Path(__file__).parent
MODEL = DOCS.parent / "examples" / "shapes" / "shapes.yqc"
SIZE = (1280, 1480)


def main() -> None:
    """Compile, and take both pictures."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("docs/pictures.py needs a headless Chromium in the PATH")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = shapes.write_shapes(place / "shapes", train=96, val=48)
        result = yqc.compile(
            MODEL, "int8", output=place / "shapes-int8.onnx", data=data, sensitivity=True
        )
        for name, scheme in (("report.png", 1), ("report-dark.png", 0)):
            take(browser, result.files.page, DOCS / name, scheme, place / "profile")
    (DOCS / "terminal.svg").write_text(terminal(plain(result.report)), encoding="utf-8")


def take(browser: str, page: Path, picture: Path, scheme: int, profile: Path) -> None:
    """Take a picture of a page; scheme 0 is dark, 1 light."""
    options = [
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--virtual-time-budget=9000", f"--user-data-dir={profile}"),
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--window-size={SIZE[0]},{SIZE[1]}",
        f"--screenshot={picture}",
    ]
    subprocess.run(  # noqa: S603  # found in the PATH
        [browser, *options, page.as_uri()], check=True, capture_output=True, timeout=180
    )


def plain(report: Report) -> Report:
    """Leave out where the model lies on this machine."""
    return replace(report, input=replace(report.input, path=MODEL.name))


def terminal(report: Report) -> str:
    """Print a report as a terminal of 80 columns shows it, as SVG that asks for no font."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(report)
    drawn = console.export_svg(title="yqc compile shapes.yqc --passes int8 --data shapes.yaml")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


if __name__ == "__main__":
    main()
