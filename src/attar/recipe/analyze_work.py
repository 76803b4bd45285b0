"""What an analyze step will do, in forward passes.

Most studies know it from their settings alone. `leave_one_kind` judges each kind of tensor twice,
and how many kinds there are is the model's matter: 12 in BERT, 18 in BART.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from attar.analysis.config import AnalyzeSettings, LeaveOneKindStep
from attar.analysis.studies.leave_one_kind import num_judgements


def study_passes(step: AnalyzeSettings, model: PreTrainedModel) -> tuple[int, int]:
    """Passes over the calibration texts, and over the rows that judge.

    Args:
        model: of the step's architecture; weights are not read.

    Raises:
        ModelError: the study quantizes, and no sites are known for the model.
    """
    watched, judged = step.passes
    if isinstance(step, LeaveOneKindStep):
        judged = num_judgements(model)
    return watched, judged
