"""The documentation site: its links lead somewhere, its tables are complete, and it builds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SPLIT = re.compile(r'"\n\s*f?"')
"""Where a message goes on in the next line of the source."""
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as Markdown renderers make them."""
    titles = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", title.lower().replace("`", "")) for title in titles)
    return {re.sub(r"[-\s]+", "-", word.strip()) for word in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in LINK.findall(text_of(page)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        if anchor and there.suffix == ".md":
            assert anchor in slugs(there), f"{target}: there is no such heading"


def test_every_method_card_stands_in_the_table() -> None:
    linked = set(LINK.findall(text_of(DOCS / "methods.md")))
    assert {f"methods/{card.name}" for card in (DOCS / "methods").glob("*.md")} <= linked


def test_every_extra_is_in_the_table_of_parts() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(project["project"]["optional-dependencies"])
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "install.md").read_text(), re.MULTILINE)
    assert set(listed) == extras


def test_every_quoted_error_message_is_one_of_attars() -> None:
    quoted = re.findall(
        r'^### "(.*)"$', (DOCS / "faq.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(quoted) >= 10
    sources = sorted((DOCS.parent / "src").rglob("*.py"))
    said = "\n".join(SPLIT.sub("", path.read_text(encoding="utf-8")) for path in sources)
    for message in quoted:
        for part in message.split("…"):
            assert part.strip() in said, f"no message says {part!r}"


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    words = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        [sys.executable, *words], cwd=DOCS.parent, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")]
    assert len(pages) > 100
    loads = re.compile(
        r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?https?://(?!localhost)[^>]*"
    )
    assert not [found for page in pages for found in loads.findall(page)], "loaded from the network"
