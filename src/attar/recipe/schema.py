"""The form of a recipe: its tables as frozen pydantic models, nothing about how it is read or run.

A recipe is data tables, steps (a union distinguished by `run`), an optional sweep, and gates.
Relations between the tables (does this word name a step?) are checked in `relations`, because a
field cannot see its neighbours.
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
"""Names become folders and parts of dotted paths: letters, digits, _ and -, starting with a letter
or digit."""


class Sweep(Config):
    """Multiplies steps: one copy for each combination of the listed values, and of everything that
    depends on them."""

    model_config = ConfigDict(
        # the schema describes what a file says, where each setting stands beside `steps`
        json_schema_extra={"required": ["steps"], "additionalProperties": True}
    )
    steps: tuple[str, ...] = Field(min_length=1)
    """Steps whose settings vary."""
    settings: dict[str, tuple[Any, ...]] = Field(min_length=1)
    """Dotted setting of those steps → its values. In TOML each setting is written beside
    `steps`."""

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, table: Any) -> Any:
        """What stands beside `steps` becomes `settings`."""
        if not isinstance(table, dict):
            return table  # pyright: ignore[reportUnknownVariableType]
        rest = dict(cast("dict[str, Any]", table))
        steps, settings = rest.pop("steps", ()), rest.pop("settings", None)
        settings = flattened(rest) if settings is None else settings
        return as_tuples({"steps": steps, "settings": settings})


class Gate(Config):
    """A condition on a metric; if it is missed, the run ends with exit code 6 after everything is
    saved."""

    metric: str
    """"scores.deploy.accuracy": step, model, metric; or any dotted path into a step's metrics."""
    at_least: float | None = None
    """The lowest value that passes."""
    at_most: float | None = None
    """The highest value that passes."""
    of: str | None = None
    """Another metric to compare with."""
    max_drop: float | None = None
    """How far `metric` may lie below `of`."""

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
        """A gate that every model passes promises nothing."""
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
    """How a run works, not what it makes: not part of any step's key."""

    log: tuple[Literal["tensorboard", "trackio"], ...] = ()
    """Trackers that receive each line of a training history."""


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
    """Steps to run with several values of a setting."""
    gates: tuple[Gate, ...] = ()
    """Conditions on measured figures, [[gates]]."""
    run: RunSettings = RunSettings()
    """How the run works, [run]."""

    @property
    def order(self) -> list[str]:
        """Names of the steps in the order they run, before any sweep."""
        from attar.recipe.graph import in_order, inputs_of

        return in_order(inputs_of(self.steps))


def flattened(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names; lists stay whole.

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
