"""Estimates the cost of a study, in forward passes over calibration texts and validation rows.

For most studies, both follow from the settings. `leave_one_kind` evaluates each kind of tensor
twice, and the number of kinds depends on the model: 12 in BERT, 18 in BART.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from attar.analysis.config import (
    AnalyzeSettings,
    DisablingStep,
    HistogramsStep,
    JudgedStudy,
    LeaveOneKindStep,
    TextStudy,
)
from attar.analysis.studies.leave_one_kind import num_judgements
from attar.planning import OPEN_SECONDS, RUNTIME_MIB, PlanContext
from attar.quantization.config import BATCH_SIZE
from attar.quantization.plan import calibrating_tokens
from attar.step import StepPlan


def plan_analyze(config: AnalyzeSettings, context: PlanContext) -> StepPlan:
    """Plan a study.

    Raises:
        DataError: fewer training rows than calibration texts.
        ModelError: the study quantizes the model, whose sites are unknown.
    """
    texts, model = context.texts, context.model(config.model, None, 128)
    watched, judged = study_passes(config, model.cost.model)
    flops, batch, text_mib = 0, 1, 0.0
    if watched and isinstance(config, TextStudy | HistogramsStep) and config.data is not None:
        wanted = config.calibration
        tokens = calibrating_tokens(texts, config.data, wanted.examples, model)
        flops += watched * wanted.examples * model.cost.flops(1, tokens)
        batch = wanted.batch_size or BATCH_SIZE
        text_mib = model.activation_mib(tokens)
    if judged:
        assert isinstance(config, JudgedStudy | DisablingStep), f"{config} names no rows that judge"
        rows, tokens = texts.count(config.data, "validation", model)
        flops += judged * min(rows, config.num_rows) * model.cost.flops(1, tokens)
    return StepPlan(
        flops=flops,
        memory_mib=RUNTIME_MIB + 3 * model.size_mib + batch * text_mib,
        disk_mib=1,
        seconds=OPEN_SECONDS + context.seconds(forward=flops),
        passes=watched + judged,
        texts_at_once=batch,
        text_mib=text_mib,
    )


def study_passes(config: AnalyzeSettings, model: PreTrainedModel) -> tuple[int, int]:
    """Passes over the calibration texts, and over the validation rows.

    Args:
        model: a model of the step's architecture; its weights are not read.
    """
    watched, judged = config.passes
    if isinstance(config, LeaveOneKindStep):
        judged = num_judgements(model)
    return watched, judged
