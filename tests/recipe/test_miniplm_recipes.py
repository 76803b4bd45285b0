"""The recipes of MiniPLM's tables and figures: the paper's settings, planned without the Pile."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

import corpora
from attar.models.cost import cost_from_config, non_embedding_params
from attar.models.named_sizes import config_of_size
from attar.recipe.checking.doubts import doubts
from attar.recipe.load import load_recipe, require_data
from attar.recipe.outcome.sweep import expand
from attar.recipe.plan import Plan, plan_recipe
from attar.recipe.schema import Recipe
from attar.selection.config import SelectStep, TokenizeStep
from attar.training.config import TrainStep

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "miniplm"
PAPER = sorted(file.stem for file in FOLDER.glob("paper_*.toml"))
LEARNING_RATES = {"104M": 6e-4, "200M": 6e-4, "300M": 6e-4, "500M": 3e-4, "1.2B": 2.5e-4}
QWEN = {
    "model_type": "qwen2",
    **{"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24},
    **{"num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151_936},
    "architectures": ["Qwen2ForCausalLM"],
}
"""Qwen1.5-1.8B."""


@cache
def recipe(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.toml")


def trained(name: str) -> dict[str, TrainStep]:
    steps = expand(recipe(name)).recipe.steps.items()
    return {step: found for step, found in steps if isinstance(found, TrainStep)}


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.toml")))
def test_a_recipe_is_named_after_its_file(name: str) -> None:
    assert recipe(name).name == f"miniplm_{name}"


@pytest.mark.parametrize("name", PAPER)
def test_every_student_is_trained_as_in_the_paper(name: str) -> None:
    assert trained(name)
    for step in trained(name).values():
        model = step.model.model_dump()  # type: ignore[union-attr]
        is_mamba = model["family"] == "mamba"
        size = "104M" if step.part == "reserved" else model["size"]
        assert step.learning_rate == (2e-3 if is_mamba else LEARNING_RATES[size])
        assert step.warmup_steps == (10_000 if is_mamba else 2000)
        wanted = 1e-5 if is_mamba else step.learning_rate / 10
        assert step.learning_rate * step.minimum_ratio == pytest.approx(wanted)
        assert (step.batch_rows, step.schedule, step.max_grad_norm) == (512, "cosine", 1.0)
        assert (step.adam_beta1, step.adam_beta2, step.adam_epsilon) == (0.9, 0.98, 1e-6)
        assert (step.weight_decay, step.max_length) == (0.01, 1024)


@pytest.mark.parametrize("name", PAPER)
def test_the_reference_never_sees_what_is_scored(name: str) -> None:
    steps = expand(recipe(name)).recipe.steps
    corpus = steps["corpus"]
    assert isinstance(corpus, TokenizeStep)
    assert corpus.expect_tokens is not None
    assert corpus.expect_tokens * corpus.reserve == pytest.approx(5e9, rel=0.01)
    references = [step for word, step in trained(name).items() if word.startswith("reference")]
    assert references
    assert all(step.part == "reserved" for step in references)
    kept = {step.keep for step in steps.values() if isinstance(step, SelectStep)}
    expected = {"paper_alpha": {0.3, 0.4, 0.5, 0.6, 0.7, 0.9}, "paper_data_limited": {0.25, 0.5}}
    assert kept == expected.get(name, {0.5})


def test_a_check_says_which_text_is_elsewhere() -> None:
    found = doubts(recipe("paper_200m"), FOLDER)
    assert any(doubt.startswith("data 'pile' is missing") for doubt in found)
    require_data(recipe("paper_200m"), FOLDER)


def plan_with_stand_ins(name: str, folder: Path) -> Plan:
    """Beside it a folder with the teacher's config, and any tokenizer that a Qwen model takes."""
    corpora.write_tokenizer(folder / "qwen")
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": corpora.END}
    (folder / "qwen" / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "qwen" / "config.json").write_text(json.dumps(QWEN))
    copy = folder / "recipe.toml"
    copy.write_text((FOLDER / f"{name}.toml").read_text().replace("Qwen/Qwen1.5-1.8B", "qwen"))
    return plan_recipe(expand(load_recipe(copy)).recipe, folder, flops_per_s=1.5e14)


def test_the_paper_is_planned_without_its_data(tmp_path: Path) -> None:
    plan = plan_with_stand_ins("paper_alpha", tmp_path)
    steps = {step.name: step for step in plan.steps}
    assert steps["by_teacher"].flops == pytest.approx(2 * 1.52e9 * 1e11, rel=0.15)
    assert steps["miniplm@keep=0.5"].counts["steps"] == 100_000
    for share in ("0.3", "0.9"):
        student = steps[f"miniplm@keep={share}"]
        assert student.passes == pytest.approx(0.523 / float(share), rel=0.02)
    assert steps["corpus"].disk_mib > 300_000
    hours = sum(step.flops for step in plan.steps) / 1.5e14 / 3600
    assert f"{hours:,.1f} GPU-hours at an assumed 1.5e+14 FLOP/s" in plan.text()
    assert steps["miniplm@keep=0.3"].seconds == pytest.approx(student.flops / 1.5e14, rel=0.01)


def test_every_baseline_is_as_long_as_the_papers_formulas_say(tmp_path: Path) -> None:
    """Of N_s and N_t parameters without the embeddings, for the FLOPs of 100,000 plain steps."""
    plan = plan_with_stand_ins("paper_200m", tmp_path)
    steps = {step.name: step.counts.get("steps") for step in plan.steps}
    own = {**config_of_size("200M", "qwen2"), "vocab_size": 1000}
    student, teacher = (
        non_embedding_params(
            cost_from_config({**plain, "architectures": ["Qwen2ForCausalLM"]}).model
        )
        for plain in (own, QWEN)
    )
    alone = 100_000 * 3 * student
    assert steps["plain"] == 100_000
    assert steps["seqkd"] == pytest.approx(100_000, rel=0.02)
    for arm in ("vanilla_kd", "cached_kd", "miniplm_kd"):
        assert steps[arm] == pytest.approx(alone / (3 * student + teacher), rel=0.02)
    assert steps["minillm"] == pytest.approx(alone / (4 * student + 2 * teacher), rel=0.02)
