"""What does not fit a corpus is found by a check, where the files that are there tell it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import corpora
from attar.errors import AttarError, DataError, RecipeError
from attar.recipe.checking.doubts import doubts
from attar.recipe.load import load_recipe, require_data
from attar.recipe.schema import Recipe

TRAINED = """
[steps.reference]
run = "train"
model = { config = { model_type = "llama", max_position_embeddings = 64 }, tokenizer = "TOKENIZER" }
data = "corpus"
part = "reserved"
max_steps = 1
max_length = 24
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, one of them of another tokenizer, one of few positions; a published corpus."""
    folder = tmp_path_factory.mktemp("checked")
    corpora.write_recipe(folder)
    corpora.write_model(folder / "short", max_position_embeddings=16)
    shutil.copytree(folder / "model", folder / "foreign")
    file = folder / "foreign" / "tokenizer.json"
    file.write_text(file.read_text().replace('"add_prefix_space":false', '"add_prefix_space":true'))
    if file.read_bytes() == (folder / "model" / "tokenizer.json").read_bytes():
        text = file.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true')
        file.write_text(text)
    return folder


def _checked(folder: Path, *changes: tuple[str, str], text: str = corpora.RECIPE) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    file = folder / "changed.toml"
    file.write_text(text)
    try:
        require_data(load_recipe(file), folder)
    except AttarError as error:
        return str(error)
    return ""


CACHED = '[steps.answers]\nrun = "cache"\nteacher = "foreign"\ndata = "kept"\n\n'
SCORED_BY = '[steps.by_teacher]\nrun = "score"\nmodel = "model"'


def test_a_recipe_that_fits_is_fine(folder: Path) -> None:
    assert _checked(folder) == ""
    assert (
        _checked(folder, ("[steps.by_r", TRAINED.replace("TOKENIZER", "model") + "[steps.by_r"))
        == ""
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            (SCORED_BY, SCORED_BY.replace('"model"', '"short"')),
            "steps.by_teacher.model: 'short' has 16 positions, and the corpus 'corpus' has chunks",
        ),
        (
            (SCORED_BY, SCORED_BY.replace('"model"', '"foreign"')),
            "steps.by_teacher.model: 'foreign' has another tokenizer than the corpus 'corpus'",
        ),
        (
            ("[steps.by_r", TRAINED.replace("TOKENIZER", "foreign") + "[steps.by_r"),
            "steps.reference.model: 'reference' has another tokenizer",
        ),
        (
            ('data = "kept"\n', 'data = "kept"\nteacher = "foreign"\n'),
            "steps.student.teacher: 'foreign' has another tokenizer than the corpus 'corpus'",
        ),
        (
            ("[steps.report]", CACHED + "[steps.report]"),
            "steps.answers.teacher: 'foreign' has another tokenizer than the corpus 'corpus'",
        ),
        (
            ("max_length = 24\nevaluations", "max_length = 16\nevaluations"),
            "steps.student.max_length: is 16, and the corpus 'corpus' has chunks of up to 24",
        ),
        (
            ('source_column = "source"', 'source_column = "origin"'),
            "has no column 'origin' for source_column; its columns are 'text', 'source'",
        ),
        (
            ('objective = "causal_lm"', 'objective = "causal_lm"\ntrain_rows = 9'),
            "data.texts.train_rows",
        ),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, change: tuple[str, str], said: str) -> None:
    assert said in _checked(folder, change)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([('source_column = "source"\n', "")], "has only one source; set source_column"),
        (
            [
                ('source_column = "source"\n', ""),
                (
                    'source = "files"\npath = "texts"\ntext = "text"\nobjective = "causal_lm"',
                    'source = "stdlib_text"',
                ),
                ("sae = ", "editro = "),
            ],
            "no source 'editro' (did you mean 'editor'?); the corpus 'corpus' has the sources",
        ),
    ],
)
def test_a_source_that_cannot_be_there_is_named(
    folder: Path, changes: list[tuple[str, str]], said: str
) -> None:
    shares = 'reference = "by_reference"\nkeep_by_source = { sae = 0.2 }\n'
    text = corpora.RECIPE.replace('reference = "by_reference"\n', shares, 1)
    assert _checked(folder, text=text) == ""  # only reading all rows tells
    assert said in _checked(folder, *changes, text=text)


def test_the_sources_and_the_length_of_a_published_corpus_are_known(
    folder: Path, tmp_path: Path
) -> None:
    from attar.recipe.one_step import run_one_step

    settings = corpora.SETTINGS | {
        "data": str(folder / "texts"),
        "tokenizer": str(folder / "model"),
    }
    made = run_one_step("tokenize", settings, (), tmp_path, quiet=True).folder / "tokenize"
    text = f"""name = "a"
    [data.mine]
    source = "corpus"
    path = "{made}"
    [steps.by_teacher]
    run = "score"
    model = "MODEL"
    data = "mine"
    [steps.by_reference]
    run = "score"
    model = "other"
    data = "mine"
    [steps.kept]
    run = "select"
    data = "mine"
    teacher = "by_teacher"
    reference = "by_reference"
    keep_by_source = {{ SOURCE = 0.2 }}
    """
    fine = text.replace("MODEL", "model").replace("SOURCE", "sea")
    assert _checked(folder, text=fine) == ""
    assert "(did you mean 'sea'?); the corpus 'mine' has the sources" in _checked(
        folder, text=fine.replace("sea =", "sae =")
    )
    for model, said in (("short", "has 16 positions"), ("foreign", "another tokenizer")):
        assert said in _checked(folder, text=text.replace("MODEL", model).replace("SOURCE", "sea"))


def test_each_is_the_exit_code_of_its_kind(folder: Path) -> None:
    file = folder / "kinds.toml"
    for old, new, kind in (
        (SCORED_BY, SCORED_BY.replace('"model"', '"short"'), RecipeError),
        ('source_column = "source"', 'source_column = "origin"', DataError),
    ):
        file.write_text(corpora.RECIPE.replace(old, new, 1))
        with pytest.raises(kind):
            require_data(load_recipe(file), folder)


def test_a_model_that_predicts_no_tokens_cannot_score(folder: Path) -> None:
    demo = SCORED_BY.replace('"model"', '"demo:minilm-l6"')
    said = "by_teacher.model: 'demo:minilm-l6' is a BertModel, which does not predict the next"
    assert said in _checked(folder, (SCORED_BY, demo))
    encoder = folder / "encoder"
    shutil.copytree(folder / "model", encoder)
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(
        json.dumps(config | {"architectures": ["BertForSequenceClassification"]})
    )
    own = SCORED_BY.replace('"model"', '"encoder"')
    assert "'encoder' is a BertForSequenceClassification" in _checked(folder, (SCORED_BY, own))


def test_a_word_that_is_no_folder_is_said_to_be_taken_for_a_hub_id(folder: Path) -> None:
    assert _doubts(folder) == []
    there = SCORED_BY.replace('"model"', '"models/mine"')
    (said,) = _doubts(folder, (SCORED_BY, there))
    assert "steps.by_teacher.model: 'models/mine' is neither a step nor a folder" in said
    assert f"({folder / 'models' / 'mine'} does not exist)" in said


def test_a_source_that_no_first_row_has_is_said(folder: Path) -> None:
    given = ('run = "select"', 'run = "select"\nkeep_by_source = { SOURCE = 0.5 }')
    known = json.loads((folder / "texts" / "train.jsonl").read_text().split("\n")[0])["source"]
    for source, count in ((known, 0), (f"{known}x", 1)):
        change = (given[0], given[1].replace("SOURCE", f'"{source}"'))
        found = _doubts(folder, change)
        assert len(found) == count
    assert f"has the source '{known}x' (did you mean '{known}'?); they" in found[0]


def _doubts(folder: Path, *changes: tuple[str, str]) -> list[str]:
    """All but that the reference is a model from outside, which it is in this recipe."""
    loaded = _loaded(folder, *changes)
    return [doubt for doubt in doubts(loaded, folder) if "comes from outside" not in doubt]


def _loaded(folder: Path, *changes: tuple[str, str]) -> Recipe:
    _checked(folder, *changes)
    return load_recipe(folder / "changed.toml")


PRETRAINED = """
[steps.pretrained]
run = "train"
model = { size = "nano", family = "t5", tokenizer = "corpus" }
data = "corpus"
objective = "span_corruption"
max_length = 512
max_steps = 1
"""


def test_span_corruption_cuts_chunks_anew_and_needs_sentinels(folder: Path) -> None:
    learned = 'tokenizer = { train_on = "texts", vocab_size = 400, sentinels = 27 }'
    text = corpora.RECIPE[: corpora.RECIPE.index("[steps.by_teacher]")] + PRETRAINED
    tokenized = ('tokenizer = "model"', learned)
    message = _checked(folder, tokenized, text=text)
    assert "needs 28 sentinels, and the tokenizer of 'corpus' has 27" in message
    assert "steps.corpus.tokenizer.sentinels = 100" in message
    # chunks of 24 tokens are cut anew for inputs of 16, which need fewer sentinels
    assert _checked(folder, tokenized, ("max_length = 512", "max_length = 16"), text=text) == ""
    cached = text + '[steps.kept]\nrun = "cache"\nteacher = "pretrained"\ndata = "corpus"\n'
    cached += 'objective = "span_corruption"\n'
    assert "masks different tokens in every epoch" in _checked(folder, tokenized, text=cached)
