"""A setting that would be ignored is a mistake, told before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from attar.quantization.config import QuantizeStep

STEP: TypeAdapter[Any] = TypeAdapter(QuantizeStep)
BASE = {"model": "m", "calibration": {"data": "texts"}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "lsq_plus", "refine": False}, "all of this method"),
        ({"method": "lsq", "weights": "gptq"}, "would be lost"),
        ({"method": "minmax", "smoothquant_alpha": 0.7}, "a setting of SmoothQuant"),
        (
            {"method": "smoothquant", "transform": "gamma", "smoothquant_alpha": 0.7},
            "a setting of SmoothQuant",
        ),
        ({"method": "minmax", "budget": {"max_latency_ms": 3, "widths": [4, 8]}}, "int8 and float"),
        (
            {"method": "percentile", "percentile": 0.999, "choose_by": "validation"},
            "nothing to choose",
        ),
        ({"method": "minmax", "refine": True}, "minmax has no refinement by gradient.*remove it"),
        ({"method": "smoothquant", "refine": True}, "smoothquant has no refinement by gradient"),
        (
            {"method": "auto", "refine": True},
            "refine belongs to the gradient stage of auto .* was removed because",
        ),
        ({"method": "auto", "epochs": 3}, "was removed.* remove epochs, or use .*lsq_plus"),
        ({"method": "minmax", "budget": {}}, "exactly one"),
        ({"method": "minmax", "budget": {"average_bits": 5, "max_latency_ms": 3}}, "exactly one"),
    ],
)
def test_what_would_be_ignored_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        STEP.validate_python({**BASE, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "smoothquant", "smoothquant_alpha": 0.7},
        {"method": "percentile", "transform": "smoothquant", "smoothquant_alpha": 0.7},
        {"method": "auto", "refine": False},
        {"method": "minmax", "refine": False},
        {"method": "step_size", "refine": True},
        {"method": "outlier_suppression", "refine": True},
        # as the run folders of a version with auto's former learning have it
        {"method": "auto", "refine": False, "learning_rate": 0.003, "epochs": 6},
        {"method": "lsq_plus", "weights": "nearest"},
    ],
)
def test_what_is_read_is_allowed(settings: dict[str, Any]) -> None:
    assert STEP.validate_python({**BASE, **settings})


@pytest.mark.parametrize("method", ["minmax", "percentile", "auto", "lsq_plus", "smoothquant"])
def test_a_step_that_was_written_out_is_read_again(method: str) -> None:
    step = STEP.validate_python({**BASE, "method": method})
    assert STEP.validate_python(step.model_dump(mode="json")) == step
