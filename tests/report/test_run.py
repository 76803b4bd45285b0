"""The report step: three files, whole and inert, from whatever part of a recipe was run."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import made_up_run
from attar.errors import UsageError
from attar.report.config import ReportStep
from attar.report.run import report

HOSTILE = "<script>alert('1')</script>\"'><img src=x onerror=alert(2)>"
RIGHT_TO_LEFT = "\u202eنموذج\u202c"


class Page(HTMLParser):
    """Tags, ids, links and text of a page; a tag that is left open or closed twice is an error."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.stack: list[str] = []
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read_page(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def made(out: Path, steps: list[str], content: dict[str, Any] | None = None) -> Path:
    inputs = made_up_run.write_run(out / "run")
    chosen = {name: inputs[name] for name in steps}
    return made_up_run.make_report(out / "report", chosen, content)


def test_the_whole_run_makes_a_page_and_its_twins(tmp_path: Path) -> None:
    page = read_page(made(tmp_path, [*made_up_run.MODELS, "scores"]))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    sections = {"summary", "models", "gates", "training", "quantization", "export", "provenance"}
    assert sections <= set(ids)
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in written["comparisons"][0]["rows"]] == list(made_up_run.MODELS)
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert markdown.startswith("# demo\n")
    assert "| deploy (OpenVINO) |" in markdown


def test_the_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    page = read_page(made(tmp_path, ["teacher", "scores"]))
    addresses = [v or "" for name, v in page.attributes if name in ("href", "src", "xlink:href")]
    assert len(addresses) > 5
    assert all(address.startswith(("#", "data:")) for address in addresses)
    style = (tmp_path / "report" / "index.html").read_text().partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_links_inside_the_page_lead_somewhere(tmp_path: Path) -> None:
    page = read_page(made(tmp_path, [*made_up_run.MODELS, "scores"]))
    ids = {value for name, value in page.attributes if name == "id"}
    links = {v[1:] for name, v in page.attributes if name == "href" and v and v[0] == "#"}
    assert links
    assert links <= ids


@pytest.mark.parametrize(
    "steps",
    [
        ["teacher"],
        ["teacher", "student"],
        ["teacher", "scores"],
        ["teacher", "student", "int8"],
        ["scores"],
        ["int8"],
        ["deploy"],
        [],
    ],
)
def test_any_part_of_a_recipe_makes_a_page(tmp_path: Path, steps: list[str]) -> None:
    page = read_page(made(tmp_path, steps, {"name": "part", "steps": made_up_run.STEPS}))
    assert "h1" in page.tags


def test_artifacts_with_empty_metrics_make_a_page(tmp_path: Path) -> None:
    inputs = {
        run: made_up_run.write_step(tmp_path / "run", run, run, {})
        for run in ("train", "quantize", "export", "evaluate")
    }
    (inputs["train"] / "history.jsonl").unlink()
    assert "h1" in read_page(made_up_run.make_report(tmp_path / "report", inputs, {})).tags


def test_regression_is_told_in_correlations(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    for figures in metrics["models"].values():
        figures["pearson"], figures["spearman"] = figures.pop("accuracy"), figures.pop("f1")
    for difference in metrics["differences"]:
        difference["metric"] = "pearson"
    folder = made_up_run.write_step(tmp_path / "run", "scores", "evaluate", metrics)
    page = read_page(made_up_run.make_report(tmp_path / "report", {"scores": folder}, {}))
    texts = [text.replace("\u00a0", " ") for text in page.texts]
    assert any("pearson" in text and "(not significant: " in text for text in texts)
    assert "0.739" in page.texts


def test_without_timing_only_the_size_is_drawn(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    for figures in metrics["models"].values():
        del figures["latency"], figures["latency_ms"]
    folder = made_up_run.write_step(tmp_path / "run", "scores", "evaluate", metrics)
    page = read_page(made_up_run.make_report(tmp_path / "report", {"scores": folder}, {}))
    captions = [text for text in page.texts if text.startswith("Accuracy against")]
    assert captions == ["Accuracy against size"]


def test_a_sweep_is_shown_run_by_run(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path / "run")
    page = read_page(made_up_run.make_report(tmp_path / "report", inputs, content))
    assert "Sweep: every run" in page.texts
    assert {"seed=0", "seed=1", "seed=2"} <= set(page.texts)


def hostile_run(out: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Hostile words wherever an artifact can carry one."""
    models = {
        HOSTILE: made_up_run.MODELS["teacher"],
        RIGHT_TO_LEFT: made_up_run.MODELS["student"],
        "long" * 200: made_up_run.MODELS["int8"],
    }
    scores = made_up_run.evaluate_metrics(models)
    scores["data"] |= {"name": HOSTILE, "split": HOSTILE}
    scores["machine"]["cpu"] = HOSTILE
    quantize, export = made_up_run.quantize_metrics(), made_up_run.export_metrics("deploy")
    quantize |= {"method": HOSTILE, "calibration": {HOSTILE: 3}}
    quantize["sites"][HOSTILE] = {"kind": HOSTILE, "block": 0, "sqnr_db": 3.0}
    quantize["weights"][HOSTILE] = {"bits": 8, "sqnr_db": 3.0}
    export |= {"format": HOSTILE}
    export["fusion"]["float"] = [{"name": HOSTILE, "reason": HOSTILE}]
    train = made_up_run.train_metrics("teacher")
    train["data"] |= {"name": HOSTILE, "set_aside": {HOSTILE: 3}}
    train |= {"precision": HOSTILE, "validation": {HOSTILE: 0.5}}
    inputs = {
        name: made_up_run.write_step(out, name, run, metrics)
        for name, run, metrics in (
            ("scores", "evaluate", scores),
            ("int8", "quantize", quantize),
            ("deploy", "export", export),
            ("teacher", "train", train),
        )
    }
    line = {"step": 1, "loss": 1.0, "losses": {HOSTILE: 1.0, "b": 2.0}, "validation": {HOSTILE: 1}}
    (inputs["teacher"] / "history.jsonl").write_text(json.dumps(line))
    settings = {"run": "train", "model": HOSTILE, "teacher": HOSTILE}
    gate = {"metric": HOSTILE, "of": HOSTILE, "max_drop": 0.1}
    return inputs, {"name": HOSTILE, "steps": {"teacher": settings}, "gates": [gate]}


def test_hostile_words_are_shown_and_do_nothing(tmp_path: Path) -> None:
    inputs, content = hostile_run(tmp_path / "run")
    page = read_page(made_up_run.make_report(tmp_path / "report", inputs, content))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in page.texts
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "<script" not in markdown
    assert "<img" not in markdown


def test_only_the_pages_own_script_may_run(tmp_path: Path) -> None:
    page = read_page(made(tmp_path, ["teacher"]))
    policy = next(v for n, v in page.attributes if n == "content" and v and "script-src" in v)
    assert "default-src 'none'" in policy
    script_rule = policy.partition("script-src ")[2].partition(";")[0]
    assert script_rule.startswith("'sha256-")
    assert "unsafe" not in script_rule


@pytest.mark.parametrize("module", ["jinja2", "altair", "vl_convert"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{module}.*pip install 'attar\[report\]'"):
        report(ReportStep(), made_up_run.context_of(tmp_path, {}))


def test_the_title_can_be_chosen(tmp_path: Path) -> None:
    context = made_up_run.context_of(tmp_path / "report", {})
    report(ReportStep(title="My models"), context)
    assert "My models" in (tmp_path / "report" / "index.html").read_text()
