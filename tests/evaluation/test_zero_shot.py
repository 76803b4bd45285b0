"""Zero-shot tasks: what is asked, who answers, and what the result says; beside lm-eval."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
import zero_shot_rows
from attar.artifacts import Result
from attar.errors import DataError, ModelError, RecipeError, StoppedError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.run import evaluate
from attar.evaluation.zero_shot.accuracy import answers_of, entries_of, metrics_of
from attar.evaluation.zero_shot.rows import TaskRows, read_tasks
from attar.evaluation.zero_shot.tasks import TASKS, with_capital
from attar.models.sources.demo import DEMO_MODELS
from attar.numerics.metric_names import AVERAGES, ZERO_SHOT
from attar.numerics.statistics import paired_bootstrap
from attar.progress import Progress, Task
from attar.recipe.keys import keys_of
from attar.recipe.load import load_recipe, parse_recipe, require_data
from attar.recipe.outcome.findings import findings
from attar.recipe.plan import plan_recipe
from attar.recipe.run import run_recipe
from attar.report.quantities import NBSP, metric_text
from attar.report.reading import Made
from attar.report.sections.seed_comparisons import signed
from attar.scoring.shared_prefixes import Likelihoods
from attar.step import StepContext
from fake_hub import serving

FREE = [name for name in TASKS if name != "storycloze"]
RECIPE = f"""
name = "asked"

[steps.zero_shot]
run = "evaluate"
models = ["gpt2", "llama"]
tasks = {json.dumps(list(TASKS))}
path = "tasks"
bootstrap = 200
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task files and two models: one with learned positions, one whose texts begin with a special
    token; both cut long contexts."""
    folder = tmp_path_factory.mktemp("asked")
    zero_shot_rows.write(folder / "tasks")
    zero_shot_rows.write_model(folder / "gpt2", "gpt2")
    zero_shot_rows.write_model(folder / "llama", "llama", begin=True)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def settings(**changes: Any) -> EvaluateStep:
    given = {"models": ("gpt2", "llama"), "tasks": tuple(TASKS), "path": "tasks", "bootstrap": 200}
    return EvaluateStep.model_validate(given | changes)


def run(folder: Path, out: Path, said: io.StringIO | None = None, **changes: Any) -> dict[str, Any]:
    out.mkdir()
    context = StepContext(
        name="zero_shot",
        folder=out,
        scratch=out,
        inputs={},
        data={},
        recipe_folder=folder,
        progress=Progress(stream=said or io.StringIO()),
    )
    return evaluate(settings(**changes), context)


@pytest.fixture(scope="module")
def judged(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, str]:
    """What a step says that asked lm-eval too: it fails where a request differs by 1e-3 nats."""
    pytest.importorskip("lm_eval")
    out, said = tmp_path_factory.mktemp("judged") / "out", io.StringIO()
    return run(folder, out, said, harness="both", batch_tokens=200), out, said.getvalue()


def test_every_request_has_the_log_likelihood_of_lm_eval(judged: Any) -> None:
    metrics, _, said = judged
    for model in ("gpt2", "llama"):
        agreed = metrics["harness"][model]
        assert agreed["requests"] == metrics["requests"] == 50
        assert agreed["largest_difference"] < 1e-4
        assert agreed["other_greedy"] == 0
        assert metrics["models"][model]["cut_off"] > 0
        assert f"model {model!r}: " in said and "their context was truncated on the left" in said


def test_an_evaluation_can_be_stopped_while_lm_eval_runs(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    shown: list[tuple[int, int]] = []

    class Shown(Progress):
        def refresh(self, task: Task) -> None:
            shown.append((task.done, task.total))

    tmp_path = tmp_path / "out"
    tmp_path.mkdir()
    context = StepContext(
        name="zero_shot",
        folder=tmp_path,
        scratch=tmp_path,
        inputs={},
        data={},
        recipe_folder=folder,
        progress=Shown(stream=io.StringIO()),
    )
    config = settings(models=("gpt2",), harness="both")
    evaluate(config, context)
    assert shown[-1] == (100, 100)  # 50 requests, asked twice
    theirs = [done for done, _ in shown if 50 < done < 100]
    assert theirs
    shown.clear()
    stopping = replace(context, should_stop=lambda: bool(shown) and shown[-1][0] >= theirs[0])
    with pytest.raises(StoppedError, match="asking zero-shot tasks has no checkpoint"):
        evaluate(config, stopping)
    assert shown[-1][0] == theirs[0]


def test_a_difference_from_lm_eval_stops_the_step_with_both_numbers(folder: Path) -> None:
    pytest.importorskip("lm_eval")
    from attar.evaluation.zero_shot.harness import require_same, require_same_strings

    tasks = read_tasks(settings(tasks=("piqa", "lambada")), folder)
    ours = Likelihoods(np.arange(6.0), np.ones(6, np.bool_))
    theirs = replace(ours, log_p=np.array([0.0, 1, 2, 3, 4.5, 5]))
    with pytest.raises(
        ModelError, match=r"'m': 1 of 6 requests.*by more than 0.001.*0.5"
    ) as caught:
        require_same(ours, theirs, tasks, "m")
    assert "piqa row 2, answer 1: 4.00000 nats, lm-eval 4.50000" in str(caught.value)
    pairs = [pair for rows in tasks.values() for each in rows.questions for pair in each.pairs]
    require_same_strings(pairs, tasks)
    pairs[3] = pairs[3][0], f"{pairs[3][1]} "
    with pytest.raises(ModelError, match="task 'piqa', row 1, answer 2: attar asks"):
        require_same_strings(pairs, tasks)


def test_the_published_rows_are_asked_with_the_strings_of_lm_eval(shared_data: Path) -> None:
    pytest.importorskip("lm_eval")
    from attar.evaluation.zero_shot.harness import harness_pairs

    tasks = read_tasks(settings(tasks=tuple(FREE), path=str(shared_data), rows=3), shared_data)
    ours = [pair for rows in tasks.values() for each in rows.questions for pair in each.pairs]
    assert ours == [tuple(pair) for pair in harness_pairs(tasks)]


def test_every_accuracy_of_a_zero_shot_task_is_shown_in_percent() -> None:
    assert (*AVERAGES, *TASKS) == ZERO_SHOT
    for metric in ZERO_SHOT:
        assert metric_text(metric, 0.3125).replace(NBSP, " ") == "31.2 %"
        assert signed(0.0123, metric) == "+1.2"


def test_the_average_gives_each_task_the_same_weight(judged: Any) -> None:
    metrics, _, _ = judged
    for found in metrics["models"].values():
        assert found["average"]["value"] == pytest.approx(
            np.mean([found[name]["value"] for name in FREE])
        )
        assert found["average_with_storycloze"]["value"] == pytest.approx(
            np.mean([found[name]["value"] for name in TASKS])
        )
        assert found["average"]["n"] == 2 * len(FREE)
        chances = [metrics["tasks"][name]["chance"] for name in FREE]
        assert found["average"]["chance"] == pytest.approx(np.mean(chances))
        assert found["lambada"]["perplexity"]["value"] > 1
    assert metrics["tasks"]["arc_easy"]["chance"] == pytest.approx((1 / 3 + 1 / 5) / 2)


def test_every_difference_is_told_with_its_task(judged: Any) -> None:
    metrics, _, _ = judged
    sentences = [each["sentence"] for each in metrics["differences"] if each["metric"] == "piqa"]
    assert sentences and "on piqa" in sentences[0]
    said = findings([Made("scores", Result("scores", "evaluate", "k", metrics=metrics))], {})
    assert sentences[0] in said
    assert any("on average" in line for line in said)


def test_predictions_are_kept_with_the_log_likelihood_of_every_answer(judged: Any) -> None:
    _, out, _ = judged
    table = pq.read_table(out / "predictions.parquet").to_pydict()
    assert table["task"].count("arc_easy") == 2
    row = table["task"].index("social_iqa")
    assert table["label"][row] == 0 and len(table["gpt2.log_p"][row]) == 3
    assert table["gpt2.prediction"][row] == int(np.argmax(table["gpt2.log_p"][row]))


def rows_of(name: str, *lines: Mapping[str, Any]) -> dict[str, TaskRows]:
    task = TASKS[name]
    questions = tuple(task.ask(line) for line in lines)
    return {name: TaskRows(task, tuple(lines), questions, "all", "here")}


def test_the_answer_is_the_likeliest_for_its_length_where_the_harness_norms() -> None:
    line = {"context": "c", "choices": ["four", "fourfour"], "label": 1}
    found = Likelihoods(np.array([-4.0, -6.0]), np.zeros(2, np.bool_))
    normed = answers_of(rows_of("piqa", line), found)["piqa"]
    assert (normed.predictions.tolist(), normed.by_log_p.tolist()) == ([1], [0])
    assert answers_of(rows_of("social_iqa", line), found)["social_iqa"].predictions.tolist() == [0]


def test_a_word_counts_where_the_model_would_write_it() -> None:
    lines = [{"context": "c", "target": "word"}] * 2
    found = Likelihoods(np.array([-1.0, -9.0]), np.array([False, True]))
    tasks = rows_of("lambada", *lines)
    answers = {"m": answers_of(tasks, found)}
    assert answers["m"]["lambada"].predictions.tolist() == [-1, 0]
    context: Any = type("Context", (), {"seed": 0})
    metrics = metrics_of(settings(), context, tasks, answers)
    entries = entries_of("m", metrics, tasks, answers["m"])
    assert entries["lambada"]["value"] == 0.5 and entries["lambada"]["chance"] == 0


def test_tasks_are_drawn_apart_and_models_together() -> None:
    """Equally many rows of two tasks must not share a draw; two models must."""
    draw = np.random.default_rng(0)
    lines = [{"context": "c", "choices": ["a", "b"], "label": int(i % 2)} for i in range(50)]
    tasks = rows_of("piqa", *lines) | rows_of("social_iqa", *lines)
    found = Likelihoods(np.tile(draw.normal(size=100), 2), np.zeros(200, np.bool_))
    answers = {name: answers_of(tasks, found) for name in ("a", "b")}
    context: Any = type("Context", (), {"seed": 0})
    metrics = metrics_of(settings(), context, tasks, answers)
    assert paired_bootstrap(metrics["average"]["a"], metrics["average"]["b"]).value == 0
    one, other = (metrics[name]["a"].resampled for name in ("piqa", "social_iqa"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.3
    assert metrics["average"]["a"].resampled == pytest.approx((one + other) / 2)


def test_no_right_answer_of_few_rows_is_still_at_chance() -> None:
    tasks = rows_of("piqa", *[{"context": "c", "choices": ["a", "b"], "label": 1}] * 3)
    answers = {"m": answers_of(tasks, Likelihoods(np.arange(6.0)[::-1], np.zeros(6, np.bool_)))}
    context: Any = type("Context", (), {"seed": 0})
    entries = entries_of("m", metrics_of(settings(), context, tasks, answers), tasks, answers["m"])
    assert entries["piqa"]["value"] == 0 and entries["piqa"]["against_chance"] == "at"


HUB = {
    "hellaswag": {
        "activity_label": "Sorting",
        "ctx_a": "[header] The map is open.",
        "ctx_b": "the list",
        "endings": ["is read. [step] now", "b"],
        "label": "1",
    },
    "lambada": {"text": "We close the\nopen socket"},
    "winogrande": {
        "sentence": "A saw that _ ran off.",
        "option1": "B",
        "option2": "C",
        "answer": "2",
    },
    "openbookqa": {
        "question_stem": "Files are",
        "choices": {"text": ["a", "b"], "label": ["A", "B"]},
        "answerKey": "B ",
    },
    "arc_easy": {
        "question": "What?",
        "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]},
        "answerKey": "3",
    },
    "piqa": {"goal": "sort", "sol1": "a", "sol2": "b", "label": 1},
    "social_iqa": {
        **{"context": "Kim ran.", "question": "Why?", "label": "3"},
        **{"answerA": "a", "answerB": "b", "answerC": "c"},
    },
}
ASKED = {
    "hellaswag": ("Sorting: The map is open. The list", " b", 1, 2),
    "lambada": ("We close the\nopen", " socket", 0, 1),
    "winogrande": ("A saw that C", " ran off.", 1, 2),
    "openbookqa": ("Files are", " b", 1, 2),
    "arc_easy": ("Question: What?\nAnswer:", " c", 2, 3),
    "piqa": ("Question: sort\nAnswer:", " b", 1, 2),
    "social_iqa": ("Q: Kim ran. Why?\nA:", " c", 2, 3),
}


@pytest.mark.parametrize("name", HUB)
def test_a_row_of_the_hub_is_asked_as_a_row_of_a_file(name: str) -> None:
    task = TASKS[name]
    assert task.hub is not None and set(task.hub.columns) == set(HUB[name])
    question = task.ask(task.hub.row(HUB[name]))
    right = question.pairs[question.label]
    assert (*right, question.label, len(question.pairs)) == ASKED[name]


READ = """
import json, sys
from pathlib import Path
from attar.evaluation.config import EvaluateStep
from attar.evaluation.zero_shot.rows import read_tasks
step = EvaluateStep(models=("m",), tasks=("piqa",), hub=True, rows=2)
read = read_tasks(step, Path())["piqa"]
json.dump([read.source, read.taken, [each.pairs for each in read.questions]], sys.stdout)
"""


def test_rows_of_the_hub_come_from_the_commit_that_the_table_names(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    hub = TASKS["piqa"].hub
    assert hub is not None
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([HUB["piqa"]] * 3), stream)
    files = {"data/validation-00000-of-00001.parquet": stream.getvalue()}
    with serving(files, hub.name, hub.revision) as address:
        switches = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "USE_TORCH": "0"}
        done = subprocess.run(
            [sys.executable, "-c", READ],
            cwd=tmp_path,
            env=os.environ | switches | {"HF_HOME": str(tmp_path / "home"), "no_proxy": "*"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    source, taken, pairs = json.loads(done.stdout)
    assert source == f"baber/piqa@{hub.revision}" and taken == "the first 2"
    assert pairs[1] == [["Question: sort\nAnswer:", " a"], ["Question: sort\nAnswer:", " b"]]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("Act: A man sits. he", "Act: A man sits. He"),
        ("Act: the man in the Red hat", "Act: The man in the red hat"),
        ("Act: A man sits. He", "Act: A man sits. He"),
        ("Act: A man sits.", "Act: A man sits."),
        ("Act: a man sits.", "Act: a man sits."),
    ],
)
def test_an_unfinished_sentence_begins_with_a_capital(context: str, expected: str) -> None:
    assert with_capital(context) == expected


def test_rows_are_the_first_or_a_draw_that_no_seed_changes(tmp_path: Path) -> None:
    (tmp_path / "tasks" / "lambada").mkdir(parents=True)
    lines = [json.dumps({"context": f"c {i}", "target": "t"}) for i in range(30)]
    (tmp_path / "tasks" / "lambada" / "test.jsonl").write_text("\n".join(lines) + "\n")
    first = read_tasks(settings(tasks=("lambada",), rows=4), tmp_path)["lambada"]
    assert [row["context"] for row in first.rows] == [f"c {i}" for i in range(4)]
    assert first.taken == "the first 4"
    drawn = [
        read_tasks(settings(tasks=("lambada",), rows=4, sample="seeded", seed=seed), tmp_path)
        for seed in (0, 1)
    ]
    rows = [[row["context"] for row in each["lambada"].rows] for each in drawn]
    assert rows[0] == rows[1] != [f"c {i}" for i in range(4)]
    assert drawn[0]["lambada"].taken == "4 drawn from 30"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"context": "c", "choices": ["a"]}', "has no column label"),
        ('{"context": "c", "choices": ["a", "b"], "label": 2}', "label 2 of 2 answers"),
        ('{"context": "c", "choices": ["a", ""], "label": 0}', "an answer is empty"),
        ('{"context": 3, "choices": ["a", 4], "label": 0}', "has no len"),
        ('{"context": "c", ', "unreadable: not JSON"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "tasks" / "piqa").mkdir(parents=True)
    good = json.dumps(zero_shot_rows.ROWS["piqa"][0])
    (tmp_path / "tasks" / "piqa" / "validation.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataError, match=rf"'piqa': row 2 of validation.jsonl .*{said}"):
        read_tasks(settings(tasks=("piqa",)), tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": ()}, "either data, or tasks, got neither"),
        ({"data": "text"}, "either data, or tasks, got both"),
        ({"tasks": ("hellaswagg",)}, "did you mean 'hellaswag'"),
        ({"stride": 4, "memory": False}, "stride, memory cannot be set for an evaluation on tasks"),
        ({"hub": True}, "give either path"),
        ({"path": None}, "give either path"),
        ({"path": None, "hub": True}, "storycloze is not read from the hub"),
        ({"tasks": (), "path": None, "data": "x", "rows": 3}, "rows cannot be set .* on data"),
    ],
)
def test_settings_that_do_not_go_together_are_told(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings(**change)


def test_a_check_names_every_missing_file_and_where_it_belongs(
    folder: Path, tmp_path: Path
) -> None:
    zero_shot_rows.write(tmp_path / "tasks", ["piqa"])
    recipe = parse_recipe(RECIPE, path=tmp_path / "recipe.toml")
    with pytest.raises(DataError, match="8 of 9 zero-shot tasks have no file") as caught:
        require_data(recipe, tmp_path)
    said = str(caught.value)
    assert f"{tmp_path / 'tasks' / 'lambada' / 'test'}.jsonl.gz" in said
    assert "storycloze/<one file>.csv, your licensed copy with the columns InputSentence1" in said
    require_data(load_recipe(folder / "recipe.toml"), folder)
    (tmp_path / "tasks" / "piqa" / "validation.parquet").touch()
    with pytest.raises(DataError, match=r"piqa has 2 files in .*; leave one of them there"):
        require_data(recipe, tmp_path)


def test_a_check_refuses_models_that_do_not_predict_the_next_token(
    folder: Path, tmp_path: Path
) -> None:
    zero_shot_rows.write(tmp_path / "tasks", FREE)
    tiny.write_tiny_bert(tmp_path / "bert")
    text = """
name = "asked"
[data.films]
source = "files"
path = "films"
text = "text"
[steps.student]
run = "train"
model = "bert"
data = "films"
max_steps = 1
[steps.zero_shot]
run = "evaluate"
models = ["student", "bert"]
tasks = ["piqa"]
path = "tasks"
"""
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "train.jsonl").write_text('{"text": "a", "label": "b"}\n')
    recipe = parse_recipe(text, path=tmp_path / "recipe.toml")
    with pytest.raises(RecipeError) as caught:
        require_data(recipe, tmp_path)
    said = str(caught.value)
    assert "models.0: step 'student' is trained for classification" in said
    assert "models.1: 'bert' is a BertForSequenceClassification, which does not predict" in said
    with pytest.raises(ModelError, match="'bert' is made for classification"):
        run(tmp_path, tmp_path / "out", models=("bert",), tasks=("piqa",))


def test_a_key_knows_what_the_files_hold_and_not_where_they_are(
    folder: Path, tmp_path: Path
) -> None:
    def key(root: Path, place: str, *overrides: str) -> str:
        given = [f'steps.zero_shot.path="{place}"', 'steps.zero_shot.tasks=["piqa"]', *overrides]
        recipe = load_recipe(folder / "recipe.toml", given)
        return keys_of(recipe, ["zero_shot"], folder)["zero_shot"].key

    moved = zero_shot_rows.write(tmp_path / "elsewhere", ["piqa"])
    assert key(folder, "tasks") == key(folder, str(moved))
    file = moved / "piqa" / "validation.jsonl"
    file.write_text(file.read_text().replace("open it", "open that"))
    assert key(folder, "tasks") != key(folder, str(moved))
    assert key(folder, "tasks") != key(folder, "tasks", "steps.zero_shot.rows=1")


def test_the_shipped_recipe_asks_every_task_whose_rows_are_free(repository: Path) -> None:
    recipe = load_recipe(repository / "recipes" / "zero_shot.toml")
    step = recipe.steps["zero_shot"]
    assert isinstance(step, EvaluateStep) and list(step.tasks) == FREE
    require_data(recipe, repository / "recipes")


def test_a_plan_counts_the_requests_and_what_sharing_saves(folder: Path) -> None:
    def plan(*overrides: str) -> Any:
        return plan_recipe(load_recipe(folder / "recipe.toml", overrides), folder).steps[0]

    ours, theirs = plan(), plan('steps.zero_shot.harness="lm_eval"')
    assert ours.counts == {"requests": 50}
    assert ours.flops < 0.6 * theirs.flops
    assert plan('steps.zero_shot.harness="both"').flops == ours.flops + theirs.flops
    assert "50 requests for each model; gpt2 reads" in ours.note
    whole = int(ours.note.split(" of ")[1].split()[0].replace(",", ""))
    assert whole > int(ours.note.split("gpt2 reads ")[1].split()[0].replace(",", ""))


def test_a_run_passes_its_gates_and_has_a_page(folder: Path, tmp_path: Path) -> None:
    text = (
        RECIPE
        + """
[steps.report]
run = "report"

[[gates]]
metric = "zero_shot.llama.average"
at_least = 0.0
[[gates]]
metric = "zero_shot.gpt2.lambada.perplexity"
at_most = 1e9
"""
    )
    (folder / "gated.toml").write_text(text)
    summary = run_recipe(folder / "gated.toml", out=tmp_path)
    assert [gate.passed for gate in summary.gates] == [True, True]
    page = (tmp_path / "asked" / "report" / "index.html").read_text()
    report = json.loads((tmp_path / "asked" / "report" / "report.json").read_text())
    assert report["headline"]["sentence"].startswith("Average of 9 zero-shot tasks: gpt2")
    for words in ("HellaSwag", "average with StoryCloze", "at chance", "on piqa"):
        assert words in page
    assert not re.search(r"the first \d", page)  # all rows were asked
    assert page.count('aria-label="Accuracy on zero-shot tasks.') == 2
    with pytest.raises(
        RecipeError, match=r"'hellaswagg' is not a metric of a model \(did you mean"
    ):
        parse_recipe(text.replace("llama.average", "llama.hellaswagg"), path=folder / "r.toml")


@pytest.mark.slow
def test_a_pretrained_model_has_the_log_likelihoods_of_lm_eval(
    shared_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    try:
        importlib.metadata.distribution(DEMO_MODELS["smollm2-135m"].distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package with SmolLM2's weights is not installed")
    found = run(
        shared_data,
        tmp_path / "out",
        models=("demo:smollm2-135m",),
        tasks=tuple(FREE),
        path=str(shared_data),
        rows=1,
        harness="both",
    )
    assert found["harness"]["demo:smollm2-135m"]["largest_difference"] < 1e-3
    assert found["models"]["demo:smollm2-135m"]["shares_prefixes"]
