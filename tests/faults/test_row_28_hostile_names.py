"""Row 28: names that a stranger chose are inert in the model card, the report's twins and the
terminal. The HTML report is tried in `tests/report/test_run.py`, and in a browser.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

import deployments as made
import forked
import made_up_run
from attar import cli
from attar.escaping import for_yaml
from attar.export.bundle import write_snippet
from attar.export.config import Parity
from attar.export.deployed import Deployed, Prediction
from attar.export.model_card import base_model_of, lineage_of
from attar.export.run import export
from attar.models.foreign import task_of
from attar.progress import Progress
from attar.recipe.outcome.status import Status, StepStatus
from deployments import Deployments
from engine_steps import RECIPE

LONG = "x" * 10_000
NAMES = (
    "<script>alert(1)</script>",
    "x\n\n# Heading\n\n---\nlicense: evil\n---",
    "[click](javascript:alert(1)) <https://evil.example> https://evil.example www.evil.example",
    "\x1b]0;owned\x07\x1b[2J\x9b2J\x7f",
    "good\r\nerror: fake",
    "\u202egnp.exe\u2066",
    "|a|`b`|$c$|",
    "\ud800",
    LONG,
)
WRITABLE = tuple(name for name in NAMES if name != "\ud800")
"""What UTF-8 can hold."""
LONGEST_LINE, LONGEST_ROW = 1100, 5000
"""A row of a Markdown table has several cells."""


def harmful(text: str) -> set[str]:
    """What a terminal would act on, or hide."""
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {c for c in text if unicodedata.category(c) in bad} - {"\n"}


def require_inert(text: str, longest: int = LONGEST_LINE) -> None:
    assert not harmful(text)
    lines = text.split("\n")
    assert max(map(len, lines)) <= longest
    assert not [line for line in lines if line.startswith(("error: fake", "license"))]


def require_inert_markdown(text: str, headings: list[str]) -> None:
    """No tag, no link, no heading but ours, no broken table; read by a real parser."""
    require_inert(text, LONGEST_ROW)
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(text)
    found = [*tokens, *(child for token in tokens for child in token.children or ())]
    kinds = {token.type for token in found}
    assert "inline" in kinds
    assert not {"html_inline", "html_block", "link_open", "image", "hr"} & kinds
    opened = [i for i, token in enumerate(tokens) if token.type == "heading_open"]
    if headings:
        assert [tokens[i + 1].content for i in opened] == headings
    assert "https://" not in text
    assert "www." not in text


@pytest.fixture(scope="module")
def hostile(deployments: Deployments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a tiny model of classes so named, started from a model of a hostile name."""
    root = tmp_path_factory.mktemp("hostile")
    tiny = made.fine_tuned(root / "float", labels=WRITABLE)
    context = made.context_for(root, "deploy", {"source": tiny})
    steps = {"source": {"run": "train", "model": NAMES[1], "teacher": NAMES[6], "data": NAMES[0]}}
    context = replace(context, recipe={"name": NAMES[2], "data": {"texts": {}}, "steps": steps})
    lenient = Parity(examples=8, max_relative_error=10.0, max_label_flips=1.0)
    settings: dict[str, Any] = {"model": "source", "data": "texts", "parity": lenient}
    export(made.ExportStep(format="openvino", **settings), context)
    return context.folder


def test_a_model_card_shows_names_and_does_nothing(hostile: Path) -> None:
    card = (hostile / "README.md").read_text(encoding="utf-8")
    header, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(header) == {
        "library_name": "openvino",
        "pipeline_tag": "text-classification",
        "tags": ["attar", "openvino"],
    }
    headings = ["Use it", "How it was made", "Data", "Measured at export", "Limits"]
    title = next(line for line in body.splitlines() if line.startswith("# "))
    require_inert_markdown(body, [title.removeprefix("# "), *headings])
    assert "&lt;script&gt;" in body
    assert "(10,000 characters)" in body


def test_the_header_of_a_card_is_yaml_that_names_the_base_model(tmp_path: Path) -> None:
    recipe = {
        "data": {"sst2": {"source": "glue", "task": "sst2"}},
        "steps": {
            "teacher": {"run": "train", "model": "demo:minilm-l6", "data": "sst2"},
            "student": {"run": "train", "model": {"from": "teacher"}, "data": "sst2"},
        },
    }
    base = base_model_of("student", recipe, tmp_path)
    assert base == "sentence-transformers/all-MiniLM-L6-v2"
    hub = {"steps": {"a": {"run": "train", "model": "google/bert_uncased"}}}
    assert base_model_of("a", hub, tmp_path) == "google/bert_uncased"
    (tmp_path / "google" / "bert_uncased").mkdir(parents=True)
    assert base_model_of("a", hub, tmp_path) is None  # a folder beside the recipe, not the hub
    assert base_model_of("a", {"steps": {"a": {"model": {"config": {}}}}}, tmp_path) is None


@pytest.mark.parametrize("name", [*NAMES, "no", "1.0", "{a: b}", '"\\', "\U000e0001\U0001f600é"])
def test_a_yaml_scalar_is_read_back_as_the_text_it_was(name: str) -> None:
    written = for_yaml(name, most=20_000)
    assert yaml.safe_load(f"a: {written}") == {"a": name}
    assert not harmful(written)
    assert "\n" not in written


def test_a_place_on_this_machine_is_not_told_in_a_lineage() -> None:
    steps = {"a": {"run": "train", "model": "/home/someone/models/mine", "data": "d"}}
    assert lineage_of("a", {"steps": steps})[0] == "`mine`: the initial model"


def test_answers_on_a_terminal_are_one_inert_line_each(
    hostile: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Deployed(hostile, threads=1)
    for name in NAMES:
        line = Prediction(name, 0.5, 1.0).text()
        require_inert(line)
        assert "\n" not in line
    for form in ((), ("--json",)):
        monkeypatch.setattr(sys, "argv", ["attar", "predict", str(hostile), "a film", "bad", *form])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        printed = capsys.readouterr()
        assert not harmful(printed.out + printed.err)
        assert len(printed.out.splitlines()) == 2
    answers = [json.loads(line) for line in printed.out.splitlines()]
    assert [tuple(answer["scores"]) for answer in answers] == [model.task.label_names] * 2


def test_the_snippet_prints_inert_labels(hostile: Path) -> None:
    task = task_of(hostile)
    for form in ("onnxruntime", "safetensors"):
        write_snippet(hostile, form, task)
        text = (hostile / "predict.py").read_text()
        assert "repr(" in text
        assert not [name for name in NAMES if name in text]
    write_snippet(hostile, "openvino", task)
    done = forked.run(hostile / "predict.py", "a film")
    assert done.returncode == 0, done.stderr
    require_inert(done.stdout)
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("place", ["key", "step key", "data path", "split"])
def test_errors_that_name_what_a_stranger_wrote_are_inert(
    place: str,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = name.replace("/", "_")[: None if "key" in place else 200]
    quoted = json.dumps(name).replace("\x7f", "\\u007f")
    written = {
        "key": f"{quoted} = 1\n{RECIPE}",
        "step key": RECIPE.replace('run = "train"', f'run = "train"\n{quoted} = 1', 1),
        "data path": RECIPE.replace('source = "stdlib_docs"', f'source = "files"\npath = {quoted}'),
        "split": RECIPE.replace(
            'source = "stdlib_docs"', f'source = "files"\npath = "d"\ntrain = {quoted}'
        ),
    }[place]
    assert written != RECIPE
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a\x1b[2J\nerror: fake.jsonl").write_text('{"text": "a", "label": 1}\n')
    (tmp_path / "r.toml").write_text(written)
    verb = "check" if "key" in place else "plan"
    monkeypatch.setattr(sys, "argv", ["attar", verb, str(tmp_path / "r.toml")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (2, 3)
    said = capsys.readouterr().err
    # A plan says first which data it reads.
    assert said.removeprefix("reading data 'docs'\n").startswith("error: ")
    require_inert(said)


def test_progress_status_and_warnings_are_inert(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    for name in NAMES:
        progress.say(name)
        progress.warn(name)
        with progress.task(name, 1) as task:
            task.advance(note=name)
    said = capsys.readouterr().err
    require_inert(said)
    # A bar's lines come now and then; each say and each warning is one line.
    assert len([line for line in said.splitlines() if not line.startswith("  ")]) == 2 * len(NAMES)
    steps = tuple(StepStatus("a", "train", "done", n, 1.0, {n: 1.0}) for n in NAMES)
    text = Status(NAMES[1], Path(NAMES[3]), None, steps, (), "", None).text()
    require_inert(text)
    assert len(text.splitlines()) == 1 + len(NAMES)


def test_the_markdown_twin_is_inert(tmp_path: Path) -> None:
    for number, name in enumerate(WRITABLE):
        scores = made_up_run.evaluate_metrics({name: made_up_run.MODELS["teacher"]})
        scores["data"] |= {"name": name, "split": name}
        export_metrics = made_up_run.export_metrics("deploy") | {"format": name}
        export_metrics["fusion"]["float"] = [{"name": name, "reason": name}]
        inputs = {
            "scores": made_up_run.write_step(tmp_path / f"{number}", "scores", "evaluate", scores),
            "deploy": made_up_run.write_step(
                tmp_path / f"{number}", "deploy", "export", export_metrics
            ),
        }
        gate = {"metric": name, "at_least": 0.1}
        content = {"name": name, "steps": {}, "gates": [gate]}
        made_up_run.make_report(tmp_path / f"report{number}", inputs, content)
        text = (tmp_path / f"report{number}" / "report.md").read_text(encoding="utf-8")
        require_inert_markdown(text, [])
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in rows[:3]}) == 1
