"""Words of a text, and conversion between word tags and marks. Imports nothing.

The problem: files mark parts of a text with one of three tagging schemes or by characters, and a
model needs one tag per word. The idea: a mark is (first character, character after the last,
label), whatever its source. All schemes are read by one rule, that of CoNLL's script: a mark begins
at B and S, and at I and E if no mark of the same label continues; it continues at I and E after B
or I of the same label. Models learn one scheme, IOB2: B begins, I continues, O is outside.

    IOB1    I-PER I-PER O B-LOC    B only where a mark follows another of its label
    IOB2    B-PER I-PER O B-LOC
    BIOES   B-PER E-PER O S-LOC

Model predictions are read strictly, like seqeval's strict mode with IOB2: only B begins a mark.

Not supported: tags without these prefixes (parts of speech), and nested marks.

Source: Tjong Kim Sang & De Meulder, Introduction to the CoNLL-2003 Shared Task (2003), and its
script conlleval; Ramshaw & Marcus, Text Chunking using Transformation-Based Learning (1995).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Mark = tuple[int, int, str]
"""First and last (exclusive) character or word, and the label."""
OUTSIDE = "O"
TAG = re.compile(r"O|[BIES]-.+", re.DOTALL)
CHARACTER = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Characters of scripts without spaces (kana and CJK); each counts as a word."""
WORD = rf"[{CHARACTER}]|\w(?:[^\s{CHARACTER}]*\w)?|\S"
"""A word: a run without spaces or punctuation at its ends. Each punctuation character is a word too
("U.S" and "." of "U.S.")."""


def words_of(text: str) -> list[tuple[int, int]]:
    """First and last (exclusive) character of each word.

    Example:
        >>> text = "Ann's in (New) York."
        >>> [text[begin:end] for begin, end in words_of(text)]
        ["Ann's", 'in', '(', 'New', ')', 'York', '.']
    """
    return [word.span() for word in re.finditer(WORD, text)]


def marks_of_tags(tags: Sequence[str], *, strict: bool = False) -> list[Mark]:
    """Convert tags to marks, whose positions are word numbers.

    Args:
        strict: only B and S begin a mark; anything else is not a mark.

    Example:
        >>> marks_of_tags(["I-PER", "I-PER", "O", "S-LOC"])
        [(0, 2, 'PER'), (3, 4, 'LOC')]
        >>> marks_of_tags(["I-PER", "B-LOC", "I-PER"], strict=True)
        [(1, 2, 'LOC')]
    """
    marks: list[Mark] = []
    is_open, before = False, OUTSIDE
    for word, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        goes_on = is_open and prefix in "IE" and before in "BI" and marks[-1][2] == label
        begins = not goes_on and tag != OUTSIDE and (prefix in "BS" or not strict)
        if goes_on:
            marks[-1] = (marks[-1][0], word + 1, label)
        elif begins:
            marks.append((word, word + 1, label))
        is_open, before = goes_on or begins, prefix
    return marks


def tags_of_marks(marks: Iterable[Mark], words: Sequence[tuple[int, int]]) -> list[str]:
    """The IOB2 tag of each word, from marks in characters. A word belongs to the first mark that it
    overlaps.

    Example:
        >>> tags_of_marks([(4, 12, "LOC")], [(0, 3), (4, 7), (8, 12)])
        ['O', 'B-LOC', 'I-LOC']
    """
    tags = [OUTSIDE] * len(words)
    for begin, end, label in sorted(marks):
        prefix = "B-"
        for number, (first, last) in enumerate(words):
            if first < end and last > begin and tags[number] == OUTSIDE:
                tags[number] = prefix + label
                prefix = "I-"
    return tags


def tag_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The tags that a model predicts for these labels.

    Example:
        >>> tag_names(["PER", "LOC"])
        ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
    """
    return (OUTSIDE, *(f"{prefix}-{label}" for label in sorted(set(labels)) for prefix in "BI"))
