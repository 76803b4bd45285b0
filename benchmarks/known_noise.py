"""English novels with 30 % of known noise, for benchmarks that must know which text is bad.

Each document is a few paragraphs of a novel, or noise of one kind that is made of such a document
and is as long. Its `source` says which kind it is. Sources never share a chunk, so the truth is
known for each chunk too.
"""

from __future__ import annotations

import gzip
import json
import random
import string
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

CLEAN, NEAR_DUPLICATE = "clean", "near duplicate"
BOILERPLATE = (
    "We use cookies to improve your experience on our site.",
    "By continuing you accept our terms of use and our privacy policy.",
    "All rights reserved.",
    "Click here to subscribe to our newsletter.",
    "This page was last updated two days ago.",
    "Share this article with your friends.",
    "You must be logged in to post a comment.",
    "Read more of our most popular stories.",
)


def shuffled_words(text: str, draw: random.Random) -> str:
    words = text.split()
    draw.shuffle(words)
    return " ".join(words)


def boilerplate(text: str, draw: random.Random) -> str:
    return " ".join(draw.choice(BOILERPLATE) for _ in range(len(text) // 40))


def random_characters(text: str, draw: random.Random) -> str:
    return "".join(draw.choices(string.printable.strip() + " ", k=len(text)))


def mojibake(text: str, draw: random.Random) -> str:
    """Full-width letters, written as UTF-8 and read as Latin-1."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    return "".join(
        c if c.isprintable() or c == " " else "?" for c in wide.encode().decode("latin-1")
    )


def repeated_line(text: str, draw: random.Random) -> str:
    """One sentence of the text, again and again."""
    sentences = [part for part in text.replace("\n", " ").split(". ") if len(part) > 20] or [text]
    line = draw.choice(sentences)[:200] + ". "
    return (line * (len(text) // len(line) + 1)).strip()


def near_duplicate(text: str, draw: random.Random) -> str:
    """One character in 400 is another: word 5-grams are nine tenths the same."""
    letters = list(text)
    for place in draw.sample(range(len(letters)), len(letters) // 400):
        letters[place] = draw.choice(string.ascii_lowercase)
    return "".join(letters)


NOISE: dict[str, Callable[[str, random.Random], str]] = {
    "shuffled words": shuffled_words,
    "boilerplate": boilerplate,
    "random characters": random_characters,
    "mojibake": mojibake,
    "repeated line": repeated_line,
    NEAR_DUPLICATE: near_duplicate,
}
"""Kind → (a clean text, draw) → noise."""
EACH = 0.05
"""Share of the characters that each kind is."""


def novels(file: Path) -> list[str]:
    """The texts of a file of english_novels."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def mixture(texts: Iterator[str], characters: int, draw: random.Random) -> list[dict[str, str]]:
    """Documents of about so many characters in all, in random order; those of each kind have the
    same lengths.

    Raises:
        StopIteration: the texts have fewer.
    """

    def documents(kind: str, originals: Iterator[str], share: float) -> Iterator[dict[str, str]]:
        written = 0
        while written < share * characters:
            text = next(originals)
            written += len(text)
            made = text if kind == CLEAN else NOISE[kind](text, draw)
            yield {"text": made[: len(text)], "source": kind}

    rows = list(documents(CLEAN, texts, 1 - EACH * len(NOISE)))
    repeated = iter(draw.sample([row["text"] for row in rows], len(rows)))
    for kind in NOISE:
        rows += documents(kind, repeated if kind == NEAR_DUPLICATE else texts, EACH)
    draw.shuffle(rows)
    return rows


def write_rows(file: Path, rows: Iterable[dict[str, str]]) -> None:
    """As lines of JSON."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
