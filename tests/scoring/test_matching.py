"""Classes are matched by name before anything is computed; bad splits are refused with numbers."""

from __future__ import annotations

import numpy as np
import pytest

from attar.data.tables import SetAside, Split, TextData
from attar.errors import DataError, ModelError, NonFiniteError
from attar.scoring.matching import (
    known_metrics,
    labelled_split,
    output_columns,
    predictions_from,
)
from attar.tasks.task import Task

NAMES = ("red", "green", "blue")
INPUTS = ("input_ids", "attention_mask")


def data_with(
    labels: list[float], *, names: tuple[str, ...] = NAMES, metrics: tuple[str, ...] = ("accuracy",)
) -> TextData:
    kind = np.int64 if names else np.float32
    split = Split(tuple(("text",) for _ in labels), np.array(labels, dtype=kind))
    return TextData(
        "colours",
        "classification" if names else "regression",
        names,
        metrics,
        {"train": Split((("x",),) * 7, np.zeros(7, dtype=kind)), "validation": split},
        (SetAside("validation", 0, "empty text"),),
    )


def task_with(names: tuple[str, ...]) -> Task:
    objective = "classification" if names else "regression"
    return Task(objective=objective, label_names=names, max_length=16, input_names=INPUTS)


def columns_of(names: tuple[str, ...], data: TextData) -> np.ndarray:
    return output_columns("m", task_with(names), data, pytest.fail)


def test_logits_of_a_reordered_model_give_the_same_predictions() -> None:
    data = data_with([0, 1, 2])
    logits = np.random.default_rng(0).normal(size=(50, 3))
    for order in ([0, 1, 2], [2, 0, 1], [1, 0, 2]):
        names = tuple(NAMES[i] for i in order)
        columns = columns_of(names, data)
        ours = predictions_from(logits[:, order][:, columns], "m", np.zeros(1, dtype=np.int64))
        assert (ours == logits.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("red", "green", "violet"), r"only the model has \['violet'\].*only the data.*\['blue'\]"),
        (("red", "green"), r"only the model has \[\].*only the data have \['blue'\]"),
        (("red", "green", "blue", "x"), r"only the model has \['x'\].*only the data have \[\]"),
        (("reddish", "green", "blue"), r"only the model has \['reddish'\]"),
        (("Red", "RED", "blue"), r"only the model has \['Red', 'RED'\].*data.*'red', 'green'"),
    ],
)
def test_classes_that_cannot_be_matched_by_name_are_refused(
    names: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        columns_of(names, data_with([0]))


def test_classes_that_training_matches_are_judged_and_the_other_spelling_is_said() -> None:
    """As GLUE spells QNLI's, and as many a checkpoint does, in the other order."""
    data = data_with([0, 1], names=("entailment", "not_entailment"))
    warned: list[str] = []
    task = task_with(("Not entailment", "Entailment"))
    columns = output_columns("m", task, data, warned.append)
    assert columns.tolist() == [1, 0]
    assert warned == [
        "model 'm', data 'colours': of its classes 'Entailment' is taken for 'entailment', "
        "'Not entailment' is taken for 'not_entailment'"
    ]


def test_a_model_for_another_objective_is_refused() -> None:
    with pytest.raises(ModelError, match="'m' was made for regression, data 'colours' are for cla"):
        columns_of((), data_with([0]))
    with pytest.raises(ModelError, match="made for classification"):
        columns_of(NAMES, data_with([0.5], names=()))


def test_a_regression_predicts_its_one_number() -> None:
    data = data_with([0.5, 1.0], names=(), metrics=("pearson",))
    columns = columns_of((), data)
    scores = np.array([[2.5], [0.5]])[:, columns]
    assert predictions_from(scores, "m", np.zeros(1)).tolist() == [2.5, 0.5]


def test_an_empty_split_is_refused_with_the_numbers_of_the_others() -> None:
    with pytest.raises(DataError, match=r"0 rows.*train 7, validation 0; set aside: 1"):
        labelled_split(data_with([]), "validation")


def test_a_mismatched_split_where_there_is_none_is_refused_with_the_splits_that_are() -> None:
    told = (
        r"data 'colours' has no split 'validation_mismatched', which only MNLI has; its splits: "
        r"train \(7 rows\), validation \(1 rows\); remove split, or name the GLUE task mnli"
    )
    with pytest.raises(DataError, match=told):
        labelled_split(data_with([0]), "validation_mismatched")


@pytest.mark.parametrize("names", [NAMES, ()])
def test_a_split_without_all_labels_is_refused_with_their_number(names: tuple[str, ...]) -> None:
    missing = -1 if names else float("nan")
    with pytest.raises(DataError, match="no label in 2 of 3 rows"):
        labelled_split(data_with([0, missing, missing], names=names), "validation")


def test_a_labelled_split_is_given_back_whole() -> None:
    data = data_with([2, 0])
    assert labelled_split(data, "validation") is data.splits["validation"]


def test_negative_numbers_are_labels_in_a_regression() -> None:
    assert len(labelled_split(data_with([-1.0, -3.0], names=()), "validation")) == 2


@pytest.mark.parametrize(("metrics", "hint"), [((), ""), (("acuracy",), ".*mean 'accuracy'.*")])
def test_metrics_nobody_can_compute_are_refused(metrics: tuple[str, ...], hint: str) -> None:
    with pytest.raises(DataError, match=hint + r"; known are \['accuracy', 'matthews'"):
        known_metrics(data_with([0], metrics=metrics))


def test_a_set_of_labels_is_what_reaches_each_labels_own_cut() -> None:
    scores, sets = np.array([[-0.5, 0.4], [-2.0, 0.5]]), np.zeros((2, 2), np.int8)
    assert predictions_from(scores, "m", sets).tolist() == [[0, 1], [0, 1]]
    assert predictions_from(scores, "m", sets, [-1.0, 0.5]).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(NonFiniteError, match="model 'm' gave NaN"):
        predictions_from(scores * np.nan, "model 'm'", sets)
