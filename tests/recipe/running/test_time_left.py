"""The time left is corrected by what was measured, and unknown when it cannot be known."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from attar.errors import (
    ArtifactError,
    AttarError,
    DataError,
    ModelError,
    ResourceError,
    UsageError,
)
from attar.progress import Progress
from attar.recipe.load import parse_recipe
from attar.recipe.outcome.sweep import expand
from attar.recipe.running.time_left import TimeLeft, planned_seconds


def test_the_first_answer_is_the_estimate() -> None:
    assert TimeLeft({"a": 10.0, "b": 5.0}).seconds(["a", "b"]) == 15.0


def test_measured_steps_rescale_the_rest() -> None:
    left = TimeLeft({"a": 10.0, "b": 10.0, "c": 30.0})
    left.made("a", 5.0)
    assert left.seconds(["b", "c"]) == pytest.approx(20.0)
    left.made("b", 25.0)
    assert left.seconds(["c"]) == pytest.approx(45.0)


def test_one_step_without_an_estimate_means_no_answer() -> None:
    left = TimeLeft({"a": 10.0})
    left.made("unknown", 3.0)
    assert left.seconds(["a", "b"]) is None
    assert left.seconds([]) is None
    assert left.seconds(["a"]) == 10.0


RECIPE = """
name = "small"
[data.words]
source = "files"
path = "words"
[steps.teacher]
run = "train"
model = "{model}"
data = "words"
max_length = 32
[steps.int8]
run = "quantize"
model = "teacher"
method = "minmax"
calibration = {{ data = "words", examples = 16 }}
[sweep]
steps = ["int8"]
weight_bits = [4, 8]
"""


def planned(model: object, folder: Path) -> tuple[dict[str, float], str]:
    """What is planned for a recipe that starts from `model`, and what was said."""
    for split in ("train", "validation"):
        rows = [{"text": f"good film {i}", "label": "ab"[i % 2]} for i in range(20)]
        (folder / "words").mkdir(exist_ok=True)
        file = folder / "words" / f"{split}.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows))
    said = io.StringIO()
    recipe = expand(parse_recipe(RECIPE.format(model=model)))
    return dict(
        planned_seconds(recipe, folder, Progress(said, quiet=True), ["teacher"], [])
    ), said.getvalue()


def test_every_copy_of_a_sweep_is_expected_to_take_as_long(tiny_bert: Path, tmp_path: Path) -> None:
    seconds, said = planned(tiny_bert, tmp_path)
    assert set(seconds) == {"teacher", "int8@weight_bits=4", "int8@weight_bits=8"}
    assert seconds["int8@weight_bits=4"] == seconds["int8@weight_bits=8"] > 0
    assert said == ""


@pytest.mark.parametrize("kind", [ModelError, DataError, UsageError, ArtifactError])
def test_a_mistake_that_the_plan_finds_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bert: Path, kind: type[AttarError]
) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise kind("a mistake")

    monkeypatch.setattr("attar.recipe.plan.plan_recipe", mistaken)
    with pytest.raises(kind, match="a mistake"):
        planned(tiny_bert, tmp_path)


def test_a_model_that_does_not_exist_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model-anywhere"):
        planned("no-such-model-anywhere", tmp_path)


@pytest.mark.parametrize("failure", [ValueError("odd shapes"), ResourceError("odd shapes")])
def test_a_plan_that_fails_otherwise_is_a_warning_and_no_reason_not_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bert: Path, failure: Exception
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("attar.recipe.plan.plan_recipe", failing)
    seconds, said = planned(tiny_bert, tmp_path)
    assert seconds == {}
    assert said.startswith("warning: the time of the whole run cannot be estimated (odd shapes)")
