"""The pages of the documentation: their links lead somewhere, and the site has each of them."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    )
)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """Return a page without its code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def slug(title: str) -> str:
    """Return the anchor of a heading, as Python-Markdown and the usual hosts make it."""
    kept = re.sub(r"[^\w\s-]", "", title).strip().lower()
    return re.sub(r"[\s]+", "-", kept)


def anchors(page: str) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    return {slug(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def dead_links(page: str, text: str) -> list[str]:
    """List links to files that are not there, and to headings that their page does not have."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        here = target.is_file() and ROOT in target.parents
        if not here or (anchor and anchor not in anchors(target.relative_to(ROOT).as_posix())):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert dead_links(page, read(page)) == []


def test_dead_links_are_found() -> None:
    text = "[a](no.md) [b](#no) [c](data.md#no) `[d](no)` [e](data.md#how-they-are-counted)"
    assert dead_links("docs/devices.md", text) == ["no.md", "#no", "data.md#no"]


def in_navigation(entry: object) -> list[str]:
    """List the pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    entries = entry.values() if isinstance(entry, dict) else entry
    assert not isinstance(entries, str)
    return [page for one in entries for page in in_navigation(one)]  # type: ignore[attr-defined]


def test_the_navigation_has_every_page() -> None:
    site = yaml.safe_load(read("mkdocs.yml"))
    pages = {page.removeprefix("docs/") for page in PAGES} - {"README.md"}
    assert set(in_navigation(site["nav"])) == pages
