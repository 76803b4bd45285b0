"""Estimates the cost of a report: a few seconds for any recipe."""

from __future__ import annotations

from attar.planning import RUNTIME_MIB, PlanContext
from attar.report.config import ReportStep
from attar.step import StepPlan

SECONDS = 4.0


def plan_report(config: ReportStep, context: PlanContext) -> StepPlan:
    return StepPlan(memory_mib=RUNTIME_MIB, disk_mib=1, seconds=SECONDS)
