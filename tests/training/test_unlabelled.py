"""Learning from texts that only the teacher has answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import training_runs
from attar.data.config import FilesData

LABELLED, UNLABELLED = 48, 30
KL, GOLD = [{"kind": "forward_kl"}], [{"kind": "cross_entropy"}]
DATA = FilesData(path="films", text="text", unlabelled="raw")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = training_runs.prepare(tmp_path_factory.mktemp("unlabelled"))
    lines = (json.dumps({"text": f"a great film {i} of {i}"}) for i in range(UNLABELLED))
    (folder / "films" / "raw.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def train(place: Path, out: Path, **settings: Any) -> dict[str, Any]:
    settings = {"max_steps": 2, "evaluations": 1, "data_config": DATA, **settings}
    return training_runs.run_training(out, recipe_folder=place, **settings)


def test_a_loss_on_the_teachers_answers_reads_all_rows(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train(place, tmp_path, teacher="bert", losses=KL)
    assert metrics["data"]["train_rows"] == LABELLED + UNLABELLED
    assert "warning" not in capsys.readouterr().err


def test_a_loss_on_gold_labels_reads_labelled_rows_and_it_is_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train(place, tmp_path, teacher="bert")
    assert metrics["data"]["train_rows"] == LABELLED + UNLABELLED
    said = capsys.readouterr().err
    assert "cross_entropy reads gold labels, which 48 of 78 rows have (4.9 of a batch of 8)" in said


@pytest.mark.parametrize(
    "settings", [{}, {"teacher": "bert", "losses": [{"kind": "cross_entropy"}]}]
)
def test_without_a_teachers_answers_only_labelled_rows_are_read(
    place: Path, tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(place, tmp_path, **settings)["data"]["train_rows"] == LABELLED
    assert "the 30 unlabelled rows of data 'films' are not read" in capsys.readouterr().err


def test_a_cache_has_answers_about_unlabelled_rows(place: Path, tmp_path: Path) -> None:
    from attar.training.cache_config import CacheStep
    from attar.training.teaching.cache import cache

    context = training_runs.context_for(tmp_path, recipe_folder=place, data_config=DATA)
    context.scratch.mkdir(parents=True, exist_ok=True)
    step = CacheStep(teacher="bert", data="films", max_length=24, precision="fp32")
    assert cache(step, context)["rows"] == LABELLED + UNLABELLED
    metrics = train(
        place,
        tmp_path / "student",
        teacher="cached",
        inputs={"cached": tmp_path / "out"},
        losses=KL,
    )
    assert metrics["data"]["train_rows"] == LABELLED + UNLABELLED
