"""Text written by strangers, made inert for the place it is printed in.

Labels, column names, paths and library messages come from files that anyone may have written. Raw,
they can move a terminal's cursor, fake a line of our output, open a tag or a link in Markdown, or
end a YAML header. One function for each target, used by everything that prints; the HTML report
leaves escaping to Jinja, and JSON needs none of this.

Unprintable characters are written as JSON writes them (`\\u001b`), so that JSON printed through
`for_terminal` still reads back as the same text. Long text is cut, and its length is stated.
"""

from __future__ import annotations

import json
import re
import unicodedata

MOST_CHARACTERS = 1000
"""Longer text is cut: no message of ours needs more on a line, and a 10 kB name hides the rest."""
HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, invisible format characters (bidirectional overrides among them),
lone surrogates, line and paragraph separators."""
JOINERS = frozenset("\u200c\u200d")
"""Format characters that Persian, Indic scripts and emoji are spelled with."""
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]|~#!$])")


def shortened(text: str, most: int) -> str:
    """At most `most` characters of a text, and how long it was if that is not all.

    Example:
        >>> shortened("label", 10), shortened("x" * 10_000, 4)
        ('label', 'xxxx… (10,000 characters)')
    """
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _visible(text: str) -> str:
    """Every harmful character as its escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _is_harmful(c) else c for c in text)


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in HARMFUL and character not in JOINERS


def for_terminal(text: object, most: int | None = MOST_CHARACTERS) -> str:
    """One line for a terminal or a log, line ends and control characters escaped.

    Args:
        most: characters before the text is cut; None: never, as in JSON.

    Example:
        >>> print(for_terminal("good\\x1b[2J\\nerror: fake"))
        good\\u001b[2J\\nerror: fake
    """
    words = str(text)
    return _visible(words if most is None else shortened(words, most))


def for_reading(text: str) -> str:
    """A text over several lines for a page that escapes tags: harmful characters but tabs and line
    ends shown as one sign. A form feed or a carriage return ends a line too.

    Example:
        >>> for_reading("a\\x00b\\u202ec\\n")
        'a\ufffdb\ufffdc\\n'
    """
    lines = re.sub("\r\n|[\r\f\v]", "\n", text)
    return "".join("\ufffd" if _is_harmful(c) and c not in "\n\t" else c for c in lines)


def for_markdown(text: object, most: int = MOST_CHARACTERS) -> str:
    """One line that Markdown shows as it is: no tag, link, table cell, heading or formula.

    Example:
        >>> print(for_markdown("a|b <script>"), for_markdown("deploy_ort"))
        a\\|b &lt;script&gt; deploy\\_ort
    """
    one_line = _visible(" ".join(shortened(str(text), most).split()))
    escaped = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = MARKDOWN_SPECIAL.sub(r"\\\1", escaped)
    # GitHub makes a link of a bare address; as an entity the colon does not start one.
    escaped = escaped.replace("://", "&#58;//")
    return re.sub(r"\bwww\.", r"www&#46;", escaped, flags=re.IGNORECASE)


def for_markdown_code(text: object, most: int = MOST_CHARACTERS) -> str:
    """A code span that no backtick inside can end.

    Example:
        >>> print(for_markdown_code("a`<b>"))
        `` a`<b> ``
    """
    words = _visible(" ".join(shortened(str(text), most).split()))
    ticks = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))
    pad = " " if "`" in words else ""
    return f"{ticks}{pad}{words}{pad}{ticks}"


def for_yaml(text: object, most: int = MOST_CHARACTERS) -> str:
    """A double-quoted YAML scalar, always a string and always one line.

    Example:
        >>> print(for_yaml("no\\n---\\nlicense: evil"))
        "no\\n---\\nlicense: evil"
    """
    words = shortened(str(text), most)
    # YAML has no surrogate pairs, which is how JSON would escape what lies beyond U+FFFF.
    return f'"{"".join(_yaml_character(c) for c in words)}"'


def _yaml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if _is_harmful(character) or not character.isprintable():
        return json.dumps(character)[1:-1] if character <= "\uffff" else f"\\U{ord(character):08x}"
    return character
