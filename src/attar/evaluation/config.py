"""Settings of `run = "evaluate"` and `"extrapolate"`. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from attar.config import Config, as_tuples
from attar.errors import did_you_mean
from attar.evaluation.zero_shot.tasks import TASKS

LENGTHS: tuple[Literal["data"] | int, ...] = ("data", 128)
"""Default lengths to time: the median of the data, and 128 tokens, which published figures use."""


class Speed(Config):
    """How latency is measured: models take turns, so that load on the machine affects all of them
    equally."""

    batch_sizes: tuple[int, ...] = (1, 8)
    """Batch sizes to time. The report's headline uses the smallest, throughput the largest."""
    tokens: int | None = Field(default=None, gt=0)
    """The same as `lengths = [tokens]`."""
    threads: int | None = Field(default=None, gt=0)
    """Number of threads; None: all cores this process may use."""
    rounds: int = Field(default=12, ge=3)
    """Rounds in which the models take turns."""
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
"""Settings of an evaluation on data, and of one on zero-shot tasks."""


class EvaluateStep(Config):
    """Measure models of any form on the same data and the same machine, or language models on
    zero-shot tasks."""

    run: Literal["evaluate"] = "evaluate"
    models: tuple[str, ...] = Field(min_length=1)
    """Steps (trained, quantized, exported), or folders or hub ids of fine-tuned classifiers.
    Differences are to the first model and to the previous one."""
    data: str | None = None
    """What the models are evaluated on; None: `tasks`."""
    split: Literal["validation", "test", "validation_mismatched", "test_mismatched"] = "validation"
    """Which split. The mismatched ones are MNLI's second sets, from other sources than its
    training texts."""
    answers: Literal["likelihood", "generated"] = "likelihood"
    """Models that generate label words only. likelihood: the word with the highest
    likelihood. generated: what the model generates by greedy decoding; a text that is not a label
    word is wrong."""
    batch_size: int = Field(32, gt=0)
    """Rows per forward pass when quality is measured."""
    context: int | None = Field(None, gt=0)
    """Running text only: maximum number of tokens before the predicted one; None: as many as
    each model was trained on."""
    stride: int | None = Field(None, gt=0)
    """Running text only: tokens from one window to the next; None: the context, so that windows
    do not overlap. A smaller stride gives every token more context, at context / stride times the
    cost."""
    widths: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Sentence embedding only: also measure the metrics on vectors truncated to these widths."""
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    """Classification only: confidence thresholds at which coverage and accuracy are measured."""
    changed_texts: int = Field(20, ge=0, le=1000)
    """Classification only: number of texts to show whose prediction differs from the first model's,
    most confident first; 0: none."""
    bootstrap: int = Field(2000, ge=100)
    """Number of bootstrap resamples for each interval."""
    lengths: tuple[Literal["data"] | Annotated[int, Field(gt=0)], ...] | None = None
    """Tokens of each timed text; the report's headline is of the first. "data": the median length
    of the split's texts. Default: "data" and 128, or `speed.tokens` alone."""
    speed: Speed | None = Speed()
    """false: no timing. Generative models are always also timed while generating."""
    memory: bool = True
    """Measure the peak memory of each model, in a separate process."""
    seed: int | None = None
    """Seed of the bootstrap; None: the recipe's."""
    tasks: tuple[str, ...] = ()
    """Zero-shot tasks for language models, instead of `data`."""
    path: str | None = None
    """Tasks only: a folder with a folder for each task, <task>/<split>.jsonl.gz."""
    hub: bool = False
    """Tasks only: read them from the hub, each at a fixed commit; needs `datasets`."""
    rows: int | None = Field(None, gt=0)
    """Tasks only: number of rows per task; None: all."""
    sample: Literal["first", "seeded"] = "first"
    """Tasks only: how `rows` are chosen. first: the first ones, as the harness's limit does.
    seeded: a random choice that is the same in every run."""
    harness: Literal["ours", "lm_eval", "both"] = "ours"
    """Tasks only: what computes log-likelihoods. both: also run lm-evaluation-harness and fail
    if a request differs; needs the extra `eval`."""
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
        """Data or tasks, and only the settings of that kind."""
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

    @property
    def timed_lengths(self) -> tuple[Literal["data"] | int, ...]:
        """`lengths` as they count."""
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
        """TOML has no null, and `speed = false` says what is meant."""
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


LEAST_POINTS = 5
"""Evaluations a law is fitted to: its three constants leave two degrees of freedom."""


class PowerLawFit(Config):
    """How L(C) = A · C^(−α) + L∞ is fitted to a run's evaluations."""

    bootstrap: int = Field(default=2000, ge=100)
    """Number of bootstrap resamples for each interval."""
    from_share: float = Field(default=0.2, ge=0, lt=1)
    """Evaluations before this share of a run's tokens are ignored: during warm-up the loss does not
    follow the power law."""


class ExtrapolateStep(Config):
    """Fit a power law to the validation losses of language models during training, and extrapolate
    it to larger budgets."""

    run: Literal["extrapolate"] = "extrapolate"
    models: tuple[str | Annotated[tuple[str, ...], Field(min_length=1)], ...] = Field(min_length=1)
    """Train steps, or their folders in other runs; each gets its own law. A list fits one law to
    runs that differ only in their seed, whose variation is then part of the interval."""
    read_off_tokens: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1e12, 1e13), min_length=1
    )
    """Numbers of training tokens to extrapolate to."""
    read_off_budgets: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Also evaluate all laws at these multiples of the first run's FLOPs, to compare methods at
    equal FLOPs."""
    teacher: str | None = None
    """A train step, or its folder in another run. Its last validation loss defines the gap to the
    first law, of which each method closes a share."""
    fit: PowerLawFit = PowerLawFit()
    """How the law is fitted."""
    seed: int | None = None
    """Seed of the bootstrap; None: the recipe's."""

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Name of a law → the runs it is fitted to."""
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
