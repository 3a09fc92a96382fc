# ruff: noqa: INP001
"""What mkdocs runs: pages and files from outside of `docs/` join the site, links to them too.

`CONTRIBUTING.md`, `CHANGELOG.md` and what pages link to in `examples/` keep their places in a
checkout, where `../examples/on_device.py` is right; on the site they lie beside the pages.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"\]\(([^)#:\s]+)")


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401  # mkdocs' own object
    """Add what lies outside of `docs/`."""
    linked = {
        path.relative_to(ROOT)
        for page in (ROOT / "docs").rglob("*.md")
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if (path := (page.parent / link).resolve()).is_file()
        and (ROOT / "docs") not in path.parents
    }
    for place in sorted({*map(Path, PAGES), *linked}):
        files.append(File.generated(config, place.as_posix(), abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:  # noqa: ANN401  # see above
    """Let links lead to where a file lies on the site."""
    source = page.file.src_uri
    folder = ROOT if source in PAGES else (ROOT / "docs" / source).parent
    depth = source.count("/")

    def moved(found: re.Match[str]) -> str:
        path = (folder / found[1]).resolve()
        for base in (ROOT / "docs", ROOT):
            if base in path.parents and path.is_file():
                return f"]({'../' * depth}{path.relative_to(base).as_posix()}"
        return found[0]

    return LINK.sub(moved, markdown)
