"""Broken texts are counted by row, and one is shown; whole ones are left alone."""

from __future__ import annotations

import pytest

from attar.data.look.broken_texts import BrokenTexts


def notes_of(*rows: tuple[str, ...]) -> list[str]:
    broken = BrokenTexts()
    for row in rows:
        broken.add(row)
    return list(broken.notes())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("It #39;s a great time", "HTML entities that lost their &"),
        ("said quot;yes quot;", "HTML entities that lost their &"),
        ("AT&amp;T and &lt;b&gt; and &#8217;", "HTML entities"),
        ("it\u00e2\u20ac\u2122s", "characters of a wrong encoding"),
        ("na\u00efve café".encode().decode("latin-1"), "characters of a wrong encoding"),
        ("“über”".encode().decode("cp1252", "ignore"), "characters of a wrong encoding"),
        ("what \ufffd is this", "characters of a wrong encoding"),
    ],
)
def test_a_broken_text_is_told_with_its_count_and_itself(text: str, what: str) -> None:
    [note] = notes_of((text, text), ("a plain text",))
    assert note.startswith(f"texts with {what}: 1 of 2, such as ")
    assert repr(text[:8])[1:-1] in note


@pytest.mark.parametrize(
    "text",
    [
        "Ä, Å and Â; “São Paulo”; NÃO; naïve; château; it’s 5 € — №1; 😀",
        "f(&buf); a&b; x[#1]; C# 39;",
        "#12345; and # 39;",
    ],
)
def test_a_whole_text_is_not(text: str) -> None:
    assert not notes_of((text,))


def test_one_row_in_many_is_not_told() -> None:
    assert not notes_of(("AT&amp;T",), *[("a plain text",)] * 1000)
