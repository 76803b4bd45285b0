"""Sample text from a causal language model, a batch of rows at a time.

The problem: a row's text must depend only on its prompt and its seed, not on other rows in its
batch or on how often the run was interrupted. A random generator for the whole batch cannot
guarantee that. The idea: each row has its own random numbers u_1 … u_S, uniform in [0, 1), and
token t is sampled by inverting the cumulative distribution,

    y_t = min { v : Σ_{w ≤ v} p(w) > u_t · Σ_w p(w) }

so a rounding error in the probabilities changes a token only if u_t is very close to a step.

    p = softmax(z / temperature)                              with one model
    p = mix · p_teacher + (1 − mix) · p_model                 with two (arXiv 2306.08543, §2.2)

Then only the `top_k` most likely tokens are kept, and of these the smallest set with at least
`top_p` of the mass.

The prompt is read once: attention keeps its keys and values, Mamba its state, in transformers' own
caches. The head is applied only to the last position, and finished rows leave the batch.

Not supported: beam search (`attar.models.generation`), repetition penalties.

Letters: B rows · T tokens of the prompts · S new tokens · V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import NonFiniteError
from attar.models.head_chunks import run_to_logits
from attar.seeds import generator

CANDIDATES = 1024
"""Number of tokens in which the nucleus is searched first; sorting a whole vocabulary takes longer
than the head."""


@dataclass(frozen=True)
class Sampling:
    """Sampling settings."""

    temperature: float = 1.0
    """0: always the most likely token."""
    top_k: int | None = None
    """None: all tokens."""
    top_p: float = 1.0
    end_ids: tuple[int, ...] = ()
    """A row ends after the first of these tokens."""
    min_new_tokens: int = 0
    """Minimum number of tokens before an end token."""
    vocabulary: int | None = None
    """Sample only ids below it, because an embedding table may be longer than the vocabulary. None:
    all ids of the model."""


@dataclass(frozen=True)
class Drawn:
    """The tokens sampled after each prompt."""

    ids: Tensor
    """int64 (B, S); 0 after the end of a row."""
    lengths: Tensor
    """int64 (B,): number of tokens of each row, including its end token."""
    log_p: Tensor
    """float64 (B, S): log-probability of each token under the distribution it was sampled from,
    after temperature, mixing, top_k and top_p; 0 after the end of a row."""
    log_each: tuple[Tensor, ...]
    """The same under the model alone, and under the teacher alone, before top_k and top_p."""


def row_uniforms(seed: int, rows: Sequence[int], new_tokens: int) -> Tensor:
    """The random numbers of some rows, float64 (B, S), each a function of (seed, row) alone. More
    tokens extend the same sequence.

    Args:
        rows: a number for each row, such as its place in a corpus or its digest.
    """
    drawn = [generator(seed, "sampling", int(row)).random(new_tokens) for row in rows]
    return torch.from_numpy(np.stack(drawn))


def has_cache(model: PreTrainedModel) -> bool:
    """Whether a model has a cache to continue from; otherwise `sample` reads the whole text again
    for each token."""
    return _cache_name(model) is not None


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    uniforms: Tensor,
    sampling: Sampling,
    *,
    teacher: PreTrainedModel | None = None,
    mix: float = 0.0,
    use_cache: bool = True,
    before_token: Callable[[], None] = lambda: None,
) -> Drawn:
    """Sample tokens after each prompt.

    Args:
        model: a decoder in eval mode, like the teacher; both with the same tokenizer.
        input_ids, attention_mask: int64 (B, T), prompts of at least one token, padded on the left.
        uniforms: (B, S), from `row_uniforms`; at most S tokens are sampled.
        teacher, mix: sample from mix · p_teacher + (1 − mix) · p_model.
        use_cache: False: read the whole text again for each new token.
        before_token: called before each token of all rows; may raise to stop.

    Raises:
        NonFiniteError: a model's logits are NaN or infinite; states which model's ("student" for
            `model` if there is a teacher).
    """
    device = model.device
    uniforms = uniforms.to(device, torch.float64)
    num_rows, new_tokens = uniforms.shape
    ids = torch.zeros(num_rows, new_tokens, dtype=torch.int64, device=device)
    log_p = torch.zeros(num_rows, new_tokens, dtype=torch.float64, device=device)
    log_each = tuple(torch.zeros_like(log_p) for _ in range(1 if teacher is None else 2))
    lengths = torch.zeros(num_rows, dtype=torch.int64, device=device)
    ends = torch.tensor(sampling.end_ids, dtype=torch.int64, device=device)
    mixed = [(1.0, model)] if teacher is None else [(1 - mix, model), (mix, teacher)]
    readers = [Reader(each, attention_mask, use_cache) for _, each in mixed]
    live = torch.arange(num_rows, device=device)
    read = input_ids.to(device)
    for step in range(new_tokens):
        before_token()
        forbidden = ends if step < sampling.min_new_tokens else ends[:0]
        each = _log_each([reader.read(read) for reader in readers], sampling, forbidden)
        parts = [weight * own.exp() for (weight, _), own in zip(mixed, each, strict=True)]
        p = torch.stack(parts).sum(dim=0)
        tokens, drawn_log_p = _draw(p, uniforms[live, step], sampling)
        ids[live, step], log_p[live, step] = tokens, drawn_log_p
        for to, own in zip(log_each, each, strict=True):
            to[live, step] = own.gather(-1, tokens[:, None])[:, 0]
        lengths[live] += 1
        goes_on = ~torch.isin(tokens, ends)
        read = tokens[:, None]
        if not goes_on.all():
            stay = goes_on.nonzero()[:, 0]
            live, read = live[stay], read[stay]
            for reader in readers:
                reader.keep(stay)
        if not len(live):
            break
    return Drawn(ids, lengths, log_p, log_each)


class Reader:
    """A model that reads tokens incrementally."""

    def __init__(self, model: PreTrainedModel, attention_mask: Tensor, use_cache: bool) -> None:
        self._model = model
        self._mask = attention_mask.to(model.device)[:, :0]
        self._prompt_mask: Tensor | None = attention_mask.to(model.device)
        self._cache_name = _cache_name(model) if use_cache else None
        self._cache: Any = None
        self._ids = torch.zeros_like(self._mask)
        accepted = inspect.signature(model.forward).parameters
        self._reads_positions = "position_ids" in accepted

    def read(self, ids: Tensor) -> Tensor:
        """Read the next tokens of each row, (B, T); return the logits (B, V) after them."""
        new_mask = torch.ones_like(ids) if self._prompt_mask is None else self._prompt_mask
        self._prompt_mask = None
        self._mask = torch.cat([self._mask, new_mask], dim=1)
        if self._cache_name is None:
            self._ids = ids = torch.cat([self._ids, ids], dim=1)
        inputs = {"input_ids": ids}
        if self._cache is None or self._cache_name == "past_key_values":
            inputs["attention_mask"] = self._mask  # a state has already processed the padding
        if self._reads_positions:
            positions = self._mask.cumsum(dim=1) - 1
            inputs["position_ids"] = positions.clamp(min=0)[:, -ids.shape[1] :]
        settings: dict[str, Any] = {}
        if self._cache_name is not None:
            settings = {"use_cache": True, self._cache_name: self._cache}
        raw, logits = run_to_logits(self._model, inputs, **settings)
        if self._cache_name is not None:
            self._cache = getattr(raw, self._cache_name)
        rows = torch.arange(len(ids), device=ids.device)
        return logits[rows, torch.full_like(rows, ids.shape[1] - 1)]

    def forget_last(self) -> None:
        """Drop the last token of every row from the cache. A state of fixed size is not changed."""
        self._mask = self._mask[:, :-1]
        if self._cache_name == "past_key_values" and _grows(self._cache):
            self._cache.crop(-1)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows except these."""
        self._mask, self._ids = self._mask[rows], self._ids[rows]
        if self._cache is not None:
            self._cache.reorder_cache(rows)


def _grows(cache: Any) -> bool:
    """Whether the cache grows with each token, that is, no sliding window is full."""
    layers = cache.layers
    return all(
        layer.is_croppable
        and not (layer.is_sliding and layer.get_seq_length() >= layer.sliding_window)
        for layer in layers
    )


def _cache_name(model: PreTrainedModel) -> str | None:
    """Name of the cache argument of a model's `forward`; None: it has no cache."""
    accepted = inspect.signature(model.forward).parameters
    return next((name for name in ("past_key_values", "cache_params") if name in accepted), None)


def _log_each(logits: Sequence[Tensor], sampling: Sampling, forbidden: Tensor) -> list[Tensor]:
    """Log-probabilities of each model before mixing, top_k and top_p, float64 (B, V), for the
    tokens of the first model; further ids of another model's padded table are dropped."""
    found: list[Tensor] = []
    names = ("student", "teacher") if len(logits) > 1 else ("model",)
    for name, given in zip(names, logits, strict=True):
        z = given[:, : logits[0].shape[-1]][:, : sampling.vocabulary].double()
        z[:, forbidden] = -torch.inf
        own = torch.log_softmax(z / (sampling.temperature or 1.0), dim=-1)
        if own.isnan().any():
            raise NonFiniteError(
                f"the {name}'s logits are NaN or infinite, so no token can be sampled; its weights "
                "are damaged, or its training diverged"
            )
        found.append(own)
    return found


def _draw(p: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Sample a token for each row of probabilities (B, V); return the tokens and their
    log-probabilities, (B,) each.
    """
    if sampling.temperature == 0:
        tokens = p.argmax(dim=-1)
        return tokens, torch.zeros_like(uniforms)
    if sampling.top_k is not None:
        top, tokens = p.topk(min(sampling.top_k, p.shape[-1]), dim=-1)
        p = torch.zeros_like(p).scatter(-1, tokens, top)
    if sampling.top_p < 1:
        p = _nucleus(p, sampling.top_p)
    below = p.cumsum(dim=-1)
    total = below[:, -1:]
    # rounding u · total may give total, beyond which there is no token
    wanted = torch.minimum(uniforms[:, None] * total, total.nextafter(torch.zeros_like(total)))
    tokens = torch.searchsorted(below, wanted, right=True)
    return tokens[:, 0], (p.gather(-1, tokens) / total).log()[:, 0]


def _nucleus(p: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most likely tokens with at least `top_p` of each row's mass; others
    become 0.
    """
    wanted = top_p * p.sum(dim=-1, keepdim=True)
    columns = p.shape[-1]
    for candidates in (min(CANDIDATES, columns), columns):
        top, tokens = p.topk(candidates, dim=-1)
        before = top.cumsum(dim=-1) - top
        if candidates == columns or (before[:, -1:] >= wanted).all():
            break
    return torch.zeros_like(p).scatter(-1, tokens, top * (before < wanted))
