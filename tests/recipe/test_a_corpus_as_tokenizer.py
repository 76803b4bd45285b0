"""A recipe without a model from outside: a tokenizer is learned, and models take the corpus's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import corpora
from attar import cli
from attar.artifacts import read_result
from attar.data.corpus.token_store import Corpus
from attar.errors import DataError, RecipeError
from attar.models.named_sizes import DECODER_SIZES, FAMILIES_OF_SIZES
from attar.recipe.keys import keys_of
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe
from attar.recipe.run import run_recipe

RECIPE = """
name = "learned"

[data.texts]
source = "files"
path = "texts"
text = "text"
objective = "causal_lm"

[data.others]
source = "files"
path = "others"
text = "text"
objective = "causal_lm"

[steps.corpus]
run = "tokenize"
data = "texts"
tokenizer = { train_on = "others", vocab_size = 300 }
max_length = 24
reserve = 0.5

[steps.model]
run = "train"
data = "corpus"
part = "reserved"
max_steps = 1
batch_size = 2
max_length = 24
evaluations = 1
precision = "fp32"

[steps.model.model]
size = "pico"
family = "llama"
tokenizer = "corpus"

[steps.model.model.config]
hidden_size = 16
intermediate_size = 16
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2

[steps.scores]
run = "score"
model = "model"
data = "corpus"

[steps.again]
run = "tokenize"
data = "texts"
tokenizer = "corpus"
max_length = 24
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    corpora.write_documents(folder / "texts")
    corpora.write_documents(folder / "others", 90)
    file = folder / "learned.toml"
    file.write_text(RECIPE)
    return file


def test_what_is_planned_is_what_is_made_and_a_trained_model_scores(recipe: Path) -> None:
    planned = {step.name: step for step in plan_recipe(load_recipe(recipe), recipe.parent).steps}
    run_recipe(recipe, out=recipe.parent / "runs", quiet=True)
    folder = recipe.parent / "runs" / "learned"
    metrics = {name: read_result(folder / name).metrics for name in planned}
    assert planned["model"].num_params == metrics["model"]["num_params"]
    assert metrics["scores"]["chunks"] == metrics["corpus"]["chunks_by_part"]["scored"] > 0
    first, second = (Corpus.open(folder / name).about for name in ("corpus", "again"))
    assert first["tokenizer"] == second["tokenizer"]
    assert first["vocabulary"] == 300


@pytest.mark.parametrize(
    "family", [name for name, row in FAMILIES_OF_SIZES.items() if row.sizes is DECODER_SIZES]
)
def test_every_family_is_planned_before_its_tokenizer_is_there(recipe: Path, family: str) -> None:
    """Some take their own end token, which the vocabulary may not have, for padding."""
    if family == "qwen2":  # transformers would read the saved tokenizer otherwise
        pytest.skip("takes tokenizers of its own type only")
    model = f"steps.model.model={{ size = 'pico', family = '{family}', tokenizer = 'corpus' }}"
    found = plan_recipe(load_recipe(recipe, [model]), recipe.parent).steps
    params = next(step.num_params for step in found if step.name == "model")
    assert params is not None
    positions = 1024 if family == "gpt2" else 0
    assert params == pytest.approx(0.803e6 + (300 + positions) * 128, rel=0.02)


def test_the_text_a_tokenizer_is_learned_from_is_part_of_the_key(recipe: Path) -> None:
    def keys() -> dict[str, str]:
        loaded = load_recipe(recipe)
        found = keys_of(loaded, loaded.order, recipe.parent)
        return {name: step.key for name, step in found.items()}

    before = keys()
    file = recipe.parent / "others" / "train.jsonl"
    text = file.read_text()
    file.write_text(text + json.dumps({"text": "one more"}) + "\n")
    after = keys()
    file.write_text(text)
    assert all(before[name] != after[name] for name in before)


def test_text_that_is_too_short_is_refused(recipe: Path) -> None:
    with pytest.raises(
        DataError, match=r"corpus: tokenizer.vocab_size is 4,096, but data 'others'"
    ):
        run_recipe(
            recipe,
            overrides=["steps.corpus.tokenizer.vocab_size=4096"],
            out=recipe.parent / "short",
            quiet=True,
        )


def test_a_folder_that_holds_a_tokenizer_alone_is_one(recipe: Path) -> None:
    folder = recipe.parent / "words"
    corpora.write_tokenizer(folder)

    def keys() -> dict[str, str]:
        loaded = load_recipe(
            recipe,
            ["steps.corpus.tokenizer=words", "steps.model.model.tokenizer=words"],
        )
        return {n: s.key for n, s in keys_of(loaded, loaded.order, recipe.parent).items()}

    before = keys()
    (folder / "model.safetensors").write_bytes(b"weights that nobody reads")
    assert keys() == before
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("{", '{"padding_side": "left", ', 1))
    assert all(before[name] != key for name, key in keys().items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["steps.corpus.reserve=1e-9"], r"corpus: reserve = 1e-09 puts none of 60 documents"),
        (["steps.corpus.reserve=0.999999"], r"puts all 60 documents into the reserved part"),
        (["steps.corpus.share=1e-9"], r"none of the documents of data 'texts' is read"),
    ],
)
def test_a_part_without_documents_is_refused_by_plan_and_step(
    recipe: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        plan_recipe(load_recipe(recipe, overrides), recipe.parent)
    setting, value = overrides[0].removeprefix("steps.corpus.").split("=")
    corpora.write_tokenizer(tmp_path / "model")
    corpora.write_documents(tmp_path / "texts")
    with pytest.raises(DataError, match=message):
        corpora.tokenized(tmp_path, settings={setting: float(value)})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps.corpus.tokenizer.train_on=other", r"no \[data.other\] \(did you mean 'others'\?\)"),
        ("steps.again.tokenizer={ train_on = 'corpus', vocab_size = 300 }", "rows of its own"),
        ("steps.again.tokenizer=scores", "runs 'score'; this place needs a step that runs 'train'"),
        ("steps.model.model=corpus", "runs 'tokenize'; this place needs"),
        ("steps.corpus.tokenizer.vocab_size=200", "vocab_size must be at least 257"),
        ("steps.corpus.tokenizer.size=300", "did you mean 'vocab_size'?"),
        ("steps.model.model.size=nanno", r"model.size .*did you mean 'nano'"),
        ("steps.model.model.tokenizer=corpsu", "did you mean 'corpus'"),
        ("steps.model.model.tokenizer=prose", r"\[data.prose\] is data"),
        ("steps.model.model={ size = 'nano', family = 'llama' }", "tokenizer .*missing"),
    ],
)
def test_mistakes_are_named(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe, ["data.prose={ source = 'stdlib_text' }", override])


@pytest.mark.parametrize("flags", [[], ["--tokenizer", "words", "--vocab-size", "300"]])
def test_the_verb_learns_a_tokenizer_or_is_given_one(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    corpora.write_documents(tmp_path / "texts")

    def attar(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["attar", "tokenize", "texts", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    assert attar(*flags) == 2
    assert "train one with --vocab-size 4096" in capsys.readouterr().err
    assert attar("--vocab-size", "300", "--max-length", "24", "--quiet") == 0
    [folder] = (tmp_path / "runs").glob("tokenize-*/tokenize")
    assert Corpus.open(folder).about["vocabulary"] == 300
