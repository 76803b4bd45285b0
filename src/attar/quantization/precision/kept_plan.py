"""The chosen plan survives a kill.

The problem: a plan rests on what was measured, milliseconds above all, and a second measurement
may end in another plan; a training that goes on from its checkpoint would then find other tensors
than it left. The idea: the plan is written into the step's scratch folder as soon as it is chosen,
and a resumed step takes it from there. That saves the minutes of sensitivities too.

    plan.json   key (of the settings and the seed)  ·  plan  ·  what the metrics say of it
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from attar.artifacts import key_of, read_json, write_json
from attar.quantization.config import QuantizeSettings
from attar.quantization.method import BitPlan
from attar.step import StepContext

PLAN_FILE = "plan.json"
PLAN = TypeAdapter(BitPlan)

Planned = tuple[BitPlan, dict[str, Any]]
"""A plan, and `budget` for the step's metrics."""


def keep_plan(planned: Planned, config: QuantizeSettings, context: StepContext) -> None:
    """Write a plan down for a resumed run of the same step."""
    plan, metrics = planned
    context.scratch.mkdir(parents=True, exist_ok=True)
    content = {
        "key": _key(config, context),
        "plan": PLAN.dump_python(plan, mode="json"),
        "metrics": metrics,
    }
    write_json(context.scratch / PLAN_FILE, content)


def kept_plan(config: QuantizeSettings, context: StepContext) -> Planned | None:
    """The plan that a killed run of the same step had chosen; None if there is none.

    Raises:
        ArtifactError: the file is damaged.
    """
    file = context.scratch / PLAN_FILE
    if not file.is_file():
        return None
    content = read_json(file)
    if content["key"] != _key(config, context):
        return None
    return PLAN.validate_python(content["plan"]), content["metrics"]


def _key(config: QuantizeSettings, context: StepContext) -> str:
    return key_of({"settings": config.model_dump(mode="json"), "seed": context.seed})
