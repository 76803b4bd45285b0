"""The reverse KL of whole continuations, by policy gradient.

The problem: KL(q‖p) of student q and teacher p over continuations y of a prompt is an expectation
over texts sampled from the student, so the gradient must account for the sampling. With the reward
r_t = log p(y_t) − log q(y_t) of each token, all conditioned on the tokens before it,

    KL(q‖p) = −E_{y∼q} Σ_t r_t
    ∇KL     = −E_{y∼q} Σ_t R_t ∇log q(y_t)                               R_t = Σ_{s≥t} r_s

The sampled gradient is noisy. MiniLLM makes it usable:

*Single step.* What token t adds by itself is known exactly, and only what follows is estimated:

    ∇KL = E_{y∼q} Σ_t [ ∇KL_t − R_{t+1} ∇log q(y_t) ]       KL_t = Σ_v q(v) (log q(v) − log p(v))

*Teacher-mixed sampling.* Tokens come from p̃ = mix · p + (1 − mix) · q, so that a weak student also
sees good text, and text that is very unlikely under the teacher does not continue for long. The
ratio ρ_t = q(y_t)/p̃(y_t) corrects for it; with c_t = Π_{s<t} ρ_s,

    ∇KL = E_{y∼p̃} Σ_t c_t [ ∇KL_t − ρ_t G_t ∇log q(y_t) ]        G_t = ρ_{t+1} (r_{t+1} + G_{t+1})

holds exactly (importance = "product"). Products of many ratios have a large variance, so the paper
uses each token's own ratio (importance = "token"): c_t = 1, and G_t = R_{t+1}. This is biased,
since the tokens before and after come from the mixture.

*Length normalisation.* R_{t+1} is divided by the number of its terms. Otherwise it would grow with
the remaining length, and short texts would be preferred.

*Clipping* as in PPO: with the advantage A_t, a token's share of the surrogate is
−c_t · min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε) A_t), whose gradient is the one above inside of 1 ± ε.

No gradient passes through the advantage. The surrogate only provides the gradient; the value of the
term is KL_t, so the log shows the reverse KL per token.

Source: Gu et al., "MiniLLM" (2024), arXiv 2306.08543, sections 2.2 and 2.3.
*Differs from the published code*: R_{t+1} as in the paper, where the code adds r_t once more; no
discount (0.95 there), no whitening of advantages; rewards are not doubled; texts are sampled again
for every optimizer step, where the code takes four passes over each batch of them.
*Differs from the paper*: the single-step part has no ratio ρ_t, whose mean over y_t is 1.

Shapes: B rows, S places of a row, N tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from attar.losses.config import PolicyGradient
from attar.losses.predictions import reverse_kl
from attar.losses.targets import SampledTokens
from attar.losses.term import Needs, Pair, PredictionTerm
from attar.numerics.logits import Taught


def returns(
    rewards: Float[Tensor, "B S"],
    sampled: Bool[Tensor, "B S"],
    ratios: Float[Tensor, "B S"] | None = None,
    *,
    from_next: bool,
    length_normalized: bool,
) -> Float[Tensor, "B S"]:
    """The sum of rewards from each token on, or from the next one on.

    Args:
        sampled: which positions have a sampled token; a row's are contiguous.
        ratios: importance ratios; None: 1.

    Example:
        >>> row = torch.tensor([[1.0, 2.0, 4.0]])
        >>> every = torch.ones(1, 3, dtype=torch.bool)
        >>> returns(row, every, from_next=False, length_normalized=False).tolist()
        [[7.0, 6.0, 4.0]]
        >>> returns(row, every, from_next=True, length_normalized=True).tolist()
        [[3.0, 4.0, 0.0]]
    """
    rewards = rewards.masked_fill(~sampled, 0)
    found = torch.empty_like(rewards)
    rest = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        own = rewards[:, t] + rest
        found[:, t] = rest if from_next else own
        rest = own if ratios is None else ratios[:, t] * own
    if not length_normalized:
        return found
    terms = sampled.flip(1).cumsum(1).flip(1) - int(from_next)
    return found / terms.clamp(min=1)


def sampled_tokens(
    config: PolicyGradient,
    ids: Tensor,
    sampled: Bool[Tensor, "B S"],
    *,
    log_q: Float[Tensor, "B S"],
    log_p: Float[Tensor, "B S"],
    log_sampled: Float[Tensor, "B S"],
) -> SampledTokens:
    """Precompute the advantages and importance weights of the sampled tokens.

    Args:
        ids: (B, S).
        sampled: which positions have a sampled token.
        log_q, log_p, log_sampled: log-probabilities of these tokens under student, teacher and the
            mixture.
    """
    log_q = log_q.detach()
    rewards = config.reward_scale * (log_p - log_q)
    if config.reward_clip:
        rewards = rewards.clamp(-config.reward_clip, config.reward_clip)
    carried, ratios = torch.ones_like(log_q), None
    if config.importance == "product":
        log_ratios = (log_q - log_sampled).masked_fill(~sampled, 0)
        ratios, carried = log_ratios.exp(), (log_ratios.cumsum(dim=1) - log_ratios).exp()
    advantages = returns(
        rewards,
        sampled,
        ratios,
        from_next=config.single_step,
        length_normalized=config.length_normalized,
    )
    return SampledTokens(ids, advantages, log_sampled, carried)


def surrogate(
    log_q: Float[Tensor, "*N"], tokens: SampledTokens, clip: float
) -> Float[Tensor, "*N"]:
    """A surrogate objective for the returns: its gradient is the policy-gradient estimate, its
    value has no meaning.

    Args:
        log_q: log-probabilities of the tokens under the current student; carries the gradient.
        clip: 0: no clipping of the ratio.
    """
    ratio = (log_q - tokens.log_sampled).exp()
    gain = ratio * tokens.advantages
    if clip:
        gain = torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * tokens.advantages)
    return -gain


class PolicyGradientTerm(PredictionTerm):
    """The reverse KL at each token of sampled continuations, with the gradient of the reverse KL of
    whole continuations."""

    needs = Needs(teacher_logits=True, rollouts=True)

    def __init__(self, config: PolicyGradient, objective: str, pair: Pair | None) -> None:
        super().__init__()
        self._clip, self._single_step = config.clip, config.single_step

    def rows(self, student: Tensor, teacher: Taught, labels: Any) -> Tensor:
        assert isinstance(teacher, Tensor)
        assert isinstance(labels, SampledTokens)
        kl = reverse_kl(student, teacher)
        log_q = -functional.cross_entropy(student, labels.ids, reduction="none")
        gain = surrogate(log_q, labels, self._clip)
        value = (kl if self._single_step else kl.detach()) + gain - gain.detach()
        return (labels.carried * value).to(student.dtype)
