"""Students of a selection learn from caches: plan, run, page, and what a check refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpora
from attar.artifacts import read_result
from attar.errors import RecipeError
from attar.recipe.load import load_recipe, parse_recipe
from attar.recipe.plan import plan_recipe
from attar.recipe.run import run_recipe

CACHES = """
[steps.answers]
run = "cache"
teacher = "model"
data = "corpus"
max_length = 24
distribution = { exact = 16, tail_draws = 4 }

[steps.bucket]
run = "cache"
teacher = "model"
data = "kept"
max_length = 24
distribution = { exact = 16, tail = "bucket" }

[steps.bound]
run = "train"
model = "other"
data = "kept"
teacher = "bucket"
max_steps = 2
max_length = 24
evaluations = 1
precision = "fp32"

[steps.report]
run = "report"
"""
RECIPE = corpora.RECIPE.partition("[steps.scores]")[0].replace(
    'run = "train"\nmodel = "model"', 'run = "train"\nmodel = "other"\nteacher = "answers"'
)


@pytest.mark.slow
def test_students_of_a_selection_learn_from_caches_as_planned_and_the_page_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
    file = corpora.write_recipe(tmp_path, RECIPE + CACHES)
    plan = {step.name: step for step in plan_recipe(load_recipe(file), tmp_path).steps}
    run_recipe(file, out=tmp_path / "runs", quiet=True)
    made = read_result(tmp_path / "runs" / "selected" / "answers").metrics
    assert plan["answers"].disk_mib == pytest.approx(made["size_mib"], rel=0.3)  # estimated chunks
    assert plan["answers"].note.startswith(f"{made['bytes_per_token']} bytes per token")
    assert plan["student"].flops < plan["answers"].flops * 10
    page = (tmp_path / "runs" / "selected" / "report" / "report.md").read_text()
    assert "16 ids exactly, 4 ids drawn from the rest" in page
    assert "16 ids exactly, one bucket for the rest" in page
    assert "a lower bound, not the KL" in page and "estimated without bias" in page
    history = (tmp_path / "runs" / "selected" / "bound" / "history.jsonl").read_text()
    assert "forward_kl_lower_bound" in history and '"forward_kl"' not in history


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps.bound.losses=[{kind='reverse_kl'}]", r"reverse_kl needs .* 'bucket' keeps"),
        ("steps.student.losses=[{kind='jsd'}]", r"jsd needs .* \(16 exact ids and 4 draws"),
        (
            "steps.student.losses=[{kind='forward_kl', temperature=2.0}]",
            r"temperature = 2.0 changes the probability of every token",
        ),
        ("steps.student.data={from='kept', retokenize=true}", "retokenize makes other chunks"),
        ("steps.answers.distribution={exact=16}", "set either tail_draws = 8"),
        ("steps.answers.distribution={exact=16, tail_draws=4, tail='bucket'}", "set either"),
        ("steps.answers.distribution='sparse'", "dense"),
        (
            "steps.answers.objective='classification'",
            r"distribution keeps .* one class or score per row; remove distribution",
        ),
    ],
)
def test_what_part_of_a_distribution_cannot_serve_is_refused_by_a_check(
    override: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(RECIPE + CACHES, [override])


def test_all_of_a_distribution_serves_every_loss() -> None:
    dense = ["steps.answers.distribution='dense'", "steps.student.losses=[{kind='jsd'}]"]
    assert "student" in parse_recipe(RECIPE + CACHES, dense).order
