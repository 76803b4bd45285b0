"""The terms a training objective can be made of. Imports no torch.

`weight` multiplies a term, by a constant or by a schedule; the terms add up.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from attar.config import Config


class WeightSchedule(Config):
    """A weight that moves in a straight line, and then stays: { from = 1.0, to = 0.0, over = 0.5 }.

    Example:
        >>> weight = WeightSchedule.model_validate({"from": 1.0, "to": 0.0, "over": 0.5})
        >>> [weight.at(progress) for progress in (0.0, 0.25, 0.5, 0.9)]
        [1.0, 0.5, 0.0, 0.0]
    """

    start: float = Field(alias="from", ge=0)
    """Weight of the first step."""
    to: float = Field(ge=0)
    """Weight at the end."""
    over: float = Field(default=1.0, gt=0, le=1)
    """Share of the optimizer steps after which `to` is reached."""

    def at(self, progress: float) -> float:
        """The weight of a step before which a share `progress` of all steps was done, 0..1."""
        return self.start + (self.to - self.start) * min(progress / self.over, 1.0)


def _form_of(weight: object) -> str:
    return "schedule" if isinstance(weight, (dict, WeightSchedule)) else "number"


Weight = Annotated[
    Annotated[float, Field(ge=0), Tag("number")] | Annotated[WeightSchedule, Tag("schedule")],
    Discriminator(_form_of),
]
"""Told apart by form, so that a mistake in one form is not reported against the other."""


def weight_at(weight: float | WeightSchedule, progress: float) -> float:
    """The weight of a step, scheduled or not."""
    return weight.at(progress) if isinstance(weight, WeightSchedule) else weight


class LossSettings(Config):
    """What every term has."""

    term: ClassVar[str]
    """ "module:class" of its `Term`, imported when a model is trained."""
    needs_teacher: ClassVar[bool] = True
    not_cached: ClassVar[str] = ""
    """What it compares that no cache keeps; "": nothing."""
    on_answers: ClassVar[bool] = False
    """It compares predictions: of classes, of a score, or of words."""
    on_vectors: ClassVar[bool] = False
    """It compares vectors of texts."""
    on_rollouts: ClassVar[bool] = False
    """It looks at continuations that are sampled in every step, not at the texts of the data."""
    weight: Weight = 1.0
    """Factor of this loss in the sum."""

    @property
    def needs_all_of_p(self) -> str:
        """Why it cannot learn from part of a teacher's distribution; "": it can."""
        return ""

    def needs_more_than(self, kept: str, cache: str, name: str = "") -> str:
        """What is said where it would have to.

        Args:
            kept: what the cache keeps.
            name: of the loss.
        """
        return (
            f"{name or self.kind} needs all of the teacher's distribution: {self.needs_all_of_p}; "  # pyright: ignore
            f"the cache {cache} keeps {kept}. Use forward_kl or soft_cross_entropy at temperature "
            '1, set distribution = "dense" in the cache step, or name the teacher itself'
        )


class CrossEntropy(LossSettings):
    """Against the gold label: cross-entropy for classes and for relevance, of each class by itself
    where several may be right, squared error for a score."""

    needs_teacher = False
    on_answers = True
    term = "attar.losses.predictions:CrossEntropyTerm"
    kind: Literal["cross_entropy"] = "cross_entropy"
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Factor of each class, by its name (others 1), so that rare ones count; "balanced": such that
    all classes weigh alike. Where several labels may be right, the factor of rows that have the
    label against those that do not."""
    focal: float = Field(default=0.0, ge=0)
    """γ of the focal loss: an answer of probability p weighs (1 − p)^γ, so that what is easy counts
    less; 0: plain cross-entropy, 2 is usual."""


class Softened(LossSettings):
    """What the terms share that compare class distributions softened by a temperature."""

    on_answers = True
    temperature: float = Field(default=1.0, gt=0)
    """Logits are divided by it; above 1 the distributions are softer."""

    @property
    def needs_all_of_p(self) -> str:
        if self.temperature == 1:
            return ""
        return f"temperature = {self.temperature} changes the probability of every word"


class Weighted(Softened):
    """Those of them that weigh by the student's distribution."""

    @property
    def needs_all_of_p(self) -> str:
        return "it weighs words by the student's probabilities"


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
    """What a student of regression is compared with; classes are always the teacher's."""


LayerMap = Literal["uniform", "last"] | dict[int, int]
"""Student hidden state → teacher hidden state; 0 is the embedding output. `uniform`: i →
i·L_teacher/L_student; `last`: the last one only. Of attentions, 0 is the first block's."""


class HiddenMse(LossSettings):
    """Mean squared error between mapped hidden states, real tokens only."""

    term = "attar.losses.states:StatesTerm"
    kind: Literal["hidden_mse"] = "hidden_mse"
    layer_map: LayerMap = "uniform"
    """Which student hidden state learns from which teacher hidden state; 0 is the embedding output.
    uniform: evenly spread. last: the last one only. Or a table, { 1 = 2, 2 = 4 }."""


class HiddenCosine(LossSettings):
    """1 − cosine between mapped hidden states, real tokens only."""

    term = "attar.losses.states:HiddenCosineTerm"
    kind: Literal["hidden_cosine"] = "hidden_cosine"
    layer_map: LayerMap = "uniform"
    """Which student hidden state learns from which teacher hidden state; 0 is the embedding output.
    uniform: evenly spread. last: the last one only. Or a table, { 1 = 2, 2 = 4 }."""


class EmbeddingMse(LossSettings):
    """Mean squared error between the embedding outputs, real tokens only."""

    term = "attar.losses.states:StatesTerm"
    kind: Literal["embedding_mse"] = "embedding_mse"


class Eofd(LossSettings):
    """Mean squared error between mapped hidden states, each dimension weighted by its spread in
    the teacher: w = (std / mean std)^power."""

    term = "attar.losses.eofd:EofdTerm"
    kind: Literal["eofd"] = "eofd"
    power: float = Field(default=0.5, ge=0)
    """0: hidden_mse; the paper uses 0.5 and 1."""
    layer_map: LayerMap = "uniform"
    """Which student hidden state learns from which teacher hidden state; 0 is the embedding output.
    uniform: evenly spread. last: the last one only. Or a table, { 1 = 2, 2 = 4 }."""
    std: Literal["batch", "running"] = "batch"
    """Standard deviation over the tokens of the batch, or of all batches so far."""
    count_padding: bool = False
    """true: pad every batch to max_length and include the padding, as in the published code."""


class SensitivityMse(LossSettings):
    """Mean squared error of mapped hidden states, weighted by how much the teacher's answer depends
    on each dimension, of a text's first token and of the others; measured before the first step."""

    term = "attar.losses.sensitivity_mse:SensitivityMseTerm"
    kind: Literal["sensitivity_mse"] = "sensitivity_mse"
    power: float = Field(default=0.5, ge=0, le=2)
    """0: hidden_mse."""
    layer_map: LayerMap = "uniform"
    """Which student hidden state learns from which teacher hidden state; 0 is the embedding output.
    uniform: evenly spread. last: the last one only. Or a table, { 1 = 2, 2 = 4 }."""


class AttentionMse(LossSettings):
    """Mean squared error between attention scores before the softmax, pairs of real tokens only."""

    not_cached = "attention scores"
    term = "attar.losses.attentions:AttentionMseTerm"
    kind: Literal["attention_mse"] = "attention_mse"
    layer_map: LayerMap = "uniform"
    """Student attention → teacher attention; 0 is that of the first block. `uniform`: i → k·i +
    k − 1 with k = L_teacher/L_student."""
    heads: Literal["same", "mean"] = "same"
    """`mean`: means over heads are compared, whose numbers may then differ."""


class RelationKl(LossSettings):
    """KL(teacher‖student) between distributions over tokens in one block: attentions, and
    products of queries, of keys or of values."""

    not_cached = "queries, keys and values"
    term = "attar.losses.attentions:RelationKlTerm"
    kind: Literal["relation_kl"] = "relation_kl"
    relations: tuple[Literal["attention", "query", "key", "value"], ...] = Field(
        default=("attention", "value"), min_length=1
    )
    """The default is MiniLM's; MiniLMv2's is ["query", "key", "value"]."""
    teacher_block: int | None = Field(default=None, ge=0)
    """0 is the first; None: the last. The student's is always its last."""
    heads: int | None = Field(default=None, gt=0)
    """Relation heads that queries, keys and values are cut into; None: the models' own."""


class VectorLoss(LossSettings):
    """What the terms share that compare vectors of texts."""

    on_vectors = True
    widths: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Matryoshka: the mean of the loss over vectors cut to so many numbers each, such as
    [384, 128, 64], so that shortened vectors serve too; empty: whole vectors alone."""


class Contrastive(VectorLoss):
    """Cross-entropy of finding a row's second text among all second texts of the batch by the
    cosines with its first text (InfoNCE, in-batch negatives)."""

    needs_teacher = False
    term = "attar.losses.vectors:ContrastiveTerm"
    kind: Literal["contrastive"] = "contrastive"
    temperature: float = Field(default=0.05, gt=0)
    """Cosines are divided by it before the softmax; smaller is sharper."""
    symmetric: bool = False
    """Half of the loss is that of finding the first text by the second."""


class Cosine(VectorLoss):
    """Squared difference between the cosine of a row's two vectors and the row's score."""

    needs_teacher = False
    term = "attar.losses.vectors:CosineTerm"
    kind: Literal["cosine"] = "cosine"
    best_score: float = Field(default=1.0, gt=0)
    """The score of texts that mean the same, whose cosine is to be 1: 5 in STS-B."""


class VectorMse(VectorLoss):
    """Squared difference between student's and teacher's vectors of a text, summed over their
    numbers."""

    term = "attar.losses.vectors:VectorMseTerm"
    not_cached = "vectors of texts"
    kind: Literal["vector_mse"] = "vector_mse"


class SimilarityKl(VectorLoss):
    """KL(teacher‖student) between distributions over the other texts of the batch, made of each
    text's cosines with them; the models' widths may differ."""

    term = "attar.losses.vectors:SimilarityKlTerm"
    not_cached = "vectors of texts"
    kind: Literal["similarity_kl"] = "similarity_kl"
    temperature: float = Field(default=0.05, gt=0)
    """Cosines are divided by it before the softmax; smaller is sharper."""


class PolicyGradient(LossSettings):
    """KL(student‖teacher) of whole continuations of the training texts, which are sampled in every
    step; its gradient is estimated from them (MiniLLM)."""

    not_cached = "continuations that are sampled in every step"
    on_rollouts = True
    term = "attar.losses.policy_gradient:PolicyGradientTerm"
    kind: Literal["policy_gradient"] = "policy_gradient"
    mix: float = Field(default=0.2, ge=0, lt=1)
    """Tokens are sampled from mix · p_teacher + (1 − mix) · q_student."""
    single_step: bool = True
    """What a token adds by itself is differentiated exactly, over the vocabulary, and only what
    follows from it is estimated."""
    length_normalized: bool = True
    """A token's return is divided by the number of tokens it is a sum over."""
    importance: Literal["token", "product"] = "token"
    """What corrects for sampling from the mixture: each token's own ratio, as in the paper, or the
    products of ratios, without bias and with more variance."""
    clip: float = Field(default=0.2, ge=0, lt=1)
    """A token's ratio gains nothing outside 1 ± clip, as in PPO; 0: no clipping."""
    reward_scale: float = Field(default=1.0, gt=0)
    """Factor of log p/q in the returns; the published scripts have 2."""
    reward_clip: float = Field(default=100.0, ge=0)
    """Largest absolute value of a token's scaled log p/q; 0: no limit."""
    prompt_tokens: int | None = Field(default=None, gt=0)
    """Of each text that are continued; None: half of the step's max_length."""
    new_tokens: int | None = Field(default=None, gt=0)
    """Most tokens that are sampled behind a prompt; None: the rest of max_length."""

    def lengths(self, max_length: int) -> tuple[int, int]:
        """Tokens of a prompt and new tokens, at most, in a step with this max_length.

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
