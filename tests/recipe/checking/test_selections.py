"""A selection compares scores of the same chunks, and its reference never saw them."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpora
from attar.errors import RecipeError
from attar.recipe.load import load_recipe

REFERENCE = """
[steps.reference]
run = "train"
model = "other"
data = "corpus"
part = "reserved"
max_steps = 1
max_length = 24

[steps.by_reference]
run = "score"
model = "reference"
"""
GOOD = corpora.RECIPE.replace('\n[steps.by_reference]\nrun = "score"\nmodel = "other"\n', REFERENCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("selections")
    corpora.write_recipe(folder)
    return folder


def _mistakes(folder: Path, old: str = "", new: str = "", text: str = GOOD) -> str:
    assert old in text
    file = folder / "changed.toml"
    file.write_text(text.replace(old, new, 1) if old else text)
    try:
        load_recipe(file, ())
    except RecipeError as error:
        return str(error)
    return ""


def test_a_reference_trained_on_the_reserved_part_is_fine(folder: Path) -> None:
    assert _mistakes(folder) == ""


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('part = "reserved"\n', "", "reads the part \"all\" of 'corpus'"),
        ('part = "reserved"\n', 'part = "scored"\n', "reads the part \"scored\" of 'corpus'"),
        (
            'data = "corpus"\npart = "reserved"\n',
            'data = "texts"\n',
            "reads 'texts', which the corpus is made of",
        ),
        ("reserve = 0.25\n", "", "no part of 'corpus' is reserved"),
        ('teacher = "by_teacher"', 'teacher = "by_nobody"', "needs a step that runs 'score'"),
        ('teacher = "by_teacher"', 'teacher = "corpus"', "needs a step that runs 'score'"),
        ('data = "kept"\n', 'data = "kept"\npart = "reserved"\n', "data 'kept' is none"),
        ('data = "kept"\n', 'data = "by_teacher"\n', "makes no rows"),
    ],
)
def test_a_mistake_is_named(folder: Path, old: str, new: str, wanted: str) -> None:
    assert wanted in _mistakes(folder, old, new)


def test_a_reference_that_goes_on_from_one_that_saw_the_text_is_refused(folder: Path) -> None:
    seen = '\n[steps.first]\nrun = "train"\nmodel = "other"\ndata = "texts"\nmax_steps = 1\n'
    later = GOOD.replace(
        'model = "other"\ndata = "corpus"\npart', 'model = "first"\ndata = "corpus"\npart'
    )
    assert "step 'first' reads 'texts'" in _mistakes(folder, text=later + seen)


def test_scores_of_two_parts_are_refused(folder: Path) -> None:
    other = 'model = "model"\ndata = "corpus"\n'
    assert "give both the same" in _mistakes(folder, other, f'{other}part = "reserved"\n')
