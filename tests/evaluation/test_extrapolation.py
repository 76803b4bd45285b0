"""The step `extrapolate` on made-up runs, and once behind real training."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import language_runs
import made_up_laws
import made_up_run
import tiny_recipe
from attar.errors import DataError, RecipeError, UsageError
from attar.evaluation.config import ExtrapolateStep
from attar.evaluation.extrapolation import extrapolate
from attar.progress import Progress
from attar.recipe.load import parse_recipe
from attar.step import StepContext
from made_up_laws import FLOPS_PER_TOKEN, LAW, TOKENS, write_run

RECIPE = """
name = "law"

[data.text]
source = "files"
path = "text"
text = "text"
objective = "causal_lm"

[steps.plain]
run = "train"
model = "gpt2"
data = "text"
max_steps = 24
batch_size = 4
max_length = 16
evaluations = 12
learning_rate = 3e-3
schedule = "constant"
precision = "fp32"

[steps.law]
run = "extrapolate"
models = ["plain"]
read_off_tokens = [1e4, 1e12]
fit = { bootstrap = 100, from_share = 0.3 }

[steps.report]
run = "report"
"""


def _run(
    tmp_path: Path, stream: io.StringIO | None = None, **settings: Any
) -> tuple[dict[str, Any], Path]:
    """The step's metrics and folder; every model is one of the folders beside it."""
    fit = {"bootstrap": 100, **settings.pop("fit", {})}
    config = ExtrapolateStep.model_validate({"fit": fit, **settings})
    words = [word for runs in config.groups.values() for word in runs]
    folder = tmp_path / "law"
    folder.mkdir()
    context = StepContext(
        name="law",
        folder=folder,
        scratch=tmp_path / "scratch",
        inputs={word: tmp_path / word for word in words},
        data={},
        recipe_folder=tmp_path,
        progress=Progress(stream) if stream else Progress(quiet=True),
    )
    return extrapolate(config, context), folder


def test_the_law_behind_a_run_is_read_off_at_budgets_beyond_it(tmp_path: Path) -> None:
    write_run(tmp_path, "plain", noise=1e-4)
    metrics, folder = _run(tmp_path, models=("plain",), read_off_tokens=(8e6, 1e8))
    json.dumps(metrics, allow_nan=False)
    law = metrics["models"]["plain"]
    assert (law["points"], law["left_out"], law["last_tokens"]) == (17, 3, TOKENS)
    assert law["floor"]["low"] < LAW.floor < law["floor"]["high"]
    for read_off, tokens in zip(law["read_offs"], (8e6, 1e8), strict=True):
        truth = LAW(tokens * FLOPS_PER_TOKEN)
        assert read_off["value"] == pytest.approx(truth, rel=0.02)
        assert read_off["low"] < truth < read_off["high"]
        assert read_off["flops"] == tokens * FLOPS_PER_TOKEN
        assert read_off["times_beyond"] == tokens / TOKENS
    assert law["notes"] == []
    drawn = json.loads((folder / "extrapolation.json").read_text())["plain"]
    assert len(drawn["points"]) == law["points"]
    assert drawn["curve"][-1]["tokens"] == pytest.approx(1e8)


def test_a_read_off_far_beyond_the_run_is_called_so(tmp_path: Path) -> None:
    write_run(tmp_path, "plain", noise=1e-4)
    stream = io.StringIO()
    metrics, folder = _run(tmp_path, stream, models=("plain",), read_off_tokens=(1e7, 1e12))
    [note] = metrics["models"]["plain"]["notes"]
    assert "1e+12 tokens are 5e+05 times beyond the last point, 2e+06" in note
    assert note in " ".join(stream.getvalue().split())
    drawn = json.loads((folder / "extrapolation.json").read_text())["plain"]
    assert drawn["curve"][-1]["tokens"] == pytest.approx(1000 * TOKENS)


def test_a_floor_that_the_points_leave_open_is_called_so(tmp_path: Path) -> None:
    write_run(tmp_path, "plain", evaluations=8, noise=0.01)
    found = _run(tmp_path, models=("plain",), read_off_tokens=(4e6,))[0]["models"]["plain"]
    assert not found["floor_identified"]
    assert any("L∞ is not identified" in note for note in found["notes"])


def test_runs_of_other_seeds_share_a_law(tmp_path: Path) -> None:
    for name in ("a", "bb"):
        write_run(tmp_path, name, noise=1e-3)
    found = _run(tmp_path, models=(("a", "bb"),))[0]["models"]
    assert list(found) == ["a + bb"]
    assert (found["a + bb"]["points"], found["a + bb"]["runs"]) == (34, ["a", "bb"])


def test_the_same_seed_draws_the_same_interval(tmp_path: Path) -> None:
    write_run(tmp_path, "plain", noise=1e-3)
    first, folder = _run(tmp_path, models=("plain",))
    folder.rename(tmp_path / "first")
    assert _run(tmp_path, models=("plain",))[0] == first


def test_runs_of_different_cost_are_not_seeds_of_each_other(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    write_run(tmp_path, "b", flops_per_token=2e6)
    with pytest.raises(UsageError, match=r"1e\+06 to 2e\+06 FLOPs.*fit a separate law"):
        _run(tmp_path, models=(("a", "b"),))


def test_losses_of_classes_and_too_few_evaluations_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "classes", metric="accuracy")
    with pytest.raises(UsageError, match="trained for classification, whose validation has no nll"):
        _run(tmp_path, models=("classes",))
    (tmp_path / "law").rmdir()
    write_run(tmp_path, "short", evaluations=5)
    with pytest.raises(DataError, match=r"short: 4 evaluations from 30% .* needs 5; raise"):
        _run(tmp_path, models=("short",), fit={"from_share": 0.3})


def test_five_evaluations_after_the_warm_up_are_enough() -> None:
    fewest = RECIPE.replace("evaluations = 12", "evaluations = 6")
    assert parse_recipe(fewest).order == ["plain", "law", "report"]
    budgets = "evaluations = 5\nevaluate_at_tokens = [1000]"
    assert parse_recipe(RECIPE.replace("evaluations = 12", budgets)).order


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("evaluations = 12", "evaluations = 5", "has 4 evaluations from 30% .* = 10 or more"),
        ('models = ["plain"]', 'models = ["text"]', "no step 'text'"),
        ('models = ["plain"]', 'models = [["plain", "plain"]]', "named more than once"),
        ('models = ["plain"]', 'models = [["plain"], ["pain"]]', "did you mean 'plain'"),
        ('models = ["plain"]', 'models = ["report"]', "needs a step that runs 'train'"),
        ('objective = "causal_lm"\n', "", "only the nll of causal language models"),
        ("from_share = 0.3", "from_share = 1.0", "less than 1"),
        ("[1e4, 1e12]", "[]", "read_off_tokens"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_training(old: str, new: str, said: str) -> None:
    assert old in RECIPE
    with pytest.raises(RecipeError, match=said):
        parse_recipe(RECIPE.replace(old, new))


def test_the_page_has_the_law_its_constants_and_its_warning(tmp_path: Path) -> None:
    write_run(tmp_path, "plain", noise=1e-4)
    write_run(tmp_path, "student", made_up_laws.PowerLaw(250.0, 0.25, 2.4), noise=1e-4)
    metrics, folder = _run(tmp_path, models=("plain", "student"), read_off_tokens=(8e6, 1e12))
    drawn = (folder / "extrapolation.json").read_text()
    step = made_up_run.write_step(tmp_path / "made", "law", "extrapolate", metrics)
    (step / "extrapolation.json").write_text(drawn)
    recipe = {"name": "demo", "steps": {"law": {"run": "extrapolate"}}}
    page = made_up_run.make_report(tmp_path / "report", {"law": step}, recipe).read_text()
    assert page.count('aria-label="Validation loss against tokens') == 2
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## Extrapolation" in text
    value = metrics["models"]["student"]["read_offs"][0]["value"]
    assert f"{value:.3f} (" in text
    assert "times beyond the last point" in text


@pytest.mark.slow
def test_a_recipe_trains_fits_and_reports(tmp_path: Path) -> None:
    language_runs.write_running_text(tmp_path / "text", documents=60)
    reference = language_runs.model_config(tmp_path / "words", "gpt2")
    config = json.dumps(reference["config"]).replace('": ', '" = ')
    model = f'{{ config = {config}, tokenizer = "words" }}'
    recipe = tmp_path / "law.toml"
    recipe.write_text(RECIPE.replace('model = "gpt2"', f"model = {model}"))
    done = tiny_recipe.attar("run", recipe, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "times beyond the last point" in " ".join(done.stderr.split())
    run = tmp_path / "runs" / "law"
    law = json.loads((run / "law" / "result.json").read_text())["metrics"]["models"]["plain"]
    assert law["points"] == 9
    assert law["read_offs"][0]["low"] <= law["read_offs"][0]["high"]
    assert "Extrapolation" in (run / "report" / "report.md").read_text()
