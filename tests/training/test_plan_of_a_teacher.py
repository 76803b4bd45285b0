"""A student that cannot learn from its teacher is refused before the teacher is trained, in the
words of the step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import language_runs
import tiny
import training_runs
from attar.errors import ModelError, RecipeError
from attar.recipe.load import load_recipe
from attar.recipe.outcome.sweep import expand
from attar.recipe.plan import plan_recipe
from attar.recipe.run import run_recipe
from tiny_recipe import write
from training_runs import run_training

CACHE = """
[steps.answers]
run = "cache"
teacher = "teacher"
data = "films"
max_length = 24
hidden_states = [0, 1]
"""
CACHED = "steps.student.teacher='answers'"
KEEPS = "steps.answers.hidden_states={}"
DEEP = "steps.student.model='deep'"
OTHER_WORDS = "steps.student.model='other'"
HIDDEN = "steps.student.losses=[{ kind = 'hidden_mse' }]"
PREDICTIONS = "steps.student.losses=[{ kind = 'forward_kl' }]"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The teacher trains `bert`; beside it a deeper model, one of two heads, and one of other
    words."""
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
    file = write(tmp_path)
    text = file.read_text()
    file.write_text(text[: text.index("[steps.int8]")] + CACHE)
    tiny.write_tiny_bert(tmp_path / "deep", blocks=3)
    tokenizer = shutil.copytree(tmp_path / "bert", tmp_path / "other") / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    tokenizer.write_text(json.dumps(content))
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    (shutil.copytree(tmp_path / "bert", tmp_path / "two") / "config.json").write_text(
        json.dumps(config | {"num_attention_heads": 2})
    )
    return file


def refused(recipe: Path, *overrides: str) -> str:
    with pytest.raises(ModelError) as told:
        plan_recipe(expand(load_recipe(recipe, overrides)).recipe, recipe.parent)
    return str(told.value)


@pytest.mark.parametrize(
    ("model", "kind", "more", "said"),
    [
        ("other", "forward_kl", [], "2 tokens have other ids"),
        ("other", "forward_kl", [CACHED], "2 tokens have other ids"),
        ("deep", "hidden_mse", [], "got 2 and 3 blocks"),
        ("deep", "hidden_mse", [CACHED], "got 2 and 3 blocks"),
        ("two", "attention_mse", [], "the student has 2 heads, the teacher 4"),
    ],
)
def test_the_plan_says_what_the_step_would_say(
    recipe: Path, model: str, kind: str, more: list[str], said: str
) -> None:
    losses = f"steps.student.losses=[{{ kind = '{kind}' }}]"
    planned = refused(recipe, f"steps.student.model='{model}'", losses, *more)
    assert said in planned
    with pytest.raises(ModelError) as of_the_step:
        run_training(recipe.parent, model=model, teacher="bert", losses=[{"kind": kind}])
    assert planned == f"student: {of_the_step.value}"


def test_a_layer_map_of_states_that_are_not_there_is_refused(recipe: Path) -> None:
    losses = "steps.student.losses=[{ kind = 'hidden_mse', layer_map = { 0 = 0, 1 = 5 } }]"
    assert "(0: embedding output) are 0..1, the teacher's 0..2" in refused(recipe, losses)


def test_a_run_stops_before_the_teacher_is_trained(recipe: Path, tmp_path: Path) -> None:
    for overrides in ([DEEP, HIDDEN], [DEEP, HIDDEN, CACHED]):
        with pytest.raises(ModelError, match=r"^student: hidden_mse.*2 and 3 blocks"):
            run_recipe(recipe, overrides=overrides, out=tmp_path / "runs", quiet=True)
        assert not (tmp_path / "runs" / "tiny" / "teacher").exists()


def test_a_cache_must_be_going_to_keep_what_its_students_compare_with(recipe: Path) -> None:
    told = refused(recipe, CACHED, HIDDEN)
    assert "need hidden state 2 of the encoder, the cache 'answers' has logits and hidden" in told
    assert "set hidden_states = [0, 2] in the cache step" in told
    plan_recipe(load_recipe(recipe, [CACHED, HIDDEN, KEEPS.format("[0, 2]")]), recipe.parent)
    assert "has 3, the encoder of the teacher" in refused(recipe, KEEPS.format("[3]"))
    assert "got 2 and 3 blocks" in refused(recipe, KEEPS.format("'uniform:3'"))


def test_every_copy_of_a_sweep_is_compared(recipe: Path) -> None:
    sweep = 'sweep={ steps = ["student"], "model.keep_blocks" = [[0], [0, 1, 2]] }'
    made = "steps.student.model={ from = 'deep', keep_blocks = [1] }"
    assert "got 2 and 3 blocks" in refused(recipe, sweep, made, HIDDEN)


def test_a_teacher_that_is_there_must_answer_where_it_is_asked(recipe: Path) -> None:
    bare = tiny.write_tiny_bert(recipe.parent / "bare")
    model: Any = BertForSequenceClassification.from_pretrained(bare)
    model.base_model.save_pretrained(bare)
    taught = "steps.student.teacher='bare'"
    assert "has no predictions to learn from" in refused(recipe, taught, PREDICTIONS)
    sensitive = "steps.student.losses=[{ kind = 'sensitivity_mse' }]"
    assert "has no head" in refused(recipe, taught, sensitive)
    plan_recipe(load_recipe(recipe, [taught, HIDDEN]), recipe.parent)


def test_a_teacher_without_positions_for_the_texts_is_refused(recipe: Path) -> None:
    tiny.write_tiny_bert(recipe.parent / "long", positions=128)
    long = ["steps.student.model='long'", "steps.student.max_length=65"]
    with pytest.raises(RecipeError, match="is 65, and 'teacher' has 64 positions"):
        load_recipe(recipe, long)


WRITERS = """
name = "language"

[data.text]
source = "files"
path = "text"
text = "text"
objective = "causal_lm"

[steps.writer]
run = "train"
model = { config = { FIELDS }, tokenizer = "words" }
data = "text"
max_length = 16

[steps.student]
run = "train"
model = { config = { FIELDS }, tokenizer = "words" }
teacher = "writer"
data = "text"
max_length = 16
"""


WriteRecipe = Callable[[str, str], tuple[Path, int]]


@pytest.fixture
def write_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteRecipe:
    """(text, family) → a recipe whose FIELDS are a tiny model's, beside its data, and the number of
    words in its tokenizer."""
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
    language_runs.write_running_text(tmp_path / "text")
    training_runs.write_films(tmp_path / "films")

    def written(text: str, family: str) -> tuple[Path, int]:
        config = language_runs.model_config(tmp_path / "words", family)["config"]
        fields = ", ".join(f"{k} = {json.dumps(v)}" for k, v in config.items() if v != {})
        recipe = tmp_path / "language.toml"
        recipe.write_text(text.replace("FIELDS", fields))
        return recipe, config["vocab_size"]

    return written


def test_a_narrower_language_head_than_the_student_s_is_refused(write_recipe: WriteRecipe) -> None:
    recipe, words = write_recipe(WRITERS, "gpt2")
    plan_recipe(load_recipe(recipe), recipe.parent)
    wider = f"steps.student.model.config.vocab_size={words + 8}"
    assert "so their predictions cannot be compared" in refused(recipe, wider)


JUDGES = """
[data.films]
source = "files"
path = "films"

[steps.wide]
run = "train"
model = { config = { FIELDS }, tokenizer = "words" }
data = "text"
max_length = 16

[steps.judge]
run = "train"
model = "writer"
data = "films"
max_length = 16

[steps.pupil]
run = "train"
model = "wide"
teacher = "judge"
data = "films"
losses = [{ kind = "forward_kl" }]
max_length = 16
"""


def test_classifiers_that_come_from_language_models_are_compared_by_their_classes(
    write_recipe: WriteRecipe,
) -> None:
    """How many words the models they came from could say does not matter to two classes."""
    recipe, words = write_recipe(WRITERS + JUDGES, "gpt2")
    wider = f"steps.wide.model.config.vocab_size={words + 8}"
    plan = plan_recipe(load_recipe(recipe, [wider]), recipe.parent)
    assert "pupil" in [step.name for step in plan.steps]


WORDED = """
name = "worded"

[data.films]
source = "files"
path = "films"

[steps.writer]
run = "train"
model = { config = { FIELDS }, tokenizer = "words" }
data = "films"
objective = "text_to_text"
template = "film: {0}"
label_words = ["poor", "great film"]
max_length = 16

[steps.student]
run = "train"
model = { config = { FIELDS }, tokenizer = "words" }
teacher = "writer"
data = "films"
losses = [{ kind = "cross_entropy" }, { kind = "hidden_mse" }]
max_length = 16
"""


def test_a_t5_that_will_write_is_refused_as_teacher_of_a_classifier(
    write_recipe: WriteRecipe,
) -> None:
    told = refused(write_recipe(WORDED, "t5")[0])
    assert told.startswith("student: teacher writer is a T5ForConditionalGeneration, whose decoder")


def test_a_teacher_that_nothing_compares_with_is_not_looked_at(recipe: Path) -> None:
    alone = "steps.student.losses=[{ kind = 'cross_entropy' }]"
    plan = plan_recipe(load_recipe(recipe, [OTHER_WORDS, alone]), recipe.parent)
    assert "student" in [step.name for step in plan.steps]


def test_asking_draws_no_random_numbers(recipe: Path) -> None:
    """Projections between two widths are made, and the caller's numbers go on untouched."""
    narrow = "steps.student.model={ from = 'teacher', hidden_size = 16, num_attention_heads = 2 }"
    torch.manual_seed(0)
    before = torch.get_rng_state()
    plan_recipe(load_recipe(recipe, [narrow, HIDDEN]), recipe.parent)
    assert torch.equal(torch.get_rng_state(), before)
