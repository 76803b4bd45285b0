"""The table of steps: the meaning of `run = "…"`.

Each row has the function of the step (as a string, imported only when it runs, so that checks do
not load torch), the places where its settings refer to models and data, and the version of its
code. Increment `version` when the same settings give a different artifact: this changes all keys of
the step, so its existing artifacts are not reused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from attar.analysis.config import AnalyzeMetrics
from attar.artifacts import sha256_of
from attar.config import Config
from attar.data.corpus.config import CORPUS_MAKERS
from attar.distillation.config import AugmentMetrics, GenerateMetrics
from attar.export.config import ExportMetrics
from attar.quantization.config import QuantizeMetrics
from attar.recipe.checking.references import (
    ModelPlace,
    ModelWord,
    Reference,
    data_references,
    model_references,
)
from attar.reparameterization.config import FoldMetrics
from attar.selection.config import (
    ExportDataMetrics,
    ProxyMetrics,
    ScoreMetrics,
    SelectMetrics,
    TokenizeMetrics,
)
from attar.step import StepContext, StepPlan
from attar.training.cache_config import CacheMetrics
from attar.training.config import TrainMetrics

StepFunction = Callable[[Any, StepContext], Mapping[str, Any]]
PlanFunction = Callable[[Any, Any], StepPlan]
"""(config, PlanContext) → StepPlan."""


@dataclass(frozen=True)
class StepKind:
    function: str
    """ "module:name"; imported when the step runs."""
    plan: str
    """ "module:name" of the function that estimates the cost, (config, PlanContext) → StepPlan."""
    models: tuple[ModelPlace, ...] = ()
    data: tuple[str, ...] = ()
    """Places that refer to a data table, or to a step that makes rows."""
    corpora: tuple[str, ...] = ()
    """Places in `data` that require a whole corpus."""
    needs_views: bool = False
    """Whether the step inspects a model, so that its family needs a table row."""
    version: int = 1
    metrics: type | None = None
    """A TypedDict with the names of the step's metrics; None: they depend on the settings."""
    length: tuple[str, ...] = ()
    """Settings with a number of tokens that all of the step's models must support."""
    files: str = ""
    """"module:function" that hashes files given in the settings: (config, recipe_folder, sha256) →
    plain data for the key, or None if there are none. "": the settings have no files."""
    rows: str = ""
    """"module:function" that reads the rows that the step makes: (MadeRows, StepContext) →
    TextData. Such a step can be used as data. "": it makes no rows."""
    names_matter: bool = False
    """Whether the artifact contains the names of its inputs (a table of models), so that renaming
    an input changes the artifact. False: only the contents of the inputs matter."""
    reads_everything: bool = False
    """Whether the step reads all other steps (the report). Sweeps do not copy it."""

    def resolve(self) -> StepFunction:
        return _resolved(self.function)

    def resolve_plan(self) -> PlanFunction:
        return _resolved(self.plan)

    def files_in(
        self, step: Config, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
    ) -> Any:
        """Hashes of the files given in a step's settings; None if there are none.

        Raises:
            DataError: a file is missing.
        """
        return _resolved(self.files)(step, recipe_folder, sha256) if self.files else None

    def models_in(self, step: Config | Mapping[str, Any]) -> tuple[ModelWord, ...]:
        return model_references(as_table(step), self.models)

    def data_in(self, step: Config | Mapping[str, Any]) -> tuple[Reference, ...]:
        return data_references(as_table(step), self.data)


FLOAT = ("train", "fold")
"""Steps whose model has float weights and can be trained further."""
TOKENIZERS = (*FLOAT, *CORPUS_MAKERS)
"""Steps whose folder has a tokenizer."""

STEPS: Mapping[str, StepKind] = {
    "train": StepKind(
        "attar.training.run:train",
        "attar.training.plan:plan_train",
        metrics=TrainMetrics,
        length=("max_length",),
        models=(
            ModelPlace("model", FLOAT),
            ModelPlace("model.from", FLOAT),
            ModelPlace("model.tokenizer", TOKENIZERS, tokenizer_only=True),
            ModelPlace("teacher", (*FLOAT, "cache")),
            ModelPlace("match_flops", ("train",), steps_only=True),
        ),
        data=("data", "data.from"),
        version=2,
    ),
    "augment": StepKind(
        "attar.distillation.run:augment",
        "attar.distillation.plan:plan_augment",
        metrics=AugmentMetrics,
        length=("max_length",),
        models=(
            ModelPlace("model", FLOAT),
            ModelPlace("model.from", FLOAT),
            ModelPlace("model.tokenizer", TOKENIZERS, tokenizer_only=True),
        ),
        data=("data",),
        rows="attar.data.augmented:augmented_data",
    ),
    "cache": StepKind(
        "attar.training.teaching.cache:cache",
        "attar.training.cache_plan:plan_cache",
        metrics=CacheMetrics,
        length=("max_length",),
        models=(ModelPlace("teacher", FLOAT),),
        data=("data",),
        version=2,
    ),
    "tokenize": StepKind(
        "attar.selection.tokenize:tokenize",
        "attar.selection.plan:plan_tokenize",
        metrics=TokenizeMetrics,
        models=(ModelPlace("tokenizer", TOKENIZERS, tokenizer_only=True),),
        data=("data", "tokenizer.train_on"),
        rows="attar.selection.rows:corpus_rows",
        version=3,
    ),
    "score": StepKind(
        "attar.selection.score:score",
        "attar.selection.plan:plan_score",
        metrics=ScoreMetrics,
        models=(ModelPlace("model", (*FLOAT, "proxy")),),
        data=("data",),
        corpora=("data",),
    ),
    "proxy": StepKind(
        "attar.selection.proxy:proxy",
        "attar.selection.plan:plan_proxy",
        metrics=ProxyMetrics,
        models=(
            ModelPlace("model", FLOAT),
            ModelPlace("model.from", FLOAT),
            ModelPlace("model.tokenizer", TOKENIZERS),
            ModelPlace("teacher", ("score",), steps_only=True),
            ModelPlace("reference", ("score",), steps_only=True),
        ),
        data=("data",),
        corpora=("data",),
        version=2,
    ),
    "select": StepKind(
        "attar.selection.select:select",
        "attar.selection.plan:plan_select",
        metrics=SelectMetrics,
        models=(
            ModelPlace("teacher", ("score",), steps_only=True),
            ModelPlace("reference", ("score",), steps_only=True),
            ModelPlace("scores", ("score",), steps_only=True),
            ModelPlace("diversity.model", FLOAT),
        ),
        data=("data",),
        corpora=("data",),
        rows="attar.selection.rows:selected_rows",
        version=4,
    ),
    "generate": StepKind(
        "attar.distillation.generate:generate",
        "attar.distillation.plan:plan_generate",
        metrics=GenerateMetrics,
        models=(ModelPlace("model", FLOAT), ModelPlace("diversity.model", FLOAT)),
        data=("data",),
        rows="attar.selection.rows:corpus_rows",
    ),
    "export_data": StepKind(
        "attar.selection.export_data:export_data",
        "attar.selection.plan:plan_export_data",
        metrics=ExportDataMetrics,
        data=("data",),
    ),
    "analyze": StepKind(
        "attar.analysis.run:analyze",
        "attar.analysis.plan:plan_analyze",
        needs_views=True,
        metrics=AnalyzeMetrics,
        models=(ModelPlace("model", FLOAT), ModelPlace("compare_with", FLOAT)),
        data=("data",),
        names_matter=True,
        version=4,
    ),
    "fold": StepKind(
        "attar.reparameterization.run:fold",
        "attar.reparameterization.plan:plan_fold",
        needs_views=True,
        metrics=FoldMetrics,
        models=(ModelPlace("model", FLOAT, needs_task=True),),
        data=("data",),
    ),
    "quantize": StepKind(
        "attar.quantization.run:quantize",
        "attar.quantization.plan:plan_quantize",
        needs_views=True,
        metrics=QuantizeMetrics,
        models=(ModelPlace("model", FLOAT, needs_task=True, answers=True),),
        data=("calibration.data", "data"),
        version=4,
    ),
    "export": StepKind(
        "attar.export.run:export",
        "attar.export.plan:plan_export",
        needs_views=True,
        metrics=ExportMetrics,
        models=(ModelPlace("model", (*FLOAT, "quantize"), needs_task=True, answers=True),),
        data=("data",),
        names_matter=True,
        version=3,
    ),
    "evaluate": StepKind(
        "attar.evaluation.run:evaluate",
        "attar.evaluation.plan:plan_evaluate",
        length=("lengths", "speed.tokens"),
        models=(ModelPlace("models.*", needs_task=True),),
        data=("data",),
        files="attar.evaluation.zero_shot.files:fingerprint",
        names_matter=True,
        version=2,
    ),
    "extrapolate": StepKind(
        "attar.evaluation.extrapolation:extrapolate",
        "attar.evaluation.plan:plan_extrapolate",
        models=(
            ModelPlace("models.*", ("train",), steps_only=True),
            ModelPlace("models.*.*", ("train",), steps_only=True),
            ModelPlace("teacher", ("train",), steps_only=True),
        ),
        names_matter=True,
    ),
    "report": StepKind(
        "attar.report.run:report",
        "attar.report.plan:plan_report",
        names_matter=True,
        reads_everything=True,
    ),
}


def _resolved(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def as_table(step: Config | Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings as plain data, with names as in TOML."""
    return step.model_dump(mode="json", by_alias=True) if isinstance(step, Config) else step


def makes_rows(
    name: str, steps: Mapping[str, Config], kinds: Mapping[str, StepKind] = STEPS
) -> bool:
    """Whether a data name refers to a step. Such steps never share a name with a table."""
    return name in steps and bool(kind_of(steps[name], kinds).rows)


def steps_read(
    step: Config, steps: Mapping[str, Config], kinds: Mapping[str, StepKind] = STEPS
) -> tuple[Reference, ...]:
    """References of a step's settings to other steps, for their model or their rows."""
    kind = kind_of(step, kinds)
    models = (reference for reference in kind.models_in(step) if reference.word in steps)
    rows = (
        reference for reference in kind.data_in(step) if makes_rows(reference.word, steps, kinds)
    )
    return (*models, *rows)


def run_of(step: Config) -> str:
    """The `run` of a step, a field of every member of the union."""
    return getattr(step, "run")  # noqa: B009


def kind_of(step: Config, kinds: Mapping[str, StepKind] = STEPS) -> StepKind:
    return kinds[run_of(step)]
