"""log p of continuations under a language model, reading shared prefixes only once.

The problem: a question with four answers is four texts with the same beginning, and one number is
needed for each. Separately, the question is read four times, with logits over the vocabulary at
each of its tokens. The idea: requests come in groups; the common prefix of a group is read once,
its keys and values are copied for each text, and each text reads only the rest. Logits are computed
only at positions that predict a continuation, a few rows at a time.

    prefix     p tokens that all texts of a group begin with      (G, p)
    rest       of each text                                       (R, s), padded on the right
    log p      Σ over its continuation; greedy: every token of it is the model's first choice

Groups read together are cut to the shortest prefix among them, so no prefix is padded. Then neither
mask nor positions are needed, and it works for every family with a key-value cache. Whether a model
does this correctly is tested at the first call, on a few tokens. Models that keep a state instead
(Mamba) read every text in full.

Law: for any grouping and batch size, a request has the same log p as when its text is read alone,
up to rounding.

Letters: G groups · R texts · T tokens of a text · p of its prefix · s of the rest · N predictions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from attar.models.head_chunks import run_to_logits
from attar.numerics.logits import Logits, row_values
from attar.scoring.continuations import Continuation, Groups, common
from attar.scoring.in_memory import evaluating

SLACK = 4
"""Maximum difference in length of prefixes read together, in tokens; the part cut off is read by
every text."""
PASS = 64
"""Cost of one more forward pass, in tokens."""
TRIED, KEPT = 8, 5
"""Number of tokens of the test, and of its prefix."""
SAME = 1e-4
"""Maximum difference of logits in the test, absolute and relative."""

_tried: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Likelihoods:
    """Likelihood of each request's continuation."""

    log_p: np.ndarray
    """In nats, float64 (N,)."""
    is_greedy: np.ndarray
    """Whether greedy decoding would generate the continuation, bool (N,)."""


def likelihoods(
    model: PreTrainedModel,
    requests: Sequence[Continuation],
    groups: Groups,
    *,
    batch_tokens: int,
    after_batch: Callable[[int], None] = lambda requests: None,
) -> Likelihoods:
    """The log-likelihood of every continuation.

    Args:
        batch_tokens: number of tokens read together, counting shared ones for each text.
        after_batch: called with the number of requests just done.
    """
    found = _Sums(requests)
    with evaluating(model):
        shares = shares_prefixes(model)
        together = [list(group) for group in groups if shares and common(requests, group)]
        alone = [i for group in groups if not (shares and common(requests, group)) for i in group]
        for batch in _shared_batches(requests, together, batch_tokens):
            _read_shared(model, requests, batch, found)
            after_batch(sum(map(len, batch)))
        for rows in _batches(alone, lambda i: len(requests[i].fed), batch_tokens):
            _read_whole(model, requests, rows, found)
            after_batch(len(rows))
    return Likelihoods(found.log_p, found.is_greedy)


def shares_prefixes(model: PreTrainedModel) -> bool:
    """Whether a model can correctly continue from a cached prefix; tested at the first call."""
    if model not in _tried:
        with evaluating(model):
            _tried[model] = _agrees(model)
    return _tried[model]


class _Sums:
    """Sums over the continuation of each request."""

    def __init__(self, requests: Sequence[Continuation]) -> None:
        self._requests = requests
        self.log_p = np.zeros(len(requests))
        self.is_greedy = np.ones(len(requests), np.bool_)

    def add(self, logits: Logits, row_of: Mapping[int, int], begin: int, end: int) -> None:
        """Add the predictions at positions [begin, end) of the texts.

        Args:
            row_of: request → row of the logits, whose first position is `begin`.
        """
        found: list[tuple[int, int, int, int]] = []
        for number, row in row_of.items():
            request = self._requests[number]
            places = range(max(begin, request.first), min(end, len(request.fed)))
            targets = (request.targets[place - request.first] for place in places)
            found += [(number, row, p - begin, t) for p, t in zip(places, targets, strict=True)]
        if not found:
            return
        numbers, rows, places, targets = np.array(found).T
        device = logits.hidden.device if hasattr(logits, "hidden") else logits.device  # pyright: ignore
        index = tuple(torch.from_numpy(each.copy()).to(device) for each in (rows, places))
        labels = torch.from_numpy(targets.copy()).to(device)
        values, _ = row_values([_nats, _is_first_choice], index, logits, labels)
        nats, first = (row.double().cpu().numpy() for row in values)
        np.subtract.at(self.log_p, numbers, nats)
        np.logical_and.at(self.is_greedy, numbers, first > 0)


def _nats(logits: Tensor, _: object, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


def _is_first_choice(logits: Tensor, _: object, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=-1) == labels).to(logits.dtype)


def _read_whole(
    model: PreTrainedModel, requests: Sequence[Continuation], rows: Sequence[int], found: _Sums
) -> None:
    """Read whole texts, padded on the right, where a causal model cannot attend."""
    ids = _padded([requests[i].fed for i in rows], model.device)
    _, logits = run_to_logits(model, {"input_ids": ids}, use_cache=False)
    found.add(logits, {i: row for row, i in enumerate(rows)}, 0, ids.shape[1])


def _read_shared(
    model: PreTrainedModel,
    requests: Sequence[Continuation],
    groups: Sequence[Sequence[int]],
    found: _Sums,
) -> None:
    """Read the groups' prefixes, then the rest of each text."""
    shared = min(common(requests, group) for group in groups)
    ids = _padded([requests[group[0]].fed[:shared] for group in groups], model.device)
    raw, logits = run_to_logits(model, {"input_ids": ids}, use_cache=True)
    owner = {i: row for row, group in enumerate(groups) for i in group}
    found.add(logits, owner, 0, shared)
    rests = [i for i in owner if len(requests[i].fed) > shared]
    for rows in _cheapest_split(rests, lambda i: len(requests[i].fed) - shared):
        cache = _copied(raw.past_key_values, [owner[i] for i in rows], model.device)
        rest = _padded([requests[i].fed[shared:] for i in rows], model.device)
        _, logits = run_to_logits(model, {"input_ids": rest}, past_key_values=cache, use_cache=True)
        found.add(logits, {i: row for row, i in enumerate(rows)}, shared, shared + rest.shape[1])


def _shared_batches(
    requests: Sequence[Continuation], groups: Sequence[list[int]], batch_tokens: int
) -> Iterator[list[list[int]]]:
    """Groups with prefixes of similar length, longest first."""
    prefix = {id(group): common(requests, group) for group in groups}
    size = {id(group): sum(len(requests[i].fed) for i in group) for group in groups}
    batch: list[list[int]] = []
    tokens = 0
    for group in sorted(groups, key=lambda group: (-prefix[id(group)], -size[id(group)])):
        is_far = batch and prefix[id(batch[0])] - prefix[id(group)] > SLACK
        if batch and (is_far or tokens + size[id(group)] > batch_tokens):
            yield batch
            batch, tokens = [], 0
        batch.append(group)
        tokens += size[id(group)]
    if batch:
        yield batch


def _batches(
    rows: Sequence[int], length: Callable[[int], int], batch_tokens: int
) -> Iterator[list[int]]:
    """Texts of similar length, longest first, up to `batch_tokens` with their padding."""
    batch: list[int] = []
    for i in sorted(rows, key=length, reverse=True):
        if batch and (len(batch) + 1) * length(batch[0]) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _cheapest_split(rows: Sequence[int], length: Callable[[int], int]) -> list[list[int]]:
    """Batches of texts, longest first, with the fewest tokens in all: padding is counted, and
    `PASS` for each batch. Texts of equal length stay together."""
    ordered = sorted(rows, key=length, reverse=True)
    count = len(ordered)
    shorter = [k for k in range(1, count) if length(ordered[k]) < length(ordered[k - 1])]
    ends = [*shorter, count] if count else []
    firsts = [0, *shorter]
    least, begin = {0: 0}, {0: 0}  # tokens of the texts before an end; where its batch begins
    for place, end in enumerate(ends, 1):
        least[end], begin[end] = min(
            (least[first] + (end - first) * length(ordered[first]) + PASS, first)
            for first in firsts[:place]
        )
    batches: list[list[int]] = []
    end = count
    while end:
        batches.append(ordered[begin[end] : end])
        end = begin[end]
    return batches[::-1]


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    longest = max(map(len, texts))
    ids = np.zeros((len(texts), longest), np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(ids).to(device)


def _copied(cache: Any, rows: Sequence[int], device: torch.device) -> Any:
    """The keys and values of some rows, which may be repeated."""
    copied = copy.copy(cache)  # shallow, so that tensors are not copied twice
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    copied.batch_select_indices(torch.tensor(rows, device=device))
    return copied


def _agrees(model: PreTrainedModel) -> bool:
    """Whether two texts with a cached common prefix get the same logits as when read in full."""
    words = model.config.get_text_config().vocab_size
    ids = (7 * torch.arange(2 * TRIED, device=model.device).view(2, TRIED) + 1) % words
    ids[1, :KEPT] = ids[0, :KEPT]
    whole = model(input_ids=ids, use_cache=False).logits
    raw = model(input_ids=ids[:1, :KEPT], use_cache=True)
    cache = getattr(raw, "past_key_values", None)
    if not hasattr(cache, "batch_select_indices") or not hasattr(cache, "layers"):
        return False
    copied = _copied(cache, [0, 0], model.device)
    rest = model(input_ids=ids[:, KEPT:], past_key_values=copied, use_cache=True).logits
    largest = float(whole.abs().max())
    return torch.allclose(rest, whole[:, KEPT:], rtol=SAME, atol=SAME * largest)
