"""Escapes untrusted text for its output format.

Labels, column names, paths and library messages come from files that anyone may have written.
Unescaped, they can move a terminal's cursor, fake a line of output, open a tag or a link in
Markdown, or end a YAML header. There is one function per target, used for all output; the HTML
report uses Jinja's escaping, and JSON needs none.

Unprintable characters are escaped as in JSON (`\\u001b`), so that JSON printed through
`for_terminal` is still equivalent. Long text is truncated with a note of its length.
"""

from __future__ import annotations

import json
import re
import unicodedata

MOST_CHARACTERS = 1000
"""Longer text is truncated: no message needs more, and a 10 kB name would hide the rest."""
HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, invisible format characters (bidirectional overrides among them),
lone surrogates, line and paragraph separators."""
JOINERS = frozenset("\u200c\u200d")
"""Format characters that are needed in Persian, Indic scripts and emoji."""
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]|~#!$])")


def shortened(text: str, most: int) -> str:
    """Truncate a text to `most` characters, with a note of its length.

    Example:
        >>> shortened("label", 10), shortened("x" * 10_000, 4)
        ('label', 'xxxx… (10,000 characters)')
    """
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _visible(text: str) -> str:
    """Escape every harmful character."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _is_harmful(c) else c for c in text)


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in HARMFUL and character not in JOINERS


def for_terminal(text: object, most: int | None = MOST_CHARACTERS) -> str:
    """Escape line ends and control characters for one line of a terminal or a log.

    Args:
        most: maximum number of characters; None: unlimited, as for JSON.

    Example:
        >>> print(for_terminal("good\\x1b[2J\\nerror: fake"))
        good\\u001b[2J\\nerror: fake
    """
    words = str(text)
    return _visible(words if most is None else shortened(words, most))


def for_reading(text: str) -> str:
    """Escape a multi-line text for a page that escapes tags itself: harmful characters, except tabs
    and line ends, are replaced by one symbol. Form feeds and carriage returns become line ends.

    Example:
        >>> for_reading("a\\x00b\\u202ec\\n")
        'a\ufffdb\ufffdc\\n'
    """
    lines = re.sub("\r\n|[\r\f\v]", "\n", text)
    return "".join("\ufffd" if _is_harmful(c) and c not in "\n\t" else c for c in lines)


def for_markdown(text: object, most: int = MOST_CHARACTERS) -> str:
    """Escape one line so that Markdown shows it literally: no tag, link, table cell, heading or
    formula.

    Example:
        >>> print(for_markdown("a|b <script>"), for_markdown("deploy_ort"))
        a\\|b &lt;script&gt; deploy\\_ort
    """
    one_line = _visible(" ".join(shortened(str(text), most).split()))
    escaped = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = MARKDOWN_SPECIAL.sub(r"\\\1", escaped)
    # GitHub turns bare addresses into links; with the colon as an entity, it does not.
    escaped = escaped.replace("://", "&#58;//")
    return re.sub(r"\bwww\.", r"www&#46;", escaped, flags=re.IGNORECASE)


def for_markdown_code(text: object, most: int = MOST_CHARACTERS) -> str:
    """A code span that cannot be ended by a backtick in the text.

    Example:
        >>> print(for_markdown_code("a`<b>"))
        `` a`<b> ``
    """
    words = _visible(" ".join(shortened(str(text), most).split()))
    ticks = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))
    pad = " " if "`" in words else ""
    return f"{ticks}{pad}{words}{pad}{ticks}"


def for_yaml(text: object, most: int = MOST_CHARACTERS) -> str:
    """A double-quoted YAML scalar: always a string on one line.

    Example:
        >>> print(for_yaml("no\\n---\\nlicense: evil"))
        "no\\n---\\nlicense: evil"
    """
    words = shortened(str(text), most)
    # YAML has no surrogate pairs, which JSON uses to escape characters above U+FFFF.
    return f'"{"".join(_yaml_character(c) for c in words)}"'


def _yaml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if _is_harmful(character) or not character.isprintable():
        return json.dumps(character)[1:-1] if character <= "\uffff" else f"\\U{ord(character):08x}"
    return character
