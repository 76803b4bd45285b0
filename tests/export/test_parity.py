from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from attar.errors import GateMissedError
from attar.export.config import Parity
from attar.export.parity import (
    FLOAT_TOLERANCE,
    ParityResult,
    check_parity,
    compare,
    encoded_texts,
    measure_parity,
)
from attar.models.deployed.runtimes import open_runtime
from attar.scoring.forms import open_form
from attar.tasks.task import Task
from deployments import Deployments

TEXTS = [("a good movie",), ("bad",), ("how do i open a socket and close it",), ("the list",)] * 5


class Altered:
    """A real runtime whose answers are changed on the way out."""

    def __init__(self, deployments: Deployments, factor: float = 1.0, shift: float = 0.0) -> None:
        folder, _ = deployments.export("int8", "openvino")
        self._runtime = open_runtime(folder, threads=1)
        self._factor, self._shift = factor, shift

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        changed = self._runtime.logits(batch) * self._factor
        changed[:, 0] += self._shift
        return changed


def measured(deployments: Deployments, **change: float) -> ParityResult:
    folder = deployments.int8() / "model"
    task = Task.read(folder)
    encoded = encoded_texts(TEXTS, folder, folder, task, "deploy")
    return measure_parity(folder, Altered(deployments, **change), encoded, task, Parity())


def test_a_faithful_runtime_differs_by_a_part_of_the_quantization_error(
    deployments: Deployments,
) -> None:
    result = measured(deployments)
    assert result.examples == len(TEXTS)
    assert result.against == "simulated"
    assert result.relative_error < 1
    assert result.error_ratio == pytest.approx(1, abs=0.2)
    assert result.quantization_error is not None
    assert result.quantization_error > 0
    check_parity(result, "deploy")


def test_an_error_as_large_as_five_quantization_errors_misses_the_gate(
    deployments: Deployments,
) -> None:
    error = measured(deployments).quantization_error
    assert error is not None
    # one of two columns is moved, so rms is the shift over √2
    result = measured(deployments, shift=5 * math.sqrt(2) * error)
    assert result.relative_error == pytest.approx(5, rel=0.1)
    with pytest.raises(GateMissedError, match=r"deploy differs .*relative_error 5.*at most 1.5"):
        check_parity(result, "deploy")


def test_labels_that_flip_are_counted(deployments: Deployments) -> None:
    result = measured(deployments, factor=-1.0)
    assert result.label_flips == 1.0


def test_answers_that_are_not_numbers_miss_the_gate(deployments: Deployments) -> None:
    with pytest.raises(GateMissedError):
        check_parity(measured(deployments, shift=math.nan), "deploy")


def test_too_many_flips_alone_miss_the_gate() -> None:
    passing = ParityResult(100, "simulated", 0.5, 0.02, 1.5, 0.02, 0.1)
    check_parity(passing, "deploy")
    with pytest.raises(GateMissedError, match=r"label_flips 0.03 \(at most 0.02\)"):
        check_parity(replace(passing, label_flips=0.03), "deploy")


CLASSES = Task(objective="classification", label_names=("a", "b"), max_length=8, input_names=())
UNQUANTIZED = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
SIMULATED = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
COMPLETE = np.array([[0.0, 0.0], [4.0, 1.0], [0.0, 4.0], [0.0, 4.0]])


def test_every_figure_is_the_error_it_says_over_the_quantization_error_of_its_own_sites() -> None:
    deployed = np.array([[3.0, 0.0], [4.0, 0.0], [0.0, -2.0], [0.0, 4.0]])
    result = compare(deployed, SIMULATED, UNQUANTIZED, COMPLETE, CLASSES, Parity())
    assert result.quantization_error == pytest.approx(3 / math.sqrt(8))
    assert result.relative_error == pytest.approx(6 / 3)
    assert result.error_ratio == pytest.approx(math.hypot(3, 6) / 3)
    assert result.all_sites_error == pytest.approx(math.sqrt(3**2 + 1**2 + 6**2) / 1)
    assert result.max_difference == 6
    assert result.label_flips == 1 / 4  # the third of four texts


def test_a_runtime_with_every_quantizer_has_no_error_over_all_sites(
    deployments: Deployments,
) -> None:
    form = open_form(deployments.int8(), 1)
    folder = form.folder
    encoded = encoded_texts(TEXTS, folder, folder, form.task, "deploy")
    result = measure_parity(folder, form, encoded, form.task, Parity())
    assert result.all_sites_error == pytest.approx(0, abs=1e-4)
    assert result.relative_error > 1e-2  # the sites that are left in float


def test_labels_are_compared_text_by_text() -> None:
    same = compare(SIMULATED, SIMULATED, UNQUANTIZED, COMPLETE, CLASSES, Parity())
    assert same.label_flips == 0
    turned = compare(SIMULATED[::-1], SIMULATED, UNQUANTIZED, COMPLETE, CLASSES, Parity())
    assert turned.label_flips == 1


def test_any_error_misses_the_gate_where_quantization_has_none() -> None:
    equal = compare(SIMULATED, SIMULATED, SIMULATED, SIMULATED, CLASSES, Parity())
    assert (equal.relative_error, equal.all_sites_error) == (0, 0)
    check_parity(equal, "deploy")
    other = compare(SIMULATED + 1e-3, SIMULATED, SIMULATED, SIMULATED, CLASSES, Parity())
    with pytest.raises(GateMissedError, match=r"relative_error 1e\+09 \(at most 1\.5\)"):
        check_parity(other, "deploy")


def test_a_float_export_is_held_to_the_float_tolerance(deployments: Deployments) -> None:
    folder, metrics = deployments.export("float", "openvino")
    assert metrics["parity"]["against"] == "float"
    assert metrics["parity"]["max_relative_error"] == FLOAT_TOLERANCE
    model_folder = deployments.float() / "model"
    task = Task.read(model_folder)
    encoded = encoded_texts(TEXTS, model_folder, folder, task, "deploy")
    result = measure_parity(model_folder, Altered(deployments), encoded, task, Parity())
    with pytest.raises(GateMissedError, match=r"differs from its float model"):
        check_parity(result, "an int8 model instead of the float one")


def test_a_score_has_no_label_to_flip(deployments: Deployments) -> None:
    folder = deployments.int8() / "model"
    task = Task.read(folder)
    encoded = encoded_texts(TEXTS, folder, folder, task, "deploy")
    score = task.model_copy(update={"objective": "regression", "label_names": ()})
    runtime = Altered(deployments, factor=-1.0)
    assert measure_parity(folder, runtime, encoded, score, Parity()).label_flips == 0


def test_texts_meet_neighbours_of_other_lengths_in_the_given_order(
    deployments: Deployments,
) -> None:
    folder = deployments.int8() / "model"
    task = Task.read(folder)
    seen: list[np.ndarray] = []

    class Watched(Altered):
        def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
            seen.append(batch["attention_mask"].sum(axis=1))
            return super().logits(batch)

    encoded = encoded_texts(TEXTS, folder, folder, task, "deploy")
    measure_parity(folder, Watched(deployments), encoded, task, Parity())
    assert [len(lengths) for lengths in seen] == [16, 4]
    assert np.concatenate(seen).tolist() == encoded.lengths.tolist()
    assert len(set(seen[0].tolist())) > 1
