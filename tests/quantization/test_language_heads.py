"""Models that answer with words or next tokens are refused before a text is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

import language_runs
import training_runs
from attar.errors import ModelError
from attar.quantization import run
from attar.quantization.config import QuantizeStep

FAMILIES = {"words": "bart", "running": "gpt2"}
TASKS: dict[str, dict[str, Any]] = {
    "words": language_runs.WORDED,
    "running": {"objective": "causal_lm"},
}
REASONS = {
    "words": r"'m' names classes by words \(poor, great film\); .* evaluate it in float",
    "running": r"'m' is made for causal_lm; .* quantize a classifier",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"method": "minmax"},
    "trained": {"method": "lsq_plus", "start": "minmax"},
    "drop": {"method": "minmax", "budget": {"max_accuracy_drop": 0.01}},
    "mean": {"method": "minmax", "budget": {"average_bits": 4.0}},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("head", TASKS)
def test_a_language_head_is_refused_by_every_way_to_few_bits(
    head: str, settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_is_read(*given: Any, **more: Any) -> None:
        raise AssertionError("texts were read")

    monkeypatch.setattr(run, "load_data", nothing_is_read)
    folder = language_runs.write_random(tmp_path / "model", FAMILIES[head], **TASKS[head])
    context = training_runs.context_for(tmp_path, inputs={"m": folder})
    plain = {"model": "m", "calibration": {"data": "films", "examples": 8}, **SETTINGS[settings]}
    step: Any = TypeAdapter(QuantizeStep).validate_python(plain)
    with pytest.raises(ModelError, match=REASONS[head]):
        run.quantize(step, context)
