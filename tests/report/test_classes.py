"""The section about classes: every class, the confusion matrix, confidence and changed answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import made_up_run
from attar.data.tables import Split
from attar.evaluation.classified import Answers, classified
from attar.report.markdown import markdown_of
from attar.report.reading import read_made
from attar.report.sections.classes import MOST_CLASSES, classes_of

NAMES = ("io", "<b>text</b>", "net")


def with_classes(folder: Path, names: tuple[str, ...] = NAMES) -> dict[str, Path]:
    """A run whose evaluation has the figures of classes for each model."""
    random = np.random.default_rng(0)
    labels = random.integers(0, len(names), 120)
    split = Split(tuple((f"message | {i}",) for i in range(120)), labels)
    answers = {
        name: Answers(
            np.where(random.random(120) < 0.3, random.integers(0, len(names), 120), labels),
            random.uniform(0.3, 1, 120),
        )
        for name in made_up_run.MODELS
    }
    inputs = made_up_run.write_run(folder)
    metrics: dict[str, Any] = made_up_run.evaluate_metrics()
    for name, figures in classified(answers, split, names, [0.5, 0.9], 5).items():
        metrics["models"][name] |= figures
    inputs["scores"] = made_up_run.write_step(folder / "more", "scores", "evaluate", metrics)
    return inputs


def test_the_last_deployed_model_stands_for_all_and_its_worst_class_comes_first(
    tmp_path: Path,
) -> None:
    inputs = with_classes(tmp_path)
    made = read_made(inputs, made_up_run.recipe())
    (found,) = classes_of(made)
    assert (found.shown, found.against) == ("deploy_ort", "teacher")
    own = json.loads((inputs["scores"] / "result.json").read_text())["metrics"]["models"]
    f1 = {name: figures["f1"] for name, figures in own["deploy_ort"]["per_class"].items()}
    assert [row.name for row in found.rows] == sorted(f1, key=lambda name: f1[name])
    assert all(len(row.scores) == len(made_up_run.MODELS) for row in found.rows)
    assert [list(line) for line in found.confusion] == own["deploy_ort"]["confusion"]
    assert found.num_changed == own["deploy_ort"]["changed"]["rows"] > len(found.changed) == 5


def test_one_changed_text_is_one_text(tmp_path: Path) -> None:
    inputs = with_classes(tmp_path / "run")
    metrics = json.loads((inputs["scores"] / "result.json").read_text())["metrics"]
    metrics["models"]["deploy_ort"]["changed"]["rows"] = 1
    inputs["scores"] = made_up_run.write_step(tmp_path / "one", "scores", "evaluate", metrics)
    page = made_up_run.make_report(tmp_path / "report", inputs)
    assert "teacher differ on 1 text." in page.with_name("report.md").read_text()


def test_page_and_twin_show_every_table_and_names_are_inert(tmp_path: Path) -> None:
    page = made_up_run.make_report(tmp_path / "report", with_classes(tmp_path / "run")).read_text()
    assert "<b>text</b>" not in page
    assert page.count("&lt;b&gt;text&lt;/b&gt;") > 5
    text = markdown_of(page, "demo")
    assert "## Classes" in text
    assert "### Texts whose prediction changed" in text
    assert "| ECE |" in text
    assert "message \\| " in text
    for caption in ("F1 of each class", "Texts by label", "Accuracy on texts"):
        assert caption in text


@pytest.mark.parametrize("count", [MOST_CLASSES, MOST_CLASSES + 4])
def test_of_many_classes_the_worst_are_shown(tmp_path: Path, count: int) -> None:
    names = tuple(f"class {i}" for i in range(count))
    inputs = with_classes(tmp_path, names)
    (found,) = classes_of(read_made(inputs, made_up_run.recipe()))
    assert len(found.rows) == MOST_CLASSES
    assert found.left_out == count - MOST_CLASSES
    assert bool(found.confusion) is (count <= MOST_CLASSES)


def test_an_evaluation_without_classes_has_no_section(tmp_path: Path) -> None:
    assert classes_of(read_made(made_up_run.write_run(tmp_path), made_up_run.recipe())) == ()
