"""A proxy from a sample of scores to a selection and its page, also when it is killed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

import corpora
import forked
import tiny_recipe
from attar.artifacts import read_result
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe

SHORTER = 0.25
"""A plan takes every chunk to be full; a cut at the last sentence end leaves it shorter."""
STEPS = ("corpus", "by_teacher", "by_reference", "proxy", "predicted", "kept")
RECIPE = (
    corpora.RECIPE.partition("[steps.kept]")[0].replace(
        'data = "corpus"', 'data = "corpus"\nchunks = 60'
    )
    + """
[steps.proxy]
run = "proxy"
model = "other"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"
batch_size = 8
max_steps = 30
learning_rate = 3e-3
precision = "fp32"
checkpoint_every = 2

[steps.predicted]
run = "score"
model = "proxy"
data = "corpus"

[steps.kept]
run = "select"
method = "proxy"
data = "corpus"
scores = "predicted"
keep_by_source = { sea = 0.3 }
trim = 0.02
minimum_tokens = 10
near_duplicates = 0.8

[steps.report]
run = "report"

[[gates]]
metric = "proxy.spearman.value"
at_least = -1
"""
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.write_recipe(tmp_path_factory.mktemp("proxies"), RECIPE)


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    done = tiny_recipe.attar("run", recipe, "--out", recipe.parent / "whole")
    assert done.returncode == 0, done.stderr
    return recipe.parent / "whole" / "selected"


@pytest.mark.slow
@pytest.mark.e2e
def test_the_page_says_how_well_the_proxy_ranks_and_what_it_took(whole: Path) -> None:
    content = json.loads((whole / "report" / "report.json").read_text())
    facts = dict(map(tuple, content["selections"][0]["facts"]))
    metrics = {step: read_result(whole / step).metrics for step in STEPS}
    spearman = metrics["proxy"]["spearman"]
    [said] = [value for words, value in facts.items() if words.startswith("Spearman")]
    assert said.endswith(f"on {spearman['n']} held-out chunks")
    [share] = [value for words, value in facts.items() if words.startswith("FLOPs")]
    wanted = 100 * metrics["predicted"]["offline"]["share_of_teacher"]
    assert float(share.removesuffix(" %")) == pytest.approx(wanted, rel=1e-2)
    assert "Spearman correlation of predicted" in (whole / "report" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.e2e
def test_the_plan_foresees_what_the_proxy_takes_beside_the_teacher(
    recipe: Path, whole: Path
) -> None:
    plan = plan_recipe(load_recipe(recipe), recipe.parent)
    [note] = plan.notes
    assert note.startswith("predicted: ")
    assert "the teacher alone would take" in note
    offline = read_result(whole / "predicted").metrics["offline"]
    planned = {step.name: step.flops for step in plan.steps}
    for step, part in (
        ("by_teacher", "teacher"),
        ("proxy", "training"),
        ("predicted", "predicting"),
    ):
        assert planned[step] == pytest.approx(offline[part], rel=SHORTER)


@pytest.mark.slow
@pytest.mark.e2e
def test_a_proxy_killed_in_its_training_ends_with_the_same_bytes(recipe: Path, whole: Path) -> None:
    killed = recipe.parent / "killed"
    process = forked.start("attar", "run", recipe, "--out", killed)
    deadline = time.monotonic() + 120
    scratch = killed / "selected" / ".scratch"
    while not list(scratch.glob("proxy-*/checkpoint-*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "selected" / "proxy").exists()
    done = tiny_recipe.attar("run", recipe, "--out", killed)
    assert done.returncode == 0, done.stderr
    assert "continuing after step" in done.stderr
    for step in STEPS:
        for file in sorted((whole / step).rglob("*")):
            if file.is_file() and file.name not in ("result.json", "history.jsonl"):
                other = killed / "selected" / step / file.relative_to(whole / step)
                assert other.read_bytes() == file.read_bytes(), file
