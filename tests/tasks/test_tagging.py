"""Three spellings of tags are read by one rule; what a model says is read as seqeval reads it."""

from __future__ import annotations

import random

import pytest

from attar.tasks.tagging import marks_of_tags, tag_names, tags_of_marks, words_of

MARKS = [(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC"), (5, 8, "ORG")]
SPELLINGS = {
    "IOB1": "I-PER I-PER B-PER O I-LOC I-ORG I-ORG I-ORG",
    "IOB2": "B-PER I-PER B-PER O B-LOC B-ORG I-ORG I-ORG",
    "BIOES": "B-PER E-PER S-PER O S-LOC B-ORG I-ORG E-ORG",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_tags_gives_the_same_marks(spelling: str) -> None:
    assert marks_of_tags(SPELLINGS[spelling].split()) == MARKS


def test_marks_become_tags_and_tags_the_same_marks() -> None:
    text = "Ann Lee met U.S. troops (in New York)."
    words = words_of(text)
    assert "".join(text[a:b] for a, b in words) == text.replace(" ", "")
    marks = [(0, 7, "PER"), (12, 16, "LOC"), (28, 36, "LOC")]
    tags = tags_of_marks(marks, words)
    found = marks_of_tags(tags, strict=True)
    assert [(words[a][0], words[b - 1][1], label) for a, b, label in found] == marks


def test_each_character_of_writing_without_spaces_is_a_word() -> None:
    assert [b - a for a, b in words_of("東京 Tower")] == [1, 1, 5]


def drawn_tags(draw: random.Random, names: tuple[str, ...]) -> list[list[str]]:
    return [draw.choices(names, k=draw.randint(1, 9)) for _ in range(300)]


def test_strict_marks_are_those_of_seqeval() -> None:
    scheme = pytest.importorskip("seqeval.scheme", reason="seqeval is not installed")
    names = tag_names(["PER", "LOC"])
    tags = drawn_tags(random.Random(0), names)
    theirs = scheme.Entities(tags, scheme.IOB2).entities
    for ours, of_row in zip(tags, theirs, strict=True):
        assert marks_of_tags(ours, strict=True) == [(e.start, e.end, e.tag) for e in of_row]
