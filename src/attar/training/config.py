"""Settings of `run = "train"`. With a teacher, training is distillation. Imports no torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BeforeValidator, Field, model_validator

from attar.config import Config
from attar.data.corpus.config import Part
from attar.losses.config import CrossEntropy, ForwardKl, LossConfig, PolicyGradient
from attar.models.config import ChangedModel, ModelReference
from attar.tasks.denoising import Denoiser
from attar.tasks.embedding import Embedding
from attar.tasks.masking import Masking
from attar.tasks.table import KINDS, Kind, Objective
from attar.training.misfit import misfit

DEFAULT_EPOCHS = 3.0
Share = Annotated[float, Field(gt=0, lt=1)]

MOMENT_BYTES = {"adamw": 8, "adafactor": 0}
"""Bytes per weight of the optimizer's moments. Adafactor's are per row and column, so they count as
0."""


def _false_is_none(value: object) -> object:
    """Read `false` as None, because TOML has no null."""
    return None if value is False else value


class Matched(TypedDict):
    """Result of `match_flops`."""

    to: str
    """The step whose training FLOPs were matched."""
    count: str
    budget: int
    """The training FLOPs of that step, counted as in `count`."""
    steps: int
    """The largest number of optimizer steps within that budget."""
    steps_by_the_other_count: int


class TrainMetrics(TypedDict):
    """What the step writes to its result; a gate can use only these names."""

    objective: str
    num_params: int
    steps: int
    micro_batch_size: int
    epochs: float
    best_step: int | None
    kept_step: int | None
    precision: str
    precision_reason: str
    train_seconds: float
    examples_per_s: float | None
    tokens: int
    tokens_per_s: float | None
    flops: int
    flops_non_embedding: int
    matched: Matched | None
    matmul_share: float | None
    validation: dict[str, float]
    data: dict[str, Any]
    losses: list[dict[str, Any]]


class Retokenized(Config):
    """The texts of a corpus or a selection, tokenized again with the model's own tokenizer."""

    source: str = Field(alias="from")
    """A tokenize or select step, or a `[data.<name>]` table of a corpus."""
    retokenize: Literal[True]
    """Always true."""
    max_length: int | None = Field(default=None, ge=8, le=2**20)
    """Maximum number of tokens of a new chunk; None: the step's max_length."""


class TrainStep(Config):
    """Train a model on data, alone or with a teacher."""

    run: Literal["train"] = "train"
    model: ModelReference
    """Initial model: a step, folder, hub id or demo model, or a table that changes one or has
    random weights."""
    data: str | Retokenized
    """Name of a `[data.<name>]` table, or of a step that makes rows. A corpus or a selection
    must have been packed with the tokenizer of the model; for another tokenizer, write `{ from =
    "kept", retokenize = true }`."""
    part: Literal["all", Part] = "all"
    """Corpora only: which chunks to train on. A reference is trained on the reserved ones."""
    learn_prompts: bool = True
    """Texts of a generate step only: whether the loss includes the tokens of the prompts, or only
    those the teacher generated."""
    order: Literal["shuffled", "corpus"] = "shuffled"
    """Corpora only: order of the chunks in an epoch. shuffled: a new order in every epoch."""
    objective: Objective | None = None
    """None: the data's objective. text_to_text on data with classes or numbers: an encoder-decoder
    generates the label word or the rounded number. span_corruption on running text: pre-train an
    encoder-decoder. masked_lm: pre-train an encoder. For both, max_length is the number of tokens
    the encoder reads, and chunks are cut again to fill it."""
    template: str | None = None
    """text_to_text only: format of the encoder's input, with {0} and {1} for the texts of a row,
    such as "sst2 sentence: {0}". None: the text itself. Rows with two texts need a template."""
    label_words: tuple[str, ...] | None = Field(default=None, min_length=2)
    """text_to_text only: the word for each class, in the order of the data's label_names; None:
    the label names."""
    number_step: float | None = Field(default=None, gt=0)
    """text_to_text only: numbers are rounded to multiples of this; None: 0.2, as T5 does for
    STS-B."""
    thresholds: Share | dict[str, Share] | None = None
    """multi_label only: probability threshold of a label, one for all or by name; None: 0.5."""
    denoisers: tuple[Denoiser, ...] | None = Field(default=None, min_length=1)
    """span_corruption only: the kinds of corruption, each with its share of the texts; None:
    T5's, 15 % of the tokens in spans of 3."""
    masking: Masking | None = None
    """masked_lm only: which tokens are masked; None: 15 % of the tokens, as in BERT."""
    embedding: Embedding | None = None
    """sentence_embedding only: pooling, prefixes and width; None: the settings in the model's
    folder, or normalized mean pooling if it has none."""
    teacher: str | None = None
    """A step, folder, hub id or demo model to learn from; its weights are not trained."""
    losses: tuple[LossConfig, ...] = ()
    """Terms of the loss. Empty: cross_entropy without a teacher; with one, forward_kl +
    cross_entropy in equal parts."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training rows; None: 3, or as set by max_steps, max_tokens or match_flops."""
    max_steps: int | None = Field(default=None, ge=0)
    """Number of optimizer steps; takes precedence over epochs. 0: save the initial model."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Total number of tokens to train on, rounded up to a whole batch; takes precedence over
    epochs."""
    match_flops: str | None = None
    """A train step (or its folder in another run): train for as many optimizer steps as fit into
    its training FLOPs, including the forward passes of a teacher."""
    count_flops: Literal["all", "non_embedding"] | None = None
    """How match_flops counts. all (also if None): every matrix product, including attention and
    head. non_embedding: 2·N per token and forward pass, where N is the number of parameters without
    embeddings and head, as in papers."""
    batch_size: int = Field(default=32, gt=0)
    """Examples per optimizer step."""
    batch_tokens: int | None = Field(default=None, gt=0)
    """Tokens per optimizer step: batch_tokens / max_length examples, rounded down; takes
    precedence over batch_size."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Examples per forward pass; None: batch_size. The gradient is the same either way."""
    max_length: int = Field(default=128, ge=8, le=8192)
    """Maximum number of tokens of a text; longer texts are truncated, or split into windows."""
    window_overlap: int | None = Field(default=None, ge=0, le=8192)
    """Tagging and question answering only: overlap of neighbouring windows in tokens; None: a third
    of max_length."""
    max_target_length: int = Field(default=128, ge=2, le=8192)
    """Text generation only: maximum number of tokens of a target."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "inverse_sqrt", "constant_inverse_sqrt", "constant"] = (
        "linear"
    )
    """How the learning rate changes. inverse_sqrt: rises linearly for W = warmup_steps, then falls
    as √(W / step). constant_inverse_sqrt: as T5, constant for W steps (10,000 if W is 0), then
    falls the same way."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of the optimizer steps during which the learning rate rises linearly from 0."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Number of warm-up steps; takes precedence over warmup_ratio."""
    minimum_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Final learning rate of a linear or cosine schedule, as a share of learning_rate."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """adafactor uses T5's settings; learning_rate is then relative to the size of the weights."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay, not applied to biases and norms."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW: decay rate of the running mean of gradients."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW: decay rate of the running mean of squared gradients."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """AdamW: added to the denominator of the update, for numerical stability."""
    max_grad_norm: Annotated[
        float | None,
        BeforeValidator(_false_is_none, json_schema_input_type=float | Literal[False]),
    ] = Field(default=1.0, gt=0)
    """Maximum norm of the gradient; a larger one is scaled down. false: no clipping."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast if the device supports it in hardware and the first batch is at least
    10 % faster with it, else fp32. The choice is recorded, and kept on resume."""
    keep: Literal["best", "last"] = "best"
    """Which checkpoint to keep. best: the one with the best first metric on validation; ties go to
    the lowest loss. last: the last one."""
    evaluations: int = Field(default=3, ge=1)
    """Number of evaluations on validation, evenly spaced; the last one is at the end."""
    patience: int | None = Field(default=None, gt=0)
    """Stop early after this many evaluations without improvement (measured as in keep); None:
    never."""
    evaluate_at_tokens: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Also evaluate on validation after this many tokens, rounded up to a whole batch."""
    checkpoint_every: int | None = Field(default=None, gt=0)
    """Optimizer steps between checkpoints; None: about once a minute."""
    seed: int | None = None
    """Random seed; None: the recipe's."""

    @model_validator(mode="after")
    def _teacher_and_losses_agree(self) -> TrainStep:
        needy = sorted({loss.kind for loss in self.losses if loss.needs_teacher})
        if needy and self.teacher is None:
            raise ValueError(
                f"losses {needy} compare with a teacher, but no teacher is named; "
                'add teacher = "<step>"'
            )
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_rows:
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} is larger than "
                f"batch_size {self.batch_rows}"
            )
        return self

    @model_validator(mode="after")
    def _continuations_fit(self) -> TrainStep:
        if sum(loss.on_rollouts for loss in self.losses) > 1:
            raise ValueError(
                "losses has policy_gradient more than once, and a step samples one batch of "
                "continuations; keep one"
            )
        if (sampled := self.rollout_loss) is not None:
            prompt, new = sampled.lengths(self.max_length)
            if new < 1 or prompt + new > self.max_length:
                raise ValueError(
                    f"policy_gradient continues prompts of up to {prompt} tokens by up to "
                    f"{max(new, 0)}, and max_length is {self.max_length}; lower prompt_tokens or "
                    f"new_tokens, or set max_length = {prompt + max(new, 1)}"
                )
        return self

    @model_validator(mode="after")
    def _budgets_and_schedule_fit(self) -> TrainStep:
        lengths = ("max_steps", "max_tokens", "match_flops")
        lengths = lengths if self.match_flops is None else (*lengths, "epochs")
        said = {name: getattr(self, name) for name in lengths if getattr(self, name) is not None}
        if len(said) > 1:
            listed = " and ".join(f"{name} = {value!r}" for name, value in said.items())
            raise ValueError(f"{listed} each set the length of training; remove all but one")
        if self.count_flops is not None and self.match_flops is None:
            raise ValueError(
                f'count_flops = "{self.count_flops}" only applies with match_flops; add '
                'match_flops = "<train step>", or remove count_flops'
            )
        if self.patience is not None and self.match_flops is not None:
            raise ValueError(
                "patience may stop training early, which match_flops does not allow; remove one of "
                "them"
            )
        if self.batch_tokens is not None and self.batch_tokens < self.max_length:
            raise ValueError(
                f"batch_tokens = {self.batch_tokens} holds no example of max_length = "
                f"{self.max_length} tokens; raise it to a multiple of max_length"
            )
        longest = self.data.max_length if isinstance(self.data, Retokenized) else None
        if longest is not None and longest > self.max_length:
            raise ValueError(
                f"data.max_length = {longest} makes chunks that are longer than max_length = "
                f"{self.max_length}; set max_length = {longest}"
            )
        changed = [
            name
            for name in ("adam_beta1", "adam_beta2", "adam_epsilon")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if changed and self.optimizer != "adamw":
            raise ValueError(
                f'{", ".join(changed)} are settings of AdamW, and optimizer is "{self.optimizer}"; '
                "leave them out"
            )
        if self.minimum_ratio and self.schedule not in ("linear", "cosine"):
            raise ValueError(
                f'minimum_ratio = {self.minimum_ratio} is the end of schedule = "linear" or '
                f'"cosine", which "{self.schedule}" does not have; remove minimum_ratio'
            )
        return self

    @model_validator(mode="after")
    def _vectors_and_windows_fit(self) -> TrainStep:
        overlap = self.window_overlap or 0
        if overlap >= self.max_length:
            raise ValueError(
                f"window_overlap = {overlap} of max_length = {self.max_length} tokens leaves no "
                f"room for new text; lower it to less than {self.max_length}"
            )
        model = self.model if isinstance(self.model, ChangedModel) else None
        table = model.static_width if model is not None else None
        if table is not None and self.embedding is not None and self.embedding.pooling != "mean":
            raise ValueError(
                "static_width makes a vector for each token, and a text is their mean, but "
                f'embedding.pooling is "{self.embedding.pooling}"; set pooling = "mean"'
            )
        width = self.embedding.width if self.embedding is not None else None
        numbers = min(filter(None, (table, width)), default=None)
        widths = {loss.kind: max(getattr(loss, "widths", ()), default=0) for loss in self.losses}
        for name, asked in (("embedding", width or 0), *widths.items()):
            if numbers is not None and asked > numbers:
                raise ValueError(
                    f"{name}: width {asked} is more than the {numbers} numbers of the vectors; "
                    "lower it"
                )
        return self

    def misfit(self, kind: Kind, data: str) -> str | None:
        """Why the objective and settings of this step do not fit data of this kind; None if they
        do.
        """
        return misfit(self, kind, data)

    @property
    def data_name(self) -> str:
        """Name of the table, or of the step that makes the rows."""
        return self.data if isinstance(self.data, str) else self.data.source

    @property
    def batch_rows(self) -> int:
        """Examples per optimizer step."""
        return self.batch_tokens // self.max_length if self.batch_tokens else self.batch_size

    def num_steps(self, rows: int, tokens: int) -> int:
        """Number of optimizer steps for this many training rows with this many tokens in total."""
        if self.max_steps is not None:
            return self.max_steps
        if self.max_tokens is not None:
            return max(1, self.steps_for(self.max_tokens, rows, tokens))
        return max(1, round((self.epochs or DEFAULT_EPOCHS) * self._epoch_steps(rows)))

    def steps_for(self, budget: int, rows: int, tokens: int) -> int:
        """The fewest optimizer steps in which a model reads `budget` tokens, if every row has the
        mean length. Every epoch ends with a smaller batch of the remaining rows."""
        epochs, rest = divmod(budget, max(tokens, 1))
        partial = -(-rest * rows // (self.batch_rows * max(tokens, 1)))
        return epochs * self._epoch_steps(rows) + partial

    def rows_read(self, steps: int, rows: int) -> int:
        """Number of rows read in `steps` steps; a row counts each time it is read."""
        epochs, rest = divmod(steps, max(1, self._epoch_steps(rows)))
        return epochs * rows + rest * self.batch_rows

    def _epoch_steps(self, rows: int) -> int:
        return -(-rows // self.batch_rows)

    def warmup(self, total_steps: int) -> int:
        """Number of warm-up steps; `warmup_ratio` is rounded up to a whole step."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return math.ceil(total_steps * self.warmup_ratio)

    @property
    def counts_padding(self) -> bool:
        """Whether a loss includes padding, so that all batches must have the same width."""
        return any(getattr(loss, "count_padding", False) for loss in self.losses)

    def is_taught(self, kind: Kind) -> bool:
        """Whether the teacher's predictions are targets, so that rows of this kind need no
        label."""
        answers = any(loss.needs_teacher for loss in self.effective_losses)
        return self.teacher is not None and answers and KINDS[self.objective or kind.name] is kind

    @property
    def effective_losses(self) -> tuple[LossConfig, ...]:
        """The losses with the default filled in."""
        if self.losses:
            return self.losses
        return (
            (CrossEntropy(),)
            if self.teacher is None
            else (ForwardKl(weight=0.5), CrossEntropy(weight=0.5))
        )

    @property
    def text_losses(self) -> tuple[LossConfig, ...]:
        """The losses that are computed on the training texts."""
        return tuple(loss for loss in self.effective_losses if not loss.on_rollouts)

    @property
    def rollout_loss(self) -> PolicyGradient | None:
        """The loss computed on sampled continuations; None: there is none."""
        return next((loss for loss in self.losses if isinstance(loss, PolicyGradient)), None)
