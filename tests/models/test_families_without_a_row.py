"""A family that attar knows no parts of is trained, judged and learned from by its predictions;
what needs its parts says which families have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch.utils.flop_counter import FlopCounterMode

import language_runs
import tiny
import training_runs
from attar.artifacts import read_result
from attar.errors import ModelError
from attar.models.capture import capture
from attar.models.cost import counted_flops, flops
from attar.models.load import load_model
from attar.models.surgery import keep_blocks
from attar.recipe.run import run_recipe

VOCABULARY = 80
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SETTINGS = "max_steps = 3\nbatch_size = 8\nmax_length = 24\nevaluations = 1\n"
SPEED = "speed = { batch_sizes = [1], tokens = 8, threads = 1, rounds = 3, calls = 1 }"
CLASSES = f"""
name = "r"
[data.films]
source = "files"
path = "films"
text = "text"
[steps.big]
run = "train"
model = "big_model"
data = "films"
{SETTINGS}
[steps.answers]
run = "cache"
teacher = "big"
data = "films"
max_length = 24
[steps.small]
run = "train"
model = "bert"
teacher = "big"
data = "films"
{SETTINGS}
[steps.scores]
run = "evaluate"
models = ["big", "small"]
data = "films"
bootstrap = 100
memory = false
{SPEED}
"""
RUNNING_TEXT = f"""
name = "r"
[data.text]
source = "files"
path = "text"
text = "text"
objective = "causal_lm"
[steps.model]
run = "train"
model = "mamba"
data = "text"
{SETTINGS}
[steps.scores]
run = "evaluate"
models = ["model"]
data = "text"
bootstrap = 100
memory = false
{SPEED}
"""


def albert() -> Any:
    config = hf.AlbertConfig(
        **{**SIZES, **IDS, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 24},
        **{"max_position_embeddings": 32, "id2label": {0: "bad", 1: "good"}},
    )
    model: Any = hf.AlbertForSequenceClassification
    return model._from_config(config, attn_implementation="eager").eval()


def mamba(kind: str) -> Any:
    if kind == "mamba":
        return hf.MambaForCausalLM(hf.MambaConfig(**SIZES, **IDS, state_size=4)).eval()
    sizes = {"num_heads": 4, "head_dim": 8, "state_size": 4, "n_groups": 1, "chunk_size": 8}
    return hf.Mamba2ForCausalLM(hf.Mamba2Config(**SIZES, **IDS, **sizes)).eval()


def save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)


def run(folder: Path, text: str) -> dict[str, Any]:
    """Metrics of the step `scores`."""
    recipe = folder / "r.toml"
    recipe.write_text(text)
    run_recipe(recipe, out=folder / "runs", quiet=True)
    return dict(read_result(folder / "runs" / "r" / "scores").metrics)


def test_a_classifier_is_trained_judged_and_a_teacher_of_predictions(tmp_path: Path) -> None:
    training_runs.write_films(tmp_path / "films")
    tiny.write_tiny_bert(tmp_path / "bert")
    save(albert(), tmp_path / "big_model")
    metrics = run(tmp_path, CLASSES)
    assert set(metrics["models"]) == {"big", "small"}


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_a_state_space_model_is_trained_and_scored(kind: str, tmp_path: Path) -> None:
    language_runs.write_running_text(tmp_path / "text", documents=6)
    save(mamba(kind), tmp_path / "mamba")
    perplexity = run(tmp_path, RUNNING_TEXT)["models"]["model"]["perplexity"]
    assert perplexity["value"] > 1


@pytest.mark.parametrize("make", [albert, lambda: mamba("mamba"), lambda: mamba("mamba2")])
def test_its_operations_are_those_that_torch_counts_on_the_model_itself(make: Any) -> None:
    model = make()
    ids = torch.full((3, 11), 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids)
    assert flops(model, 3, 11) == counter.get_total_flops()


LOOK_FOR_A_TOKEN = {"bart", "t5", "t5_gated"}
"""Families whose classifiers ask for the value of an id, which a tensor without memory lacks."""


@pytest.mark.parametrize("family", sorted(set(tiny.FAMILIES) - LOOK_FOR_A_TOKEN))
def test_formulas_of_rows_and_torchs_counter_agree(family: str) -> None:
    model = tiny.tiny_model(family)
    assert flops(model, 3, 13) == counted_flops(model, 3, 13)


@pytest.mark.parametrize("make", [albert, lambda: mamba("mamba")])
def test_what_needs_its_parts_names_the_families_that_have_them(make: Any) -> None:
    model = make()
    words = (
        r"does not know the structure of models of type '(albert|mamba)'.*works for: bert, roberta"
    )
    with pytest.raises(ModelError, match=words):
        keep_blocks(model, [0])
    with pytest.raises(ModelError, match=words), capture(model):
        pass


def test_texts_longer_than_its_positions_are_refused(tmp_path: Path) -> None:
    save(albert(), tmp_path)
    task = load_model(tmp_path).task
    assert task is not None
    assert task.max_length == 32
    with pytest.raises(ModelError, match="has 32 positions, max_length is 33"):
        load_model(tmp_path, task=task.model_copy(update={"max_length": 33}))


def test_a_model_whose_operations_cannot_be_counted_is_refused_with_a_reason() -> None:
    config = hf.XLNetConfig(vocab_size=60, d_model=16, n_layer=1, n_head=2, d_inner=16)
    with pytest.raises(ModelError, match="XLNetForSequenceClassification cannot be counted"):
        flops(hf.XLNetForSequenceClassification(config), 1, 8)


def test_counts_of_parts_that_no_model_has_are_refused(tmp_path: Path) -> None:
    model = albert()
    model.config.num_hidden_groups = 10**7
    save(model, tmp_path)
    with pytest.raises(ModelError, match="num_hidden_groups is 10000000, it must be 1 to 1000"):
        load_model(tmp_path)
