"""What the page says of folded models, and of runs that failed beside their other seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_up_run
from attar.report.charts.pictures import training_pictures
from attar.report.html import html_of
from attar.report.markdown import markdown_of
from attar.report.reading import Made, read_made
from attar.report.sections.lineage import verb
from attar.report.sections.page import page_of
from attar.report.sections.training import failed_of


def write_seeds(out: Path, *, bad: int | None) -> tuple[Made, ...]:
    """Five seeds of a train step and what was folded of each; one of them may plateau."""
    inputs: dict[str, Path] = {}
    steps: dict[str, Any] = {}
    for seed in range(5):
        base, plain = f"base@seed={seed}", f"plain@seed={seed}"
        validation = {"validation": {"loss": 4.4 if seed == bad else 3.0 + seed / 100}}
        inputs[base] = made_up_run.write_step(out, base, "train", validation)
        losses = [max(4.5 if seed == bad else 0, 3 + 5 * 0.9**t + seed / 100) for t in range(60)]
        lines = [json.dumps({"step": t, "loss": loss}) for t, loss in enumerate(losses)]
        (inputs[base] / "history.jsonl").write_text("\n".join(lines))
        steps |= {base: {"run": "train", "model": "bert"}, plain: {"run": "fold", "model": base}}
        inputs[plain] = made_up_run.write_step(out, plain, "fold", FOLDED)
    return read_made(inputs, {"steps": steps})


PARTS = {
    "before": {
        "embedding": {"num_params": 1000, "flops": 0},
        "encoder.ffn": {"num_params": 8000, "flops": 16000},
    },
    "after": {
        "embedding": {"num_params": 1000, "flops": 0},
        "encoder.ffn": {"num_params": 2000, "flops": 4000},
    },
}
FOLDED = {
    "variant": {"from": "3w", "to": "1w"},
    "folded": 4,
    "norms_folded": 0,
    "certificate": {
        "relative_difference": 2.5e-7,
        "max_relative_difference": 1e-4,
        "block_error": 1e-15,
        "max_block_error": 1e-12,
        "examples": 64,
    },
    "num_params": 3000,
    "tokens": 128,
    "parts": PARTS,
}


def test_a_run_that_failed_is_named_and_dashed(tmp_path: Path) -> None:
    made = write_seeds(tmp_path, bad=3)
    page = page_of(made, {})
    [training] = page.trainings
    assert training.failed == ("seed=3",)
    assert [curve.name for curve in training.loss if curve.is_failed] == ["seed=3 (failed)"]
    [sweep] = page.sweeps
    assert (sweep.name, sweep.failed) == ("base", ("seed=3",))
    assert sweep.spreads["loss"].n == 5
    picture = training_pictures(training)[0]
    assert picture.wide.count("stroke-dasharray") >= 1
    html = html_of(page, made)
    assert "1 of 5 runs failed" in html
    assert "seed=3 (failed)" in markdown_of(html, "page")


def test_runs_that_went_well_are_not_marked(tmp_path: Path) -> None:
    made = write_seeds(tmp_path, bad=None)
    assert failed_of(made) == ()
    page = page_of(made, {})
    assert "runs failed" not in html_of(page, made)
    assert "6,4" not in training_pictures(page.trainings[0])[0].wide


def test_settings_are_judged_apart(tmp_path: Path) -> None:
    """A setting with a higher loss has not failed: only seeds are compared."""
    inputs: dict[str, Path] = {}
    for weight, level in ((1, 1.0), (2, 3.0)):
        for seed in range(3):
            name = f"base@weight={weight},seed={seed}"
            inputs[name] = made_up_run.write_step(tmp_path, name, "train", {})
            lines = [json.dumps({"step": t, "loss": level + seed / 100}) for t in range(8)]
            (inputs[name] / "history.jsonl").write_text("\n".join(lines))
    assert failed_of(read_made(inputs, {})) == ()


def test_a_fold_shows_its_certificate_and_its_parts(tmp_path: Path) -> None:
    inputs = {"plain": made_up_run.write_step(tmp_path, "plain", "fold", FOLDED)}
    made = read_made(inputs, {"steps": {"plain": {"run": "fold", "model": "base"}}})
    page = page_of(made, {})
    [fold] = page.folds
    assert fold.what == "3w → 1w"
    assert dict(fold.facts)["largest difference of a logit"] == "2.5e-07 of the largest (≤ 1e-04)"
    assert [part.name for part in fold.parts] == ["embedding", "encoder.ffn", "all"]
    assert fold.parts[-1].figures[:2] == ("9\u00a0k", "3\u00a0k")
    assert fold.parts[1].figures[2] == fold.parts[1].figures[5]
    assert "3w → 1w" in html_of(page, made)
    assert verb(made[0]) == "folded to 1w"


def test_folds_of_several_seeds_share_a_table_with_the_largest_change(tmp_path: Path) -> None:
    inputs, steps = {}, {}
    for seed, change in enumerate((2e-7, 3e-7, 1e-7)):
        proof = FOLDED["certificate"] | {"relative_difference": change}
        name = f"plain@seed={seed}"
        metrics = FOLDED | {"certificate": proof}
        inputs[name] = made_up_run.write_step(tmp_path, name, "fold", metrics)
        steps[name] = {"run": "fold", "model": f"base@seed={seed}"}
    [fold] = page_of(read_made(inputs, {"steps": steps}), {}).folds
    assert fold.name == "plain"
    facts = dict(fold.facts)
    assert facts["runs"] == "3"
    assert facts["largest difference of a logit"] == "3.0e-07 of the largest (≤ 1e-04)"


PARTS = {
    "encoder.ffn": {"num_params": 8_000, "flops": 64_000},
    "head": {"num_params": 1_000, "flops": 2_000},
}
STAGE = {"p50": 2.0, "p95": 3.0, "batch": 1, "tokens": 64, "speedup": {"median": 1.5}}


def test_parts_and_stages_of_measured_models_are_shown(tmp_path: Path) -> None:
    """Models of equal parts share a row; the stages of seeds are their mean."""
    figures = {"accuracy": {"value": 0.7}, "form": "float", "parts": PARTS}
    slower = STAGE | {"p50": 4.0}
    models = {
        "a@seed=0": figures | {"stages": {"prefill": STAGE, "decode_step": STAGE}},
        "a@seed=1": figures | {"stages": {"prefill": slower, "decode_step": STAGE}},
        "b": figures | {"parts": {"encoder.ffn": PARTS["encoder.ffn"]}},
    }
    inputs: dict[str, Path] = {}
    steps: dict[str, Any] = {}
    for seed, names in enumerate((("a@seed=0", "b"), ("a@seed=1", "b"))):
        step = f"scores@seed={seed}"
        metrics = {"models": {name: models[name] for name in names}, "data": {"name": "films"}}
        metrics |= {"flops_tokens": 64}
        inputs[step] = made_up_run.write_step(tmp_path, step, "evaluate", metrics)
        steps[step] = {"run": "evaluate", "models": list(names)}
    made = read_made(inputs, {"steps": steps})
    page = page_of(made, {})
    [found] = page.parts
    assert found.names == ("encoder.ffn", "head", "all")
    assert found.step == "scores"
    assert [row.models for row in found.rows] == ["a", "b"]
    assert found.rows[0].figures[-1] == ("9\u00a0k", "66\u00a0k")
    assert found.rows[1].figures[1] == ("–", "–")
    assert found.shape == "1 × 64"
    assert [row.model for row in found.stages] == ["a"]
    assert found.stages[0].figures == (("3", "3", "1.5×"), ("2", "3", "1.5×"))
    twin = markdown_of(html_of(page, made), "t")
    assert "| decode step ms: p50 |" in twin
    assert "## Cost by part" in twin
    assert "for a text of 64 tokens" in twin
    assert found.heads == (("encoder", ("ffn",)), ("head", ()), ("all", ()))
    assert "| model | encoder: ffn | head | all |" in twin
