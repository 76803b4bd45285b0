"""Where classes are words to be written every row needs its label, teacher or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
import training_runs
from attar.data.config import FilesData
from attar.distillation.config import AugmentStep
from attar.distillation.run import augment
from attar.errors import DataError
from caching import run_cache
from language_runs import WORDED, write_random

NAMED: dict[str, Any] = {
    "objective": "text_to_text",
    "template": WORDED["template"],
    "label_words": list(WORDED["label_words"]),
}
TAUGHT: dict[str, Any] = {
    "teacher": "t5",
    "max_steps": 1,
    "evaluations": 1,
    "losses": [{"kind": "forward_kl"}],
}
ROWS = 48
STUDENTS = {
    "fewer blocks": {"from": "t5", "keep_blocks": [0]},
    "narrowed": {"from": "t5", "intermediate_size": 16},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The teacher `t5`, and films."""
    write_random(tmp_path / "t5", "t5", **WORDED)
    training_runs.write_films(tmp_path / "films", train=ROWS)
    return tmp_path


@pytest.fixture
def made(place: Path) -> Callable[[bool], dict[str, Any]]:
    """keep_labels → what a step that learns from made rows is given."""
    tiny.write_tiny_masked_lm(place / "lm")

    def make(keep: bool) -> dict[str, Any]:
        context = training_runs.context_for(place / f"made-{keep}", recipe_folder=place)
        context.scratch.mkdir(parents=True, exist_ok=True)
        settings = {"model": "lm", "data": "films", "copies": 1, "top": 5, "max_length": 24}
        augment(AugmentStep(**settings, keep_labels=keep, precision="fp32"), context)  # pyright: ignore
        return {"made": context.folder, "data": "made"}

    return make


def learn(place: Path, student: str, **settings: Any) -> dict[str, Any]:
    return training_runs.run_training(place, model=STUDENTS[student], **TAUGHT, **NAMED, **settings)


def ask(place: Path, **settings: Any) -> dict[str, Any]:
    return run_cache(place, teacher="t5", hidden_states="uniform:1", **NAMED, **settings)


@pytest.mark.parametrize("step", [*STUDENTS, "cache"])
def test_a_split_without_labels_is_refused_before_the_model_reads(
    step: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_is_computed(*given: Any, **more: Any) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("transformers.T5ForConditionalGeneration.forward", nothing_is_computed)
    (place / "films" / "train.jsonl").unlink()
    (place / "films" / "train.txt").write_text("a good movie\na bad film\n" * 9)
    data = FilesData(path="films", text="text", label_names=("bad", "good"))
    with pytest.raises(DataError, match=r"split 'train' of data 'films' has rows without a label"):
        if step == "cache":
            ask(place, data_config=data)
        else:
            learn(place, step, data_config=data)


def test_made_rows_without_labels_are_refused_and_the_augment_step_is_told(
    place: Path, made: Callable[[bool], dict[str, Any]]
) -> None:
    given = made(False)
    message = rf"without a label \({ROWS} of {2 * ROWS}\).*keep_labels = true in the augment step"
    with pytest.raises(DataError, match=message):
        learn(place, "fewer blocks", **given)
    with pytest.raises(DataError, match=message):
        ask(place, **given)


def test_made_rows_with_labels_are_kept_and_learned(
    place: Path, made: Callable[[bool], dict[str, Any]]
) -> None:
    given = made(True)
    assert ask(place, **given)["rows"] == 2 * ROWS
    assert learn(place, "fewer blocks", **given)["data"]["train_rows"] == 2 * ROWS
