"""Laws of the data that every machine has."""

from __future__ import annotations

import hashlib
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from attar.data import stdlib_docs
from attar.data.config import StdlibDocsData
from attar.data.stdlib_areas import AREAS, area_of, stdlib_sources
from attar.data.stdlib_docs import (
    MAX_CHARACTERS,
    MIN_CHARACTERS,
    first_paragraphs,
    load_stdlib_docs,
    split_of,
)
from attar.data.tables import TextData
from attar.errors import DataError


def load() -> TextData:
    return load_stdlib_docs(StdlibDocsData(), Path(), "docs")


@pytest.fixture(scope="module")
def docs() -> TextData:
    return load()


def test_no_text_stands_twice_on_either_side(docs: TextData) -> None:
    everything = [text for split in docs.splits.values() for text in split.texts]
    assert len(everything) == len(set(everything))


def test_texts_are_one_line_of_sentence_length(docs: TextData) -> None:
    for split in docs.splits.values():
        for (text,) in split.texts:
            assert MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS
            assert text == " ".join(text.split())


def test_there_is_enough_to_learn_from_and_to_measure_on(docs: TextData) -> None:
    assert len(docs.split("train")) > 4000
    assert len(docs.split("validation")) >= 800
    assert 8 <= len(docs.label_names) <= 12
    for split in docs.splits.values():
        share = Counter(split.labels.tolist())
        assert set(share) == set(range(len(docs.label_names)))
        assert max(share.values()) < 0.25 * len(split)


def test_a_text_has_the_area_of_its_module(docs: TextData) -> None:
    root, _ = stdlib_sources()
    train = docs.split("train")
    area = {
        text: docs.label_names[label]
        for (text,), label in zip(train.texts, train.labels, strict=True)
    }
    for module, expected in (("socket.py", "networking"), ("pathlib.py", "files and storage")):
        found = [area[text] for text in first_paragraphs(root / module) if text in area]
        assert found
        assert set(found) == {expected}


def test_the_order_is_that_of_the_hashes_of_the_texts(docs: TextData) -> None:
    """So it is the same in every process, and says nothing about the labels."""
    for split in docs.splits.values():
        hashes = [hashlib.sha256(text.encode()).hexdigest() for (text,) in split.texts]
        assert hashes == sorted(hashes)


def test_a_module_stands_in_one_area_only() -> None:
    modules = [module for names in AREAS.values() for module in names]
    assert len(modules) == len(set(modules))
    assert area_of(Path("concurrent/futures/thread.py")) == "concurrency"


def test_first_paragraphs_of_modules_classes_and_functions_are_found(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text(
        '"""The module has a docstring\nof two lines.\n\nSecond paragraph is left out."""\n'
        'class A:\n    """A class with a docstring."""\n'
        '    async def f(self):\n        """An async method with a docstring."""\n'
        'if True:\n    def g():\n        """A function inside of a branch."""\n'
        'else:\n    def g():\n        """A function of the other branch."""\n'
        "try:\n    pass\nexcept ImportError:\n"
        '    def h():\n        """A function of a fallback."""\n'
        'def short():\n    """Too short."""\n'
        f'def long():\n    """{"long " * 100}"""\n'
        "raise SystemExit('a source is never run')\n"
    )
    assert list(first_paragraphs(source)) == [
        "The module has a docstring of two lines.",
        "A class with a docstring.",
        "An async method with a docstring.",
        "A function inside of a branch.",
        "A function of the other branch.",
        "A function of a fallback.",
    ]


def test_a_source_that_does_not_parse_has_no_texts(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text('"""A docstring before a mistake."""\nprint "two"\n')
    assert list(first_paragraphs(tmp_path / "m.py")) == []


def make_library(folder: Path, documents: dict[str, list[str]]) -> None:
    for module, texts in documents.items():
        functions = [f'def f{i}():\n    """{text}"""\n' for i, text in enumerate(texts)]
        (folder / f"{module}.py").write_text("".join(functions))


def test_a_text_of_two_areas_and_an_area_too_small_are_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {m: [f"Sentence {i} about the {m}." for i in range(120)] for m in ("socket", "queue")}
    both = "This sentence stands in both."
    make_library(
        tmp_path,
        {m: [*texts, both] for m, texts in many.items()} | {"json": ["Only one sentence here."]},
    )
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    data = load()
    assert data.label_names == ("networking", "concurrency")
    assert sorted(row.reason for row in data.set_aside) == [
        "its area is too small in this Python",
        "occurs in two areas",
    ]
    kept = {text for split in data.splits.values() for (text,) in split.texts}
    assert kept == {text for texts in many.values() for text in texts}


def test_the_side_of_a_text_depends_on_nothing_but_the_text(docs: TextData) -> None:
    for name, split in docs.splits.items():
        assert {split_of(text) for (text,) in split.texts} == {name}
    sides = Counter(split_of(f"text {i}") for i in range(6000))
    assert sides["validation"] == pytest.approx(6000 * stdlib_docs.VALIDATION_SHARE, rel=0.1)


def test_a_python_without_its_sources_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r'0 \.py files.*source = "files"'):
        load()
    make_library(tmp_path, {"socket": ["One sentence is not enough."]})
    with pytest.raises(DataError, match="only 0 areas with at least 100"):
        load()
