"""Converts the page to Markdown without pictures, for a pull request or an email.

The only source of content is `template.html`; sections added there appear here automatically.
Secondary figures are put in parentheses, columns of a group get the group's name, long tables are
truncated, and elements for the screen (navigation, tiles, glossary, recipe) are left out.

Text from artifacts is escaped, so it cannot create tags or links or break a table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from attar.escaping import for_markdown

MOST_ROWS, FOLDED_ROWS = 24, 8
"""Rows shown of a table, and of one that the page folds away; report.json has all."""
SKIPPED = ("head", "header", "figure", "button", "script", "style", "pre", "footer")
SKIPPED_CLASSES, SKIPPED_SECTIONS = {"skip", "tiles", "screen-only"}, ("words",)
BLOCKS = ("h1", "h2", "h3", "p", "li", "caption", "summary", "dt", "dd", "th", "td")
VOID = ("meta", "link", "input")
ASIDE = " ("
HEADINGS = {"h2": "## ", "h3": "### "}


@dataclass
class _Cell:
    text: str
    columns: int
    rows: int
    is_number: bool


@dataclass
class _Table:
    caption: str = ""
    lines: list[list[_Cell]] = field(default_factory=list)
    num_head: int = 0
    """How many of the lines are its head."""


class _Reader(HTMLParser):
    """Collects blocks of Markdown from a page."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self._text: list[str] = []
        self._skipped: list[str] = []
        """Open tags from the one whose content is left out."""
        self._table: _Table | None = None
        self._facts: list[str] = []
        self._lists = 0
        self._fold: str | None = None
        """What the details are called that we are in."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = set((given.get("class") or "").split())
        is_hidden = given.get("aria-hidden") == "true" or given.get("id") in SKIPPED_SECTIONS
        if self._skipped or is_hidden or tag in SKIPPED or classes & SKIPPED_CLASSES:
            if tag not in VOID:
                self._skipped.append(tag)
            return
        if tag == "ul":
            self._end_item()
            self._lists += 1
        elif tag == "details":
            self._fold = ""
        elif tag == "table":
            self._table = _Table()
        elif tag == "tr" and self._table is not None:
            self._table.lines.append([])
        elif tag == "dl":
            self._facts = []
        elif tag == "small":
            self._text.append(ASIDE)
        if tag in ("th", "td") and self._table is not None:
            columns, rows = (int(given.get(name) or 1) for name in ("colspan", "rowspan"))
            is_number = bool(classes & {"num", "group"})
            self._table.lines[-1].append(_Cell("", columns, rows, is_number))
        if tag in BLOCKS:
            self._text = []

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            if tag == self._skipped[-1]:
                self._skipped.pop()
            return
        text = for_markdown("".join(self._text))
        if tag == "small" and self._text[-1:] == [ASIDE]:
            self._text.pop()
        elif tag == "small":
            self._text.append(")")
        elif tag == "h1" and text:
            self.blocks.append(f"**{text}**")
        elif tag in HEADINGS and text:
            self.blocks.append(f"{HEADINGS[tag]}{text}")
        elif tag == "p" and text:
            self.blocks.append(text)
        elif tag in ("dt", "dd"):
            self._facts.append(text)
        elif tag == "dl":
            pairs = zip(self._facts[::2], self._facts[1::2], strict=True)
            self.blocks.append("; ".join(f"{name} {value}" for name, value in pairs) + ".")
        elif tag == "li":
            self._end_item()
        elif tag == "ul":
            self._lists -= 1
        elif tag == "summary":
            self._fold = text
        elif tag == "details":
            self._fold = None
        elif self._table is not None:
            self._end_in_table(self._table, tag, text)
        if tag in BLOCKS:
            self._text = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of drawings, which have no words."""

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._text.append(data)

    def _end_item(self) -> None:
        text = for_markdown("".join(self._text)).strip()
        self._text = []
        if not text or not self._lists:
            return
        line = f"{'  ' * (self._lists - 1)}- {text}"
        is_next = self.blocks and self.blocks[-1].lstrip().startswith("- ")
        if is_next:
            self.blocks[-1] += f"\n{line}"
        else:
            self.blocks.append(line)

    def _end_in_table(self, table: _Table, tag: str, text: str) -> None:
        if tag == "caption":
            table.caption = text
        elif tag in ("th", "td"):
            table.lines[-1][-1].text = text
        elif tag == "thead":
            table.num_head = len(table.lines)
        elif tag == "table":
            table.caption = self._fold or table.caption
            most = MOST_ROWS if self._fold is None else FOLDED_ROWS
            self.blocks += _blocks_of(table, most)
            self._table = None


def _blocks_of(table: _Table, most: int) -> list[str]:
    """The caption, and the table below a head of one line."""
    head, body = table.lines[: table.num_head], table.lines[table.num_head :]
    names: list[str] = []
    marks: list[str] = []
    second = iter(head[1] if len(head) > 1 else ())
    for cell in head[0]:
        below = [next(second).text for _ in range(cell.columns)] if cell.rows < len(head) else [""]
        names += [": ".join(filter(None, [cell.text, name])) for name in below]
        marks += ["---:" if cell.is_number else "---"] * len(below)
    shown = [[cell.text for cell in line] for line in body[:most]]
    more = f" (the first {most} of {len(body)})" if len(body) > most else ""
    lines = [names, marks, *shown]
    return [
        *([f"{table.caption}{more}"] if table.caption or more else []),
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
    ]


def markdown_of(html: str, title: str) -> str:
    """The whole report.

    Args:
        html: the page, as `html_of` makes it.
    """
    reader = _Reader()
    reader.feed(html)
    return "\n\n".join([f"# {for_markdown(title)}", *reader.blocks]) + "\n"
