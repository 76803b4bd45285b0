"""What the first rows of a recipe's own files tell before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from attar.errors import DataError
from attar.recipe.checking import local_files
from attar.recipe.checking.local_files import look_at_data
from attar.recipe.load import parse_recipe

RECIPE = """
name = "small"
[data.films]
source = "files"
path = "films.csv"
label = "stars"
[data.unread]
source = "files"
path = "none.csv"
[steps.teacher]
run = "train"
model = "bert"
data = "films"
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    rows = [f"a film of number {i},{('good', 'bad')[i % 2]}" for i in range(60)]
    (tmp_path / "films.csv").write_text("\n".join(["text,stars", *rows]))
    return tmp_path


@pytest.fixture(params=[True, False], ids=["small", "large"])
def folder(films: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not request.param:
        monkeypatch.setattr(local_files, "SMALL_BYTES", 10)
        monkeypatch.setattr(local_files, "FIRST_ROWS", 30)
    return films


def test_what_is_in_the_tables_that_are_read_is_told(folder: Path) -> None:
    [summary] = look_at_data(parse_recipe(RECIPE), folder)
    assert summary.name == "films"
    assert set(summary.splits["train"].classes) == {"good", "bad"}
    assert summary.splits["train"].rows == (54 if summary.first_rows is None else 30)


def test_lengths_are_in_tokens_if_the_first_model_of_the_steps_is_a_folder(
    folder: Path, tiny_bert: Path
) -> None:
    calibrated = """
        [data.docs]
        source = "stdlib_docs"
        [steps.int8]
        run = "quantize"
        method = "minmax"
        model = "teacher"
        calibration.data = "films"
    """
    for word, unit in (("bert", "words"), (str(tiny_bert), "tokens")):
        settings = [f"steps.teacher.model={word!r}", 'steps.teacher.data="docs"']
        [summary] = look_at_data(parse_recipe(RECIPE + calibrated, settings), folder)
        assert summary.unit == unit


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.films.text=review", "no column 'review'; its columns are 'text', 'stars'"),
        ("data.films.objective=regression", "label is not a number"),
        ('data.films.label_names=["one", "two"]', "unknown label"),
    ],
)
def test_columns_and_labels_that_do_not_fit_are_refused(
    folder: Path, override: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        look_at_data(parse_recipe(RECIPE, [override]), folder)


def test_a_corpus_needs_no_labels(films: Path) -> None:
    (films / "films.csv").write_text("\n".join(["text", *(f"a film {i}" for i in range(30))]))
    step = '[steps.teacher]\nrun = "tokenize"\ndata = "films"\ntokenizer = "bert"\n'
    [summary] = look_at_data(parse_recipe(RECIPE.partition("[steps")[0] + step), films)
    assert summary.splits["train"].unlabelled == 0
