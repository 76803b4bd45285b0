"""A selection compares scores of the same chunks, and its reference never saw them."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpora
from attar.errors import RecipeError
from attar.recipe.checking.doubts import outside_references
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
            "reads 'texts', whose texts are those of the corpus",
        ),
        ("reserve = 0.25\n", "", "no part of 'corpus' is reserved"),
        ('teacher = "by_teacher"', 'teacher = "by_nobody"', "needs a step that runs 'score'"),
        ('teacher = "by_teacher"', 'teacher = "corpus"', "needs a step that runs 'score'"),
        ('data = "kept"\n', 'data = "kept"\npart = "reserved"\n', "data 'kept' is none"),
        ('data = "kept"\n', 'data = "by_teacher"\n', "makes no rows"),
        ('reference = "by_reference"', 'reference = "by_teacher"', "every score would be 0"),
        ("shard_tokens = 1024\n", "shard_tokens = 1024\nmax_set_aside = 0.5\n", "max_set_aside"),
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


OTHER_CORPUS = """
[steps.second]
run = "tokenize"
data = "again"
tokenizer = "model"
max_length = 24

[data.again]
source = "files"
path = "texts"
text = "text"
objective = "causal_lm"
"""


@pytest.mark.parametrize("read", ["second", "again"])
def test_the_same_texts_under_another_name_are_seen(folder: Path, read: str) -> None:
    text = GOOD.replace('data = "corpus"\npart = "reserved"\n', f'data = "{read}"\n') + OTHER_CORPUS
    assert f"reads '{read}', whose texts are those of the corpus" in _mistakes(folder, text=text)


@pytest.mark.parametrize("path", ["./texts", "texts/*.jsonl", "linked", "copy/../texts"])
def test_the_same_files_by_another_path_are_seen(folder: Path, path: str) -> None:
    (folder / "copy").mkdir(exist_ok=True)
    if not (folder / "linked").is_symlink():
        (folder / "linked").symlink_to("texts")
    text = GOOD.replace('data = "corpus"\npart = "reserved"\n', 'data = "again"\n')
    text += OTHER_CORPUS.replace('"texts"', f'"{path}"')
    assert "reads 'again', whose texts are those of the corpus" in _mistakes(folder, text=text)


def test_two_data_sets_of_the_hub_are_not_the_same_texts(folder: Path) -> None:
    table = '[data.{}]\nsource = "hub"\nname = "some/{}"\nrevision = "' + "0" * 40 + '"\n'
    text = GOOD.replace('data = "corpus"\npart = "reserved"\n', 'data = "second"\n')
    text = text.replace('data = "texts"\ntokenizer', 'data = "one"\ntokenizer')
    second = OTHER_CORPUS.partition("[data.again]")[0] + table.format("one", "one")
    assert _mistakes(folder, text=text + second + table.format("again", "other")) == ""
    found = _mistakes(folder, text=text + second + table.format("again", "one"))
    assert "'second', whose texts are those of the corpus" in found


def test_a_reference_from_outside_is_warned_of_and_one_of_the_recipe_is_not(folder: Path) -> None:
    file, found = folder / "warned.toml", list[list[str]]()
    for text in (GOOD, corpora.RECIPE):
        file.write_text(text)
        found.append(list(outside_references(load_recipe(file, ()))))
    assert found[0] == []
    (warning,) = found[1]
    assert "steps.kept.reference: 'other' comes from outside the recipe" in warning


def test_check_prints_the_warning_and_succeeds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from attar.cli.runs import check

    file = folder / "warned.toml"
    file.write_text(corpora.RECIPE)
    check(file)
    told = capsys.readouterr()
    assert "warning: steps.kept.reference: 'other' comes from outside" in told.err
    assert "fine" in told.out


def test_every_copy_of_a_sweep_is_checked(folder: Path) -> None:
    sweep = '\n[sweep]\nsteps = ["reference"]\npart = ["reserved", "all"]\n'
    assert "'reference@part=all' reads the part" in _mistakes(folder, text=GOOD + sweep)


def test_a_corpus_of_rows_that_a_step_made_is_refused(folder: Path) -> None:
    second = OTHER_CORPUS.replace('data = "again"', 'data = "kept"', 1)
    assert "makes rows of its own" in _mistakes(folder, text=GOOD + second)


def test_scores_of_one_model_twice_are_refused(folder: Path) -> None:
    other = 'model = "reference"\n'
    assert "are scores of one model" in _mistakes(folder, other, 'model = "model"\n')


def test_scores_of_two_parts_are_refused(folder: Path) -> None:
    other = 'model = "model"\ndata = "corpus"\n'
    assert "give both the same" in _mistakes(folder, other, f'{other}part = "reserved"\n')


PROXY = (
    corpora.RECIPE.partition("[steps.kept]")[0].replace(
        'data = "corpus"', 'data = "corpus"\nchunks = 40'
    )
    + """
[steps.proxy]
run = "proxy"
model = "other"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"

[steps.predicted]
run = "score"
model = "proxy"
data = "corpus"

[steps.kept]
run = "select"
method = "proxy"
data = "corpus"
scores = "predicted"
"""
)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("", "", ""),
        ('model = "proxy"', 'model = "other"', "has log-probabilities of 'other'"),
        ('teacher = "by_teacher"', 'teacher = "predicted"', "the steps form a cycle"),
        ('scores = "predicted"', 'scores = "proxy"', "needs a step that runs 'score'"),
        ('scores = "predicted"\n', "", 'method = "proxy" needs scores, got none of them'),
        (
            'method = "proxy"\n',
            "",
            'method = "difference_sampling" needs teacher and reference, got scores',
        ),
        (
            'method = "proxy"\ndata = "corpus"\nscores = "predicted"',
            'data = "corpus"\nteacher = "by_teacher"\nreference = "by_reference"',
            "'by_teacher' scores 40 chunks, and a selection compares all of them",
        ),
        (
            'method = "proxy"\ndata = "corpus"\nscores = "predicted"',
            'data = "corpus"\nteacher = "predicted"\nreference = "by_reference"',
            "'predicted' has scores that the proxy 'proxy' predicts",
        ),
        ("chunks = 40", "chunks = 41", "score different samples; give both the same chunks and"),
        ("chunks = 40", "chunks = 40\nseed = 1", "score different samples"),
        ('reference = "by_reference"', 'reference = "by_teacher"', "every score would be 0"),
        (
            'model = "proxy"\ndata = "corpus"',
            'model = "proxy"\ndata = "second"',
            "learned from scores of the corpus 'corpus', this step scores 'second'",
        ),
        ('model = "proxy"\n', 'model = "proxy"\nchunks = 9\n', "'predicted' scores 9 chunks"),
        ('run = "proxy"\n', 'run = "proxy"\nmicro_batch_size = 64\n', "larger than batch_size 32"),
        (
            'model = "other"\ndata = "corpus"\nteacher',
            'model = "proxy"\ndata = "corpus"\nteacher',
            "reads itself",
        ),
    ],
)
def test_a_proxy_learns_and_scores_the_same_chunks(
    folder: Path, old: str, new: str, wanted: str
) -> None:
    found = _mistakes(folder, old, new, text=PROXY + OTHER_CORPUS)
    assert wanted in found
    assert bool(found) == bool(wanted)


def test_a_proxy_of_a_reference_that_saw_the_text_is_refused(folder: Path) -> None:
    text = PROXY.replace('model = "other"\ndata', 'model = "reference"\ndata', 1)
    reference = REFERENCE.partition("[steps.by_reference]")[0].replace("reserved", "all")
    assert "steps.proxy.reference" in (found := _mistakes(folder, text=text + reference))
    assert "is trained on what it scores" in found
