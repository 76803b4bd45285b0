"""Every family of the named sizes is planned, trained over shards, scored with and judged: one run
of them all, at toy widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

import corpora
import tiny
from attar.artifacts import read_result
from attar.data.corpus.token_store import Corpus
from attar.errors import ModelError
from attar.models.config import FromConfig
from attar.models.cost import Cost, flops, forward_flops
from attar.models.head_chunks import has_plain_head
from attar.models.load import build_model, load_model
from attar.recipe.load import load_recipe
from attar.recipe.outcome.sweep import expand
from attar.recipe.plan import Plan, plan_recipe
from attar.recipe.run import run_recipe
from attar.selection.scores import read_scores, score_file
from attar.training.config import TrainStep

GATED = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
MAMBA = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
TOY: dict[str, dict[str, Any]] = {
    "llama": {**GATED, **HEADS},
    "qwen2": {**GATED, **HEADS},
    "qwen3": {**GATED, **HEADS, "head_dim": 8},
    "gpt2": {"n_embd": 16, "n_inner": 24, "n_layer": 1, "n_head": 2},
    "mamba": {**MAMBA, "time_step_rank": 1},
    "mamba2": {**MAMBA, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
}
"""Every family that has the decoders' sizes → widths for a test."""
TEXTS = """
name = "families"
[data.texts]
source = "files"
path = "texts"
text = "text"
objective = "causal_lm"
[steps.corpus]
run = "tokenize"
data = "texts"
tokenizer = "model"
max_length = 24
reserve = 0.8
"""
STEPS = """
[steps.{family}]
run = "train"
model = {{ size = "pico", family = "{family}", config = {toy}, tokenizer = "corpus" }}
data = "corpus"
part = "reserved"
max_length = 24
max_steps = 2
batch_size = 4
learning_rate = 3e-2
warmup_steps = 0
evaluations = 1
precision = "fp32"
[steps.by_{family}]
run = "score"
model = "{family}"
data = "corpus"
"""


def table(values: dict[str, Any]) -> str:
    return (
        "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items()) + " }"
    )


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    corpora.write_documents(folder / "texts", count=40)
    corpora.write_tokenizer(folder / "model")
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": corpora.END}  # qwen2 has no other
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    steps = [STEPS.format(family=f, toy=table(TOY[f])) for f in TOY]
    scores = f"""
[steps.scores]
run = "evaluate"
models = {json.dumps(list(TOY))}
data = "texts"
bootstrap = 100
memory = false
speed = false
"""
    (folder / "families.toml").write_text(TEXTS + "".join(steps) + scores)
    return folder / "families.toml"


@pytest.fixture(scope="module")
def plan(recipe: Path) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
        return plan_recipe(expand(load_recipe(recipe)).recipe, recipe.parent)


@pytest.fixture(scope="module")
def runs(recipe: Path) -> Path:
    return run_recipe(recipe, out=recipe.parent / "runs", quiet=True).folder


@pytest.mark.parametrize("family", TOY)
def test_a_family_is_planned_trained_and_judged(family: str, plan: Plan, runs: Path) -> None:
    planned = {step.name: step for step in plan.steps}[family]
    metrics = read_result(runs / family).metrics
    assert (metrics["num_params"], metrics["steps"]) == (planned.num_params, 2)
    assert metrics["matmul_share"] > 0
    assert load_model(runs / family / "model").model.config.model_type == family
    history = map(json.loads, (runs / family / "history.jsonl").read_text().splitlines())
    before = next(line["loss"] for line in history if "loss" in line)
    assert metrics["validation"]["nll"] < before
    judged = read_result(runs / "scores").metrics["models"][family]
    assert judged["nll"]["value"] == pytest.approx(metrics["validation"]["nll"], rel=0.05)


@pytest.mark.parametrize("family", TOY)
def test_a_family_scores_chunks_as_its_own_logits_say(family: str, runs: Path) -> None:
    """Whatever it is padded with, and although its logits are computed some rows at a time."""
    model: Any = load_model(runs / family / "model").model
    assert has_plain_head(model)
    shard = Corpus.open(runs / "corpus").shards[0]
    found = read_scores(score_file(runs / f"by_{family}", 0))
    assert len(set(found.tokens.tolist())) > 3
    for row, log_p in zip(found.row[::8], found.log_p[::8], strict=True):
        ids = torch.from_numpy(shard.chunk(int(row)))[None]
        with torch.no_grad():
            log_probs = model(ids).logits.log_softmax(-1)
        wanted = log_probs[0, :-1].gather(1, ids[0, 1:, None]).sum()
        assert log_p == pytest.approx(float(wanted), rel=2e-5, abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba", "mamba2"])
def test_operations_over_chunks_are_those_that_torch_counts(family: str) -> None:
    model = random_model(family, TOY[family], attn_implementation="eager").eval()
    lengths = np.array([1, 2, 7, 8, 9, 21])
    counted = 0
    for length in lengths.tolist():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(input_ids=torch.full((1, length), 5), use_cache=False)
        assert flops(model, 1, length) == counter.get_total_flops()
        counted += counter.get_total_flops()
    assert forward_flops(model, lengths) == counted


def random_model(family: str, sizes: dict[str, Any], **settings: Any) -> Any:
    config = AutoConfig.for_model(family, vocab_size=8, **sizes)
    return AutoModelForCausalLM.from_config(config, **settings)


def test_a_tokenizer_that_transformers_would_rebuild_is_refused(tmp_path: Path) -> None:
    """AutoTokenizer makes a Qwen2Tokenizer of any tokenizer beside a qwen2 model."""
    corpora.write_tokenizer(tmp_path / "words")
    for family in TOY:
        reference = FromConfig(size="pico", family=family, config=TOY[family], tokenizer="words")
        if family == "qwen2":
            with pytest.raises(ModelError, match="uses that type's own pre-tokenization"):
                build_model(reference, {}, tmp_path, None, 0)
        else:
            build_model(reference, {}, tmp_path, None, 0)


@pytest.mark.parametrize("family", ["mamba", "mamba2"])
def test_memory_of_a_state_space_model_is_planned_by_what_it_keeps(family: str) -> None:
    kept: list[int] = []
    for blocks in (1, 2):
        model = random_model(family, TOY[family] | {"num_hidden_layers": blocks}).train()
        kept.append(tiny.saved_bytes(model, 16))
    assert Cost(model).kept_floats(16) / 2 == pytest.approx((kept[1] - kept[0]) / 4, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"from": "mamba", "keep_blocks": [0]}}, "not pruned, analyzed"),
        ({"teacher": "llama", "losses": [{"kind": "hidden_mse"}]}, "not pruned, analyzed"),
        ({"teacher": "llama", "losses": [{"kind": "attention_mse"}]}, "not pruned, analyzed"),
    ],
)
def test_what_needs_attention_or_views_is_refused_before_anything_runs(
    changes: dict[str, Any], message: str, recipe: Path
) -> None:
    whole = load_recipe(recipe)
    written = whole.steps["mamba"].model_dump(by_alias=True) | changes
    steps = {name: whole.steps[name] for name in ("corpus", "llama", "mamba")}
    steps["student"] = TrainStep.model_validate(written)
    with pytest.raises(ModelError, match=message):
        plan_recipe(whole.model_copy(update={"steps": steps}), recipe.parent)
