"""Check that two models read a text as the same token ids, and predict the same ids.

A teacher with other token ids would silently give wrong targets. So the vocabularies and text
pipelines of two tokenizers are compared part by part, by behaviour and not by file. Padding and
truncation are ignored, because attar replaces them.

A language head may have more logits than the vocabulary has tokens (T5: 32,128 for 32,100, a
multiple of 128). A teacher's logits for ids without a token are ignored; a student with more logits
than its teacher is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.errors import ModelError
from attar.special_tokens import open_tokenizer

SHOWN = 5
"""Number of differences quoted in a message: enough to recognise the cause."""
SECTIONS = ("normalizer", "pre_tokenizer", "post_processor")
"""Parts of a tokenizer that, besides the vocabulary, determine the tokens of a text."""


def require_same_tokens(student_folder: Path, teacher_folder: Path) -> None:
    """Raise ModelError if two models would tokenize the same text differently."""
    student, teacher = (_content(f) for f in (student_folder, teacher_folder))
    differences = _vocabulary_differences(_vocabulary(student), _vocabulary(teacher))
    differences += [
        f"the {section} differs"
        for section in SECTIONS
        if student.get(section) != teacher.get(section)
    ]
    if _rules(student) != _rules(teacher):
        differences.append("the rules that join pieces to tokens differ")
    if differences:
        raise ModelError(
            f"student ({student_folder}) and teacher ({teacher_folder}) tokenize differently: "
            f"{'; '.join(differences)}; use a student with the teacher's tokenizer, such as "
            '{ from = "<teacher>", keep_blocks = […] }'
        )


def require_same_words(student: int, teacher: int, student_folder: Path, where: Path) -> str | None:
    """Compare the sizes of two language heads; return a note if the teacher's is larger.

    Args:
        student, teacher: numbers of logits.
        where: the teacher's folder.

    Raises:
        ModelError: the student predicts ids that the teacher does not, or its head is smaller than
            the vocabulary.
    """
    if student == teacher:
        return None
    tokens = max(_vocabulary(_content(student_folder)).values(), default=-1) + 1
    numbers = (
        f"the student's language head has {student} columns, that of the teacher {where} has "
        f"{teacher}, and the tokenizer has {tokens} tokens"
    )
    if not tokens <= student < teacher:
        raise ModelError(
            f"{numbers}, so their predictions cannot be compared; make the student with "
            f"vocab_size = {teacher}"
        )
    return f"{numbers}: what the teacher says of the last {teacher - student} ids is left out"


def _content(model_folder: Path) -> dict[str, Any]:
    return json.loads(open_tokenizer(model_folder).to_str())


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Token → id; a Unigram model stores a list of (token, score) instead."""
    stored = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(stored, list):
        stored = {token: i for i, (token, _) in enumerate(stored)}
    return stored | {t["content"]: t["id"] for t in tokenizer.get("added_tokens", [])}


def _rules(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in tokenizer.get("model", {}).items() if name != "vocab"}


def _vocabulary_differences(student: Mapping[str, int], teacher: Mapping[str, int]) -> list[str]:
    def quoted(tokens: list[str]) -> str:
        return ", ".join(map(repr, tokens[:SHOWN])) + (", …" if len(tokens) > SHOWN else "")

    differences: list[str] = []
    for side, own, other in (("student", student, teacher), ("teacher", teacher, student)):
        alone = sorted(own.keys() - other.keys())
        if alone:
            differences.append(
                f"{len(alone)} of {len(own)} tokens only the {side} has ({quoted(alone)})"
            )
    moved = [token for token in student if token in teacher and student[token] != teacher[token]]
    if moved:
        examples = [f"{t!r} is {student[t]} and {teacher[t]}" for t in moved[:SHOWN]]
        differences.append(f"{len(moved)} tokens have other ids ({', '.join(examples)})")
    return differences
