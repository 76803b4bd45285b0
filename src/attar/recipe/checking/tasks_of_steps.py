"""The tasks of a recipe's data and models, and settings of other steps that do not fit them.

Steps check the same of models from outside the recipe, when they open them.
"""

from __future__ import annotations

from collections.abc import Iterator

from attar.data.config import CorpusData
from attar.distillation.config import AugmentStep, GenerateStep
from attar.evaluation.config import EvaluateStep, writes_nothing
from attar.export.config import ExportStep, packs_floats
from attar.quantization.config import QuantizeSettings
from attar.recipe.checking.mistakes import Mistake
from attar.recipe.schema import Recipe
from attar.reparameterization.config import FoldStep
from attar.selection.config import SelectStep, TokenizeStep
from attar.tasks.table import CAUSAL_LM, KINDS, Kind
from attar.training.config import TrainStep


def has_chunks(recipe: Recipe, data: str) -> bool:
    """Whether data is a corpus or a selection."""
    found = recipe.steps.get(data) or recipe.data.get(data)
    return isinstance(found, TokenizeStep | SelectStep | CorpusData)


def kind_of_data(recipe: Recipe, data: str) -> Kind | None:
    """The task of a table, or of the rows that a step makes; None: there is no such data."""
    made = recipe.steps.get(data)
    if isinstance(made, AugmentStep):
        return kind_of_data(recipe, made.data)
    is_text = isinstance(made, GenerateStep) or has_chunks(recipe, data)
    return CAUSAL_LM if is_text else getattr(recipe.data.get(data), "kind", None)


def kind_of_model(recipe: Recipe, word: str) -> Kind | None:
    """The task that a model of the recipe is trained for; None: it is from outside."""
    step = recipe.steps.get(word)
    if isinstance(step, TrainStep):
        return KINDS[step.objective] if step.objective else kind_of_data(recipe, step.data_name)
    return None if step is None else kind_of_model(recipe, str(getattr(step, "model", "")))


def check_tasks(recipe: Recipe) -> list[Mistake]:
    """Every step whose settings do not fit the model of another step."""
    return [
        Mistake(("steps", name, setting), problem)
        for name, step in recipe.steps.items()
        for setting, problem in _problems(recipe, step)
    ]


def _problems(recipe: Recipe, step: object) -> Iterator[tuple[str, str]]:
    if isinstance(step, ExportStep):
        is_float = isinstance(recipe.steps.get(step.model), TrainStep | FoldStep)
        if is_float and step.format == "safetensors":
            yield "format", packs_floats(f"step {step.model!r}")
    elif isinstance(step, QuantizeSettings):
        kind = kind_of_model(recipe, step.model)
        if kind is not None and (problem := step.misfit(kind)):
            yield problem
    elif isinstance(step, EvaluateStep) and step.answers == "generated":
        for word in step.models:
            kind = kind_of_model(recipe, word)
            if kind is not None and not kind.writes:
                yield "answers", writes_nothing(word)
