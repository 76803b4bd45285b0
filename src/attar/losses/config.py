"""The loss terms of a training objective. Imports no torch.

Each term is multiplied by its `weight`, a constant or a schedule; the objective is their sum.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from attar.config import Config


class WeightSchedule(Config):
    """A weight that changes linearly and then stays constant: { from = 1.0, to = 0.0, over = 0.5 }.

    Example:
        >>> weight = WeightSchedule.model_validate({"from": 1.0, "to": 0.0, "over": 0.5})
        >>> [weight.at(progress) for progress in (0.0, 0.25, 0.5, 0.9)]
        [1.0, 0.5, 0.0, 0.0]
    """

    start: float = Field(alias="from", ge=0)
    """Weight at the first step."""
    to: float = Field(ge=0)
    """Weight at the end."""
    over: float = Field(default=1.0, gt=0, le=1)
    """Share of the optimizer steps after which `to` is reached."""

    def at(self, progress: float) -> float:
        """The weight at `progress`, the share of all steps done, 0..1."""
        return self.start + (self.to - self.start) * min(progress / self.over, 1.0)


def _form_of(weight: object) -> str:
    return "schedule" if isinstance(weight, (dict, WeightSchedule)) else "number"


Weight = Annotated[
    Annotated[float, Field(ge=0), Tag("number")] | Annotated[WeightSchedule, Tag("schedule")],
    Discriminator(_form_of),
]
"""Discriminated by form, so that a mistake in one form is not reported for the other."""


def weight_at(weight: float | WeightSchedule, progress: float) -> float:
    """The weight at `progress`, for a constant or a schedule."""
    return weight.at(progress) if isinstance(weight, WeightSchedule) else weight


class LossSettings(Config):
    """Settings that all losses share."""

    term: ClassVar[str]
    """ "module:class" of its `Term`, imported when a model is trained."""
    needs_teacher: ClassVar[bool] = True
    not_cached: ClassVar[str] = ""
    """The teacher output it needs that a cache does not store; "": none."""
    on_answers: ClassVar[bool] = False
    """Whether it compares predictions: of classes, a score, or tokens."""
    on_vectors: ClassVar[bool] = False
    """Whether it compares vectors of texts."""
    on_rollouts: ClassVar[bool] = False
    """Whether it uses continuations sampled in every step instead of the texts of the data."""
    weight: Weight = 1.0
    """Factor of this loss in the sum of losses."""

    @property
    def needs_all_of_p(self) -> str:
        """Why it needs the teacher's full distribution; "" if part of it is enough."""
        return ""

    def needs_more_than(self, kept: str, cache: str, name: str = "") -> str:
        """The error message for a loss that needs the full distribution.

        Args:
            kept: what the cache stores.
            cache: name of the cache step.
            name: of the loss; "": its kind.
        """
        return (
            f"{name or self.kind} needs the full teacher distribution: {self.needs_all_of_p}; "  # pyright: ignore
            f"the cache {cache} keeps {kept}. Use forward_kl or soft_cross_entropy at temperature "
            '1, set distribution = "dense" in the cache step, or name the teacher itself'
        )


class CrossEntropy(LossSettings):
    """Loss against the gold label: cross-entropy for classes, binary cross-entropy for relevance
    and for multi-label, squared error for a score."""

    needs_teacher = False
    on_answers = True
    term = "attar.losses.predictions:CrossEntropyTerm"
    kind: Literal["cross_entropy"] = "cross_entropy"
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Weight of each class by name (others 1), for imbalanced classes; "balanced": all classes
    contribute equally. For multi_label, the weight of rows with the label relative to rows without
    it."""
    focal: float = Field(default=0.0, ge=0)
    """γ of the focal loss: a prediction with probability p has the weight (1 − p)^γ, which reduces
    the weight of easy examples; 0: cross-entropy, 2 is common."""


class Softened(LossSettings):
    """Settings of the losses that compare distributions softened by a temperature."""

    on_answers = True
    temperature: float = Field(default=1.0, gt=0)
    """Divisor of the logits; above 1 the distributions are softer."""

    @property
    def needs_all_of_p(self) -> str:
        if self.temperature == 1:
            return ""
        return f"temperature = {self.temperature} changes the probability of every token"


class Weighted(Softened):
    """Losses weighted by the student's distribution."""

    @property
    def needs_all_of_p(self) -> str:
        return "it weights tokens by the student's probabilities"


class ForwardKl(Softened):
    """KL(teacher‖student) of the softened class distributions, times temperature². Squared
    error for a score."""

    term = "attar.losses.predictions:DivergenceTerm"
    kind: Literal["forward_kl"] = "forward_kl"


class ReverseKl(Weighted):
    """KL(student‖teacher) of the softened class distributions, times temperature². Squared error
    for a score."""

    term = "attar.losses.predictions:DivergenceTerm"
    kind: Literal["reverse_kl"] = "reverse_kl"


class Jsd(Weighted):
    """Jensen–Shannon divergence of the softened class distributions, times temperature². Squared
    error for a score."""

    term = "attar.losses.predictions:DivergenceTerm"
    kind: Literal["jsd"] = "jsd"


class SoftCrossEntropy(Softened):
    """Cross-entropy against the teacher's softened distribution, summed over the classes, times
    temperature². Squared error for a score."""

    term = "attar.losses.predictions:DivergenceTerm"
    kind: Literal["soft_cross_entropy"] = "soft_cross_entropy"
    score: Literal["teacher", "gold"] = "teacher"
    """Target of a regression student; for classes it is always the teacher."""


LayerMap = Literal["uniform", "last"] | dict[int, int]
"""Student hidden state → teacher hidden state; 0 is the embedding output. `uniform`: i →
i·L_teacher/L_student; `last`: only the last one. For attentions, 0 is the first block."""


class StatesLoss(LossSettings):
    """Settings of the losses that compare hidden states."""

    layer_map: LayerMap = "uniform"
    """Student hidden state → teacher hidden state; 0 is the embedding output. uniform: evenly
    spaced. last: only the last one. Or a table, { 1 = 2, 2 = 4 }."""


class HiddenMse(StatesLoss):
    """Mean squared error between mapped hidden states, real tokens only."""

    term = "attar.losses.states:StatesTerm"
    kind: Literal["hidden_mse"] = "hidden_mse"


class HiddenCosine(StatesLoss):
    """1 − cosine between mapped hidden states, real tokens only."""

    term = "attar.losses.states:HiddenCosineTerm"
    kind: Literal["hidden_cosine"] = "hidden_cosine"


class EmbeddingMse(LossSettings):
    """Mean squared error between the embedding outputs, real tokens only."""

    term = "attar.losses.states:StatesTerm"
    kind: Literal["embedding_mse"] = "embedding_mse"


class Eofd(StatesLoss):
    """Mean squared error between mapped hidden states, each dimension weighted by its standard
    deviation in the teacher: w = (std / mean std)^power."""

    term = "attar.losses.eofd:EofdTerm"
    kind: Literal["eofd"] = "eofd"
    power: float = Field(default=0.5, ge=0)
    """Exponent of the weights. 0: hidden_mse; the paper uses 0.5 and 1."""
    std: Literal["batch", "running"] = "batch"
    """Compute the standard deviation over the tokens of the batch, or of all batches so far."""
    count_padding: bool = False
    """true: pad every batch to max_length and include the padding, as in the published code."""


class SensitivityMse(StatesLoss):
    """Mean squared error of mapped hidden states, weighted by the sensitivity of the teacher's
    prediction to each dimension, measured before the first step, separately for a text's first
    token and the others."""

    term = "attar.losses.sensitivity_mse:SensitivityMseTerm"
    kind: Literal["sensitivity_mse"] = "sensitivity_mse"
    power: float = Field(default=0.5, ge=0, le=2)
    """Exponent of the weights; 0: hidden_mse."""


class AttentionMse(LossSettings):
    """Mean squared error between attention scores before the softmax, pairs of real tokens only."""

    not_cached = "attention scores"
    term = "attar.losses.attentions:AttentionMseTerm"
    kind: Literal["attention_mse"] = "attention_mse"
    layer_map: LayerMap = "uniform"
    """Student attention → teacher attention; 0 is that of the first block. `uniform`: i → k·i +
    k − 1 with k = L_teacher/L_student."""
    heads: Literal["same", "mean"] = "same"
    """same: compare head by head. mean: compare means over heads, whose numbers may then differ."""


class RelationKl(LossSettings):
    """KL(teacher‖student) between distributions over tokens in one block: attentions, or softmaxed
    products of queries, of keys or of values."""

    not_cached = "queries, keys and values"
    term = "attar.losses.attentions:RelationKlTerm"
    kind: Literal["relation_kl"] = "relation_kl"
    relations: tuple[Literal["attention", "query", "key", "value"], ...] = Field(
        default=("attention", "value"), min_length=1
    )
    """Default: MiniLM's relations. MiniLMv2 uses ["query", "key", "value"]."""
    teacher_block: int | None = Field(default=None, ge=0)
    """Block of the teacher, where 0 is the first; None: the last. The student's block is always its
    last."""
    heads: int | None = Field(default=None, gt=0)
    """Number of relation heads that queries, keys and values are split into; None: the model's own
    number of attention heads."""


class VectorLoss(LossSettings):
    """Settings of the losses that compare vectors of texts."""

    on_vectors = True
    widths: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Matryoshka: average the loss over vectors truncated to these widths, such as [384, 128, 64];
    empty: full vectors only."""


class Contrastive(VectorLoss):
    """InfoNCE with in-batch negatives: cross-entropy of finding a row's second text among all
    second texts of the batch, by cosine similarity with its first text."""

    needs_teacher = False
    term = "attar.losses.vectors:ContrastiveTerm"
    kind: Literal["contrastive"] = "contrastive"
    temperature: float = Field(default=0.05, gt=0)
    """Divisor of the cosines before the softmax; smaller is sharper."""
    symmetric: bool = False
    """Average the loss with that of the other direction, finding the first text by the second."""


class Cosine(VectorLoss):
    """Squared difference between the cosine of a row's two vectors and the row's score."""

    needs_teacher = False
    term = "attar.losses.vectors:CosineTerm"
    kind: Literal["cosine"] = "cosine"
    best_score: float = Field(default=1.0, gt=0)
    """The score that maps to cosine 1: 5 in STS-B."""


class VectorMse(VectorLoss):
    """Squared difference between the student's and the teacher's vector of a text, summed over the
    dimensions."""

    term = "attar.losses.vectors:VectorMseTerm"
    not_cached = "vectors of texts"
    kind: Literal["vector_mse"] = "vector_mse"


class SimilarityKl(VectorLoss):
    """KL(teacher‖student) of each text's distribution over the other texts of the batch (softmax of
    cosines); the models' widths may differ."""

    term = "attar.losses.vectors:SimilarityKlTerm"
    not_cached = "vectors of texts"
    kind: Literal["similarity_kl"] = "similarity_kl"
    temperature: float = Field(default=0.05, gt=0)
    """Divisor of the cosines before the softmax; smaller is sharper."""


class PolicyGradient(LossSettings):
    """KL(student‖teacher) of whole continuations of the training texts, by policy gradient on
    continuations sampled in every step (MiniLLM)."""

    not_cached = "continuations that are sampled in every step"
    on_rollouts = True
    term = "attar.losses.policy_gradient:PolicyGradientTerm"
    kind: Literal["policy_gradient"] = "policy_gradient"
    mix: float = Field(default=0.2, ge=0, lt=1)
    """Tokens are sampled from mix · p_teacher + (1 − mix) · q_student."""
    single_step: bool = True
    """Compute the gradient of each token's own term exactly, over the whole vocabulary, and
    estimate only the rest."""
    length_normalized: bool = True
    """Divide a token's return by the number of tokens it is summed over."""
    importance: Literal["token", "product"] = "token"
    """Importance weights for sampling from the mixture. token: each token's own ratio, as in the
    paper. product: products of ratios, unbiased but with more variance."""
    clip: float = Field(default=0.2, ge=0, lt=1)
    """Clip a token's ratio to 1 ± clip, as in PPO; 0: no clipping."""
    reward_scale: float = Field(default=1.0, gt=0)
    """Factor of log p/q in the returns; the published scripts use 2."""
    reward_clip: float = Field(default=100.0, ge=0)
    """Largest absolute value of a token's scaled log p/q; 0: no limit."""
    prompt_tokens: int | None = Field(default=None, gt=0)
    """Prompt length in tokens; None: half of the step's max_length."""
    new_tokens: int | None = Field(default=None, gt=0)
    """Maximum number of tokens to sample after a prompt; None: the rest of max_length."""

    def lengths(self, max_length: int) -> tuple[int, int]:
        """Maximum numbers of prompt tokens and of new tokens, in a step with this max_length.

        Example:
            >>> PolicyGradient().lengths(64), PolicyGradient(new_tokens=16).lengths(64)
            ((32, 32), (32, 16))
        """
        prompt = self.prompt_tokens
        if prompt is None:
            prompt = max_length // 2
        return prompt, self.new_tokens or max_length - prompt


LossConfig = Annotated[
    CrossEntropy
    | ForwardKl
    | ReverseKl
    | Jsd
    | SoftCrossEntropy
    | HiddenMse
    | HiddenCosine
    | EmbeddingMse
    | Eofd
    | SensitivityMse
    | AttentionMse
    | RelationKl
    | Contrastive
    | Cosine
    | VectorMse
    | SimilarityKl
    | PolicyGradient,
    Field(discriminator="kind"),
]
