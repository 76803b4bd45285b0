"""What the site has beside the pages in docs/: its navigation, and pages made from other files.

    index, changelog, contributing    README.md and its neighbours
    figures/                          benchmarks/results/
    reference/settings/               the config classes, through attar.recipe.describing
    reference/commands                the command line's own help

A link of any page that leads out of docs/ goes to the page made from its target; where there is
none (source code, recipes), the words stay and the link goes. mkdocs calls the `on_…` functions.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.structure.files import File, Files

from attar import cli
from attar.recipe.describing.settings import Topic, topics

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results"
SETTINGS = "reference/settings"
TUTORIAL = "guides/ten_minutes.md"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""File of the repository → page of the site."""
FOLDERS = {"docs/methods": "methods.md", RESULTS: "figures/index.md"}
"""Folder that pages link to → the page that lists it."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
GUIDE = re.compile(r"^\| \[([^\]]+)\]\(docs/(guides/[\w-]+\.md)\)", re.MULTILINE)
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`[^`]*`)")


def on_config(config: Any) -> Any:
    """The navigation; guides in the order of README's table."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    guides = GUIDE.findall(readme)
    cards = sorted((REPOSITORY / "docs/methods").glob("*.md"))
    config.nav = [
        {"Start": ["index.md", TUTORIAL, "install.md", "faq.md"]},
        {"Guides": [{name.capitalize(): page} for name, page in guides if page != TUTORIAL]},
        {"Methods": ["methods.md", *({card.stem: f"methods/{card.name}"} for card in cards)]},
        {
            "Reference": [
                {"Settings": [f"{SETTINGS}/{name}.md" for name in _settings_pages()]},
                *("reference/commands.md", "reference/python.md", "families.md", "glossary.md"),
            ]
        },
        {
            "About": [
                *("comparison.md", "limits.md", {"Measured figures": "figures/index.md"}),
                *("changelog.md", "contributing.md"),
            ]
        },
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from other files."""
    made = {page: (REPOSITORY / name).read_text(encoding="utf-8") for name, page in PAGES.items()}
    results = sorted((REPOSITORY / RESULTS).glob("*.md"))
    shown = [*results, *(REPOSITORY / RESULTS).glob("*.svg")]
    made |= {f"figures/{file.name}": file.read_text(encoding="utf-8") for file in shown}
    made["figures/index.md"] = _index_of(results)
    made |= {f"{SETTINGS}/{name}.md": text for name, text in _settings_pages().items()}
    made["reference/commands.md"] = "\n".join(_commands())
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links lead to pages of the site, or are words."""
    uri = page.file.src_uri
    origins = {made: name for name, made in PAGES.items()}
    is_figure = uri.startswith("figures/") and uri != "figures/index.md"
    origin = (
        f"{RESULTS}/{uri.removeprefix('figures/')}"
        if is_figure
        else origins.get(uri, f"docs/{uri}")
    )

    def inside(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        path, hash_mark, anchor = target.partition("#")
        if "://" in target or not path:
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        there = _page_of(place)
        if there is None:
            return words
        near = posixpath.relpath(there, posixpath.dirname(uri) or ".")
        return f"{mark}[{words}]({near}{hash_mark}{anchor})"

    parts = FENCED.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(inside, part) for part in parts)


def _page_of(place: str) -> str | None:
    """The page of the site that shows a file or folder of the repository."""
    if place in PAGES or place in FOLDERS:
        return PAGES.get(place) or FOLDERS[place]
    if place.startswith(f"{RESULTS}/") and place.endswith((".md", ".svg")):
        return f"figures/{posixpath.basename(place)}"
    return place.removeprefix("docs/") if place.startswith("docs/") else None


def _index_of(results: Iterable[Path]) -> str:
    lines = [
        "# Measured figures",
        "",
        "Every page names the script that made it, the machine and the versions.",
        "",
    ]
    for page in results:
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({RESULTS}/{page.name})".replace(f"({RESULTS}/", "("))
    return "\n".join(lines)


def _settings_pages() -> dict[str, str]:
    """Name → Markdown: a page a step, and one for each other heading."""
    pages: dict[str, str] = {}
    for heading, group in groupby(topics().values(), key=lambda topic: topic.heading):
        tops = [topic for topic in group if topic.word not in _parts()]
        if heading == "Steps":
            pages |= {topic.word: "\n".join(_topic_lines(topic, 1)) for topic in tops}
        elif tops:
            name = heading.lower().replace("the whole ", "")
            body = (line for topic in tops for line in _topic_lines(topic, 2))
            pages[name] = "\n".join([f"# {heading}", "", *body])
    return pages


def _parts() -> set[str]:
    return {part.word for topic in topics().values() for part in topic.parts}


def _topic_lines(topic: Topic, level: int) -> Iterator[str]:
    title = topic.word.rpartition(".")[2]
    yield from (f"{'#' * level} {title}", "", _plain(topic.meaning), "", f"`{topic.place}`", "")
    if topic.settings:
        yield from ("| setting | value | default | meaning |", "|---|---|---|---|")
    for setting in topic.settings:
        default = setting.default.removeprefix("default ")
        cells = (f"`{setting.name}`", setting.values, default, setting.meaning)
        yield f"| {' | '.join(map(_plain, cells))} |"
    yield ""
    for part in topic.parts:
        yield from _topic_lines(part, level + 1)


def _plain(text: str) -> str:
    """Text in which nothing outside backticks is HTML or ends a cell."""
    marks = {"<": "&lt;", "|": "&#124;", "*": "&#42;"}
    return "".join(
        part if part.startswith("`") else "".join(marks.get(sign, sign) for sign in part)
        for part in CODE.split(text)
    )


def _commands() -> Iterator[str]:
    yield from ("# Command line", "")
    for name, verb in typer.main.get_group(cli.app).commands.items():
        help_text = _plain(" ".join((verb.help or "").split()))
        yield from (f"## attar {name}", "", help_text, "", "| | |", "|---|---|")
        for parameter in verb.params:
            shown = (
                ", ".join(parameter.opts) if parameter.opts[0][0] == "-" else _metavar(parameter)
            )
            yield f"| `{shown}` | {_plain(getattr(parameter, 'help', None) or '')} |"
        yield ""


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())
