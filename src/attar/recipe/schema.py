"""The schema of a recipe: its tables as frozen pydantic models.

A recipe is data tables, steps (a union distinguished by `run`), an optional sweep, and gates.
Relations between tables (does this name refer to a step?) are checked in `relations`, because a
field cannot see other fields.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, model_validator

from attar.analysis.config import AnalyzeStep
from attar.config import Config, as_tuples
from attar.data.config import DataConfig
from attar.distillation.config import AugmentStep, GenerateStep
from attar.evaluation.config import EvaluateStep, ExtrapolateStep
from attar.export.config import ExportStep
from attar.numerics.metric_names import BOUNDS, LOWER_IS_BETTER
from attar.quantization.config import QuantizeStep
from attar.reparameterization.config import FoldStep
from attar.report.config import ReportStep
from attar.selection.config import (
    ExportDataStep,
    ProxyStep,
    ScoreStep,
    SelectStep,
    TokenizeStep,
)
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep

StepConfig = Annotated[
    TrainStep
    | CacheStep
    | AugmentStep
    | TokenizeStep
    | ScoreStep
    | ProxyStep
    | SelectStep
    | GenerateStep
    | ExportDataStep
    | AnalyzeStep
    | FoldStep
    | QuantizeStep
    | ExportStep
    | EvaluateStep
    | ExtrapolateStep
    | ReportStep,
    Field(discriminator="run"),
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
"""Names are used as folders and in dotted paths: letters, digits, _ and -, starting with a letter
or digit."""


class Sweep(Config):
    """Run steps with several values of their settings: one copy for each combination of values, and
    of all steps that depend on them."""

    model_config = ConfigDict(
        # the schema describes the file, where each setting is written next to `steps`
        json_schema_extra={"required": ["steps"], "additionalProperties": True}
    )
    steps: tuple[str, ...] = Field(min_length=1)
    """Steps whose settings vary."""
    settings: dict[str, tuple[Any, ...]] = Field(min_length=1)
    """Dotted name of a setting → its values. In TOML, each setting is written next to `steps`."""

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, table: Any) -> Any:
        """Collect the entries next to `steps` in `settings`."""
        if not isinstance(table, dict):
            return table  # pyright: ignore[reportUnknownVariableType]
        rest = dict(cast("dict[str, Any]", table))
        steps, settings = rest.pop("steps", ()), rest.pop("settings", None)
        settings = flattened(rest) if settings is None else settings
        return as_tuples({"steps": steps, "settings": settings})


class Gate(Config):
    """A condition on a metric. If it is not met, the run ends with exit code 6, after all results
    are saved."""

    metric: str
    """Dotted path of a metric of a step. For an evaluate step: step, model, metric, such as
    "scores.deploy.accuracy"."""
    at_least: float | None = None
    """Minimum value."""
    at_most: float | None = None
    """Maximum value."""
    of: str | None = None
    """Another metric to compare with, for max_drop."""
    max_drop: float | None = None
    """Maximum amount by which `metric` may be below `of`."""

    @model_validator(mode="after")
    def _says_something(self) -> Gate:
        if (self.of is None) != (self.max_drop is None):
            raise ValueError("`of` and `max_drop` must be given together")
        if self.at_least is None and self.at_most is None and self.of is None:
            raise ValueError("a gate needs at_least, at_most, or of with max_drop")
        named = [part for part in self.metric.split(".") if part in LOWER_IS_BETTER]
        if self.max_drop is not None and named:
            raise ValueError(
                f"max_drop limits how far a metric falls, and {named[-1]} is better the lower it "
                "is: such a gate would let any model pass; set at_most instead"
            )
        return self

    @model_validator(mode="after")
    def _can_be_missed(self) -> Gate:
        """Require a condition that a model can fail."""
        name = self.metric.rpartition(".")[2]
        low, high = BOUNDS.get(name, (-math.inf, math.inf))
        always_passed = {
            "at_least": self.at_least is not None and self.at_least <= low,
            "at_most": self.at_most is not None and self.at_most >= high,
            "max_drop": self.max_drop is not None and self.max_drop >= high - low,
        }
        for setting, is_empty in always_passed.items():
            if is_empty:
                limit = getattr(self, setting)
                hint = f"; {limit:g} points are {limit / 100:g}" if 1 < limit <= 100 else ""
                raise ValueError(
                    f"{setting} = {limit:g} cannot be missed: {name} lies between {low:g} and "
                    f"{high:g}{hint}"
                )
        return self


class RunSettings(Config):
    """Settings that do not affect results; they are not part of any step's key."""

    log: tuple[Literal["tensorboard", "trackio"], ...] = ()
    """Trackers to log training metrics to."""


class Recipe(Config):
    """Named data and the steps that read it."""

    name: Name
    """Name of the run's folder."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Random seed of every step that does not set its own."""
    data: dict[Name, DataConfig] = Field(default_factory=dict)
    """Name → data table, [data.<name>]."""
    steps: dict[Name, StepConfig] = Field(min_length=1)
    """Name → step, [steps.<name>]. Steps run in the order in which they refer to each other."""
    sweep: Sweep | None = None
    """Steps to run with several values of a setting, [sweep]."""
    gates: tuple[Gate, ...] = ()
    """Conditions on metrics, [[gates]]."""
    run: RunSettings = RunSettings()
    """Settings that do not affect results, [run]."""

    @property
    def order(self) -> list[str]:
        """Names of the steps in execution order, before the sweep is expanded."""
        from attar.recipe.graph import in_order, inputs_of

        return in_order(inputs_of(self.steps))


def flattened(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables to dotted names; lists are unchanged.

    Example:
        >>> flattened({"calibration": {"examples": [64, 256]}, "seed": [0, 1]})
        {'calibration.examples': [64, 256], 'seed': [0, 1]}
    """
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{prefix}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            flat[f"{prefix}{name}"] = value
    return flat
