"""The settings and the path of the step `quantize`, for a study's own model and texts."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from attar.analysis.config import TextStudy
from attar.analysis.subject import Subject
from attar.quantization.config import QuantizeSettings, QuantizeStep
from attar.quantization.solve import Prepared, prepare_
from attar.step import StepContext

_STEP: TypeAdapter[Any] = TypeAdapter(QuantizeStep)


def settings_of(config: TextStudy, method: str, bits: int, **more: Any) -> QuantizeSettings:
    """The settings of the step `quantize` that would do the same, with its defaults."""
    return _STEP.validate_python(
        {
            "run": "quantize",
            "model": config.model,
            "method": method,
            "weight_bits": bits,
            "activation_bits": bits,
            "calibration": {"data": config.data, **config.calibration.model_dump()},
            **more,
        }
    )


def prepared(settings: QuantizeSettings, subject: Subject, context: StepContext) -> Prepared:
    """Transform a copy of the study's model and calibrate it."""
    return prepare_(settings, subject.fresh(), subject.batches, context)
