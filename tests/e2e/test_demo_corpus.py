"""`make demo-corpus`, on little of its text and for a few steps of small models."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_recipe
from attar.artifacts import read_result
from attar.recipe.load import load_recipe

TRAINED = ("teacher", "reference", "selected", "random")
SMALL = (
    "{ hidden_size = 32, intermediate_size = 32, num_hidden_layers = 1, "
    "num_attention_heads = 2, num_key_value_heads = 2 }"
)
SHRUNK = {
    "data.library.validation_rows": 2,
    "steps.corpus.tokenizer.vocab_size": 300,
    "steps.corpus.tokenizer.max_bytes": 200_000,
    "steps.corpus.share": 0.015,
    "steps.corpus.max_length": 64,
    **{f"steps.{name}.model.config": SMALL for name in TRAINED},
    "steps.teacher.model.config": SMALL.replace("num_hidden_layers = 1", "num_hidden_layers = 2"),
    **{f"steps.{name}.max_length": 64 for name in TRAINED},
    **{f"steps.{name}.max_tokens": 2048 for name in TRAINED},
}


@pytest.mark.parametrize("name", ["demo_corpus", "miniplm/smollm2"])
def test_the_students_differ_in_their_text_alone(repository: Path, name: str) -> None:
    recipe = load_recipe(repository / "recipes" / f"{name}.toml")
    selected, drawn = (recipe.steps[name].model_dump() for name in ("selected", "random"))
    assert {name for name in selected if selected[name] != drawn[name]} == {"data"}
    assert selected["precision"] == "fp32"  # not what is measured for each
    kept, random = (recipe.steps[name] for name in ("kept", "drawn"))
    assert kept.keep == random.keep  # type: ignore[union-attr]
    assert recipe.steps["reference"].part == "reserved"  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.e2e
def test_the_demo_goes_from_text_to_two_students_and_a_report(
    repository: Path, tmp_path: Path
) -> None:
    overrides = [word for name, value in SHRUNK.items() for word in ("--set", f"{name}={value}")]
    recipe = repository / "recipes" / "demo_corpus.toml"
    done = tiny_recipe.attar("run", recipe, "--out", tmp_path, *overrides)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "demo_corpus"
    metrics = {name: read_result(run / name).metrics for name in ("scores", *TRAINED)}
    selected, drawn = (metrics[name]["tokens"] for name in ("selected", "random"))
    assert selected == pytest.approx(drawn, rel=0.3)
    assert selected == pytest.approx(2048, rel=0.3)
    names = {difference["metric"] for difference in metrics["scores"]["differences"]}
    assert "bits_per_byte" in names
    page = (run / "report" / "index.html").read_text()
    assert "selected" in page
