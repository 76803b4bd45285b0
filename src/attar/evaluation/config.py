"""Settings of `run = "evaluate"` and `"extrapolate"`. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from attar.config import Config, as_tuples
from attar.errors import did_you_mean
from attar.evaluation.zero_shot.tasks import TASKS
from attar.scoring.config import gap

LENGTHS: tuple[Literal["data"] | int, ...] = ("data", 128)
"""Default lengths to time: the median of the data, and 128 tokens, as in most publications."""


class Speed(Config):
    """How latency is measured. Models take turns, so that other load on the machine affects all of
    them equally."""

    batch_sizes: tuple[int, ...] = (1, 8)
    """Batch sizes to time. The report's headline uses the smallest, throughput the largest."""
    tokens: int | None = Field(default=None, gt=0)
    """Length of the timed texts; the same as `lengths = [tokens]`."""
    threads: int | None = Field(default=None, gt=0)
    """Number of threads; None: all cores available to this process."""
    rounds: int = Field(default=12, ge=3)
    """Number of rounds. In each round, every model has one turn."""
    calls: int = Field(default=5, ge=1)
    """Timed forward passes per turn."""

    @field_validator("batch_sizes")
    @classmethod
    def _batch_sizes_are_usable(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or min(sizes) < 1 or len(set(sizes)) != len(sizes):
            raise ValueError(f"batch_sizes must be distinct and at least 1, got {list(sizes)}")
        return sizes


OF_DATA = (
    *("split", "answers", "batch_size", "context", "stride", "widths"),
    *("lengths", "speed", "memory"),
    *("thresholds", "changed_texts"),
)
OF_TASKS = ("path", "hub", "rows", "sample", "harness", "batch_tokens")
"""Settings that apply only to evaluations on data, and only to zero-shot tasks."""


class EvaluateStep(Config):
    """Evaluate models of any format on the same data and machine, or language models on zero-shot
    tasks."""

    run: Literal["evaluate"] = "evaluate"
    models: tuple[str, ...] = Field(min_length=1)
    """Steps that train, quantize or export, or folders or hub ids of fine-tuned classifiers. Each
    model is compared with the first one and with the previous one."""
    data: str | None = None
    """Data to evaluate the models on; None: `tasks`."""
    split: Literal["validation", "test", "validation_mismatched", "test_mismatched"] = "validation"
    """Split to evaluate on. The mismatched splits are MNLI's second sets, whose sources differ from
    those of its training texts."""
    answers: Literal["likelihood", "generated"] = "likelihood"
    """Models that generate label words only. likelihood: predict the label word with the highest
    likelihood. generated: greedy decoding; a text that is not a label word counts as wrong."""
    batch_size: int = Field(32, gt=0)
    """Rows per forward pass when metrics are computed."""
    context: int | None = Field(None, gt=0)
    """Running text only: maximum number of tokens before the predicted one; None: as many as
    each model was trained on."""
    stride: int | None = Field(None, gt=0)
    """Running text only: number of tokens between the starts of two windows; None: the context, so
    that windows do not overlap. A smaller stride gives every token more context, at context /
    stride times the cost."""
    widths: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Sentence embedding only: also compute the metrics for vectors truncated to these widths."""
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    """Classification only: confidence thresholds at which coverage and accuracy are computed."""
    changed_texts: int = Field(20, ge=0, le=1000)
    """Classification only: number of texts to show whose prediction differs from the first model's,
    most confident first; 0: none."""
    bootstrap: int = Field(2000, ge=100)
    """Number of bootstrap resamples for each interval."""
    lengths: tuple[Literal["data"] | Annotated[int, Field(gt=0)], ...] | None = None
    """Lengths to time, in tokens; the report's headline uses the first. "data": the median length
    of the split's texts. Default: "data" and 128, or only `speed.tokens` if that is set."""
    speed: Speed | None = Speed()
    """Settings of the timing; false: no timing. Generation speed is always measured."""
    memory: bool = True
    """Measure the peak memory of each model, in a separate process."""
    seed: int | None = None
    """Seed of the bootstrap; None: the recipe's."""
    tasks: tuple[str, ...] = ()
    """Zero-shot tasks to evaluate language models on, instead of `data`."""
    path: str | None = None
    """Tasks only: folder with the files <task>/<split>.jsonl.gz."""
    hub: bool = False
    """Tasks only: load the tasks from the hub, at fixed commits; needs `datasets`."""
    rows: int | None = Field(None, gt=0)
    """Tasks only: number of rows per task; None: all."""
    sample: Literal["first", "seeded"] = "first"
    """Tasks only: how `rows` are chosen. first: the first rows, like the limit of
    lm-evaluation-harness. seeded: a random sample that is the same in every run."""
    harness: Literal["ours", "lm_eval", "both"] = "ours"
    """Tasks only: implementation that computes the log-likelihoods. both: compute them with ours
    and with lm-evaluation-harness, and fail if they differ; needs the extra `eval`."""
    batch_tokens: int = Field(4096, gt=0)
    """Tasks only: tokens per forward pass."""

    @field_validator("tasks")
    @classmethod
    def _tasks_are_known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for task in tasks:
            if task not in TASKS:
                raise ValueError(
                    f"{task!r} is not a zero-shot task{did_you_mean(task, list(TASKS))}; there are "
                    f"{', '.join(TASKS)}"
                )
        if twice := sorted({task for task in tasks if tasks.count(task) > 1}):
            raise ValueError(f"{twice} named more than once")
        return tasks

    @model_validator(mode="after")
    def _asks_for_one_kind(self) -> Self:
        """Require either data or tasks, and only settings that apply to it."""
        if (self.data is None) is not bool(self.tasks):
            raise ValueError(
                "an evaluation needs either data, or tasks, got "
                + ("neither" if self.data is None else "both")
            )
        kind, others = ("tasks", OF_DATA) if self.tasks else ("data", OF_TASKS)
        fields = type(self).model_fields
        given = [name for name in others if getattr(self, name) != fields[name].default]
        if given:
            raise ValueError(
                f"{', '.join(given)} cannot be set for an evaluation on {kind}; remove it"
            )
        if self.tasks and (self.path is None) is not self.hub:
            raise ValueError(
                'tasks are read from files or from the hub: give either path = "<folder>" or '
                "hub = true"
            )
        if licensed := [task for task in self.tasks if self.hub and TASKS[task].hub is None]:
            raise ValueError(
                f"{', '.join(licensed)} is not read from the hub: its rows are licensed to each "
                'user; give path = "<folder>", or leave it out of tasks'
            )
        return self

    @model_validator(mode="after")
    def _every_token_is_predicted(self) -> Self:
        stride = self.stride or 0
        if self.context is not None and (problem := gap(self.context, stride)) is not None:
            raise ValueError(problem)
        return self

    @property
    def timed_lengths(self) -> tuple[Literal["data"] | int, ...]:
        """The lengths to time, with defaults applied."""
        if self.lengths is not None:
            return self.lengths
        return LENGTHS if self.speed is None or self.speed.tokens is None else (self.speed.tokens,)

    @field_validator("lengths")
    @classmethod
    def _lengths_are_distinct(
        cls, lengths: tuple[Literal["data"] | int, ...] | None
    ) -> tuple[Literal["data"] | int, ...] | None:
        if lengths is not None and (not lengths or len(set(lengths)) != len(lengths)):
            raise ValueError(f"lengths must be distinct and at least one, got {list(lengths)}")
        return lengths

    @model_validator(mode="after")
    def _has_one_kind_of_lengths(self) -> Self:
        if self.lengths is not None and self.speed is not None and self.speed.tokens is not None:
            raise ValueError(
                f"lengths and speed.tokens set the same thing; remove speed.tokens = "
                f"{self.speed.tokens}"
            )
        return self

    @field_validator("speed", mode="before", json_schema_input_type=Speed | bool)
    @classmethod
    def _false_means_none(cls, speed: Any) -> Any:
        """Accept `speed = false` for None, because TOML has no null."""
        if isinstance(speed, bool):
            return Speed() if speed else None
        return as_tuples(speed)

    @field_validator("models")
    @classmethod
    def _models_are_distinct(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in models if models.count(name) > 1})
        if twice:
            raise ValueError(f"{twice} named more than once; results are kept by name")
        return models


def writes_nothing(model: str) -> str:
    """Why a classifier cannot be judged by generated answers."""
    return (
        f'answers = "generated", and {model!r} has a classification head; set answers = '
        '"likelihood", or train it with objective = "text_to_text"'
    )


LEAST_POINTS = 5
"""Minimum number of evaluations for a fit: with three constants, two degrees of freedom remain."""


class PowerLawFit(Config):
    """How the power law L(C) = A · C^(−α) + L∞ is fitted to a run's evaluations."""

    bootstrap: int = Field(default=2000, ge=100)
    """Number of bootstrap resamples for each interval."""
    from_share: float = Field(default=0.2, ge=0, lt=1)
    """Evaluations before this share of a run's tokens are ignored, because the loss does not follow
    the power law during warm-up."""


class ExtrapolateStep(Config):
    """Fit a power law to the validation losses of language models during training, and extrapolate
    it to larger budgets."""

    run: Literal["extrapolate"] = "extrapolate"
    models: tuple[str | Annotated[tuple[str, ...], Field(min_length=1)], ...] = Field(min_length=1)
    """Train steps, or their folders in other runs; one power law is fitted to each. A list of runs
    that differ only in their seed gets one common law, whose interval includes the variation
    between seeds."""
    read_off_tokens: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1e12, 1e13), min_length=1
    )
    """Numbers of training tokens to extrapolate to."""
    read_off_budgets: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Multiples of the first run's FLOPs at which all laws are also evaluated, to compare methods
    at equal FLOPs."""
    teacher: str | None = None
    """Train step of the teacher, or its folder in another run. The gap between its final validation
    loss and the first law is the reference for the share of the gap that each method closes."""
    fit: PowerLawFit = PowerLawFit()
    """How the power laws are fitted."""
    seed: int | None = None
    """Seed of the bootstrap; None: the recipe's."""

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Name of each law → runs it is fitted to."""
        listed = ((each,) if isinstance(each, str) else each for each in self.models)
        return {" + ".join(runs): runs for runs in listed}

    @field_validator("models")
    @classmethod
    def _runs_are_distinct(
        cls, models: tuple[str | tuple[str, ...], ...]
    ) -> tuple[str | tuple[str, ...], ...]:
        runs = [run for each in models for run in ((each,) if isinstance(each, str) else each)]
        twice = sorted({run for run in runs if runs.count(run) > 1})
        if twice:
            raise ValueError(f"{twice} named more than once; a run belongs to one law")
        return models
