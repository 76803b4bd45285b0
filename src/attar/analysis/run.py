"""The step `analyze`: analyzes why a model is hard to quantize, with one study per step.

    study.json    tables of the study, for the report
    metrics       figures for gates and other programs

To add a study, write its module in studies/, add a member of the union in `config`, a row here and
its tables for the report (report/study_tables/layouts.py), and document it in docs/methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from attar.analysis.config import AnalyzeMetrics
from attar.analysis.studies.clipping import clipping
from attar.analysis.studies.disabling import disabling
from attar.analysis.studies.gamma import gamma
from attar.analysis.studies.gamma_cosine import gamma_cosine
from attar.analysis.studies.histograms import histograms
from attar.analysis.studies.leave_one_kind import leave_one_kind
from attar.analysis.studies.outlier_tokens import outlier_tokens
from attar.analysis.studies.outliers import outliers
from attar.analysis.studies.site_cosine import site_cosine
from attar.analysis.subject import Finding
from attar.artifacts import write_json
from attar.step import StepContext

STUDIES: Mapping[str, Callable[[Any, StepContext], Finding]] = {
    "outliers": outliers,
    "outlier_tokens": outlier_tokens,
    "gamma": gamma,
    "histograms": histograms,
    "disabling": disabling,
    "site_cosine": site_cosine,
    "leave_one_kind": leave_one_kind,
    "gamma_cosine": gamma_cosine,
    "clipping": clipping,
}
STUDY_FILE = "study.json"


def analyze(config: Any, context: StepContext) -> AnalyzeMetrics:
    """Run the study `config.study` and write its tables.

    Returns: the step's metrics.
    """
    found = STUDIES[config.study](config, context)
    table = {"study": config.study, "facts": found.facts, **found.tables}
    write_json(context.folder / STUDY_FILE, table)
    return cast(AnalyzeMetrics, {"study": config.study, **found.facts, **found.metrics})
