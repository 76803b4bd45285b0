"""The literal table of steps: what `run = "…"` means.

One row a step: the function that does the work (as text, imported only when it runs, so that a
check loads no torch), the settings it reads, what it refers to, and the version of its code. Raise
`version` when a change makes the same settings give another artifact: every key of that step
changes, and what was made before is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from attar.config import Config
from attar.evaluation.config import EvaluateStep
from attar.export.config import ExportStep
from attar.models.config import referenced_model
from attar.quantization.config import QuantizeSettings
from attar.recipe.references import DataReference, ModelWord, References
from attar.report.config import ReportStep
from attar.step import StepContext
from attar.training.config import TrainStep

StepFunction = Callable[[Any, StepContext], Mapping[str, Any]]


@dataclass(frozen=True)
class StepKind:
    """One row of the table."""

    function: str
    """"module:name"; imported when the step runs."""
    references: Callable[[Any], References]
    version: int = 1
    names_matter: bool = False
    """The artifact repeats the names of the steps it reads (a table of models), so a renamed input
    makes another artifact. False: only what the inputs contain matters."""
    reads_everything: bool = False
    """The step reads all other steps (the report); a sweep never multiplies it."""

    def resolve(self) -> StepFunction:
        """Import the function."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


def _train(step: TrainStep) -> References:
    words = [("model", referenced_model(step.model)), ("teacher", step.teacher)]
    tokenizer = getattr(step.model, "tokenizer", None)
    words.append(("model.tokenizer", tokenizer))
    return References(
        models=tuple(ModelWord(place, word) for place, word in words if word is not None),
        data=(DataReference("data", step.data),),
    )


def _quantize(step: QuantizeSettings) -> References:
    return References(
        models=(ModelWord("model", step.model),),
        data=(DataReference("calibration.data", step.calibration.data),),
    )


def _export(step: ExportStep) -> References:
    data = () if step.data is None else (DataReference("data", step.data),)
    return References(
        models=(ModelWord("model", step.model, makers=("train", "quantize")),), data=data
    )


def _evaluate(step: EvaluateStep) -> References:
    return References(
        models=tuple(ModelWord(f"models.{i}", word) for i, word in enumerate(step.models)),
        data=(DataReference("data", step.data),),
    )


def _report(_step: ReportStep) -> References:
    return References()


STEPS: Mapping[str, StepKind] = {
    "train": StepKind("attar.training.run:train", _train),
    "quantize": StepKind("attar.quantization.run:quantize", _quantize),
    "export": StepKind("attar.export.run:export", _export, names_matter=True),
    "evaluate": StepKind("attar.evaluation.run:evaluate", _evaluate, names_matter=True),
    "report": StepKind(
        "attar.report.run:report", _report, names_matter=True, reads_everything=True
    ),
}


def kind_of(step: Config, steps: Mapping[str, StepKind] = STEPS) -> StepKind:
    """The row of a step's settings."""
    return steps[getattr(step, "run")]  # noqa: B009 - the attribute belongs to every member of the union
