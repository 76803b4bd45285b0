"""Learning from the rows that an augment step made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
import training_runs
from attar.distillation.config import AugmentStep
from attar.distillation.run import augment
from attar.errors import DataError

ROWS = 48
COPIES = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = training_runs.prepare(tmp_path_factory.mktemp("made"))
    tiny.write_tiny_masked_lm(folder / "lm")
    settings = {"model": "lm", "data": "films", "copies": COPIES, "top": 5, "max_length": 24}
    for name, keep in (("unlabelled", False), ("labelled", True)):
        context = training_runs.context_for(folder / name, recipe_folder=folder)
        context.scratch.mkdir(parents=True, exist_ok=True)
        augment(AugmentStep(**settings, keep_labels=keep, precision="fp32"), context)
    return folder


def train(place: Path, out: Path, made: str, **settings: Any) -> dict[str, Any]:
    return training_runs.run_training(
        out,
        recipe_folder=place,
        made=place / made / "out",
        data="made",
        max_steps=3,
        evaluations=1,
        **settings,
    )


def test_made_rows_are_learned_from_with_a_teacher(place: Path, tmp_path: Path) -> None:
    losses = [{"kind": "forward_kl"}, {"kind": "cross_entropy"}]
    metrics = train(place, tmp_path, "unlabelled", teacher="bert", losses=losses)
    assert metrics["data"]["train_rows"] == ROWS * (1 + COPIES)


def test_without_a_teacher_made_rows_need_labels(place: Path, tmp_path: Path) -> None:
    assert train(place, tmp_path, "labelled")["data"]["train_rows"] == ROWS * (1 + COPIES)
    with pytest.raises(DataError, match=r"without a label \(96 of 144\).*keep_labels = true"):
        train(place, tmp_path / "none", "unlabelled")


def test_rows_made_from_others_are_refused(place: Path, tmp_path: Path) -> None:
    from attar.data.config import FilesData

    fewer = FilesData(path="films", text="text", train_rows=ROWS - 1)
    with pytest.raises(
        DataError, match=r"from 48 training rows.*now has 47.*remove .* and run again"
    ):
        train(place, tmp_path, "labelled", data_config=fewer)
