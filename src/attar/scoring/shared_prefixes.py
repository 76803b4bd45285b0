"""log p of continuations under a language model, reading shared prefixes only once.

The problem: a question with four answers is four texts with the same beginning, and one number is
needed for each. Separately, the question is read four times, with logits over the vocabulary at
each of its tokens. The idea: requests come in groups; the texts of a group are one row of tokens,
the common prefix and then the rest of each. A rest sees the prefix and itself, and its positions
continue those of the prefix:

    row          prefix, rest of text 1, rest of text 2, …       p + Σ s tokens, padded on the right
    positions    0 … p − 1, then p … for each rest
    attention    a query sees a key before it, of the prefix or of its own rest
    log p        Σ over the continuation; greedy: every token of it is the model's first choice

So a batch is one forward pass, in which nothing is read twice. Logits are computed only at
positions that predict a continuation, a few rows at a time. Whether a model reads such rows
correctly is tested at the first call, on a few tokens. A model that keeps a state instead of
attending (Mamba), takes no positions, or has a window shorter than a text reads every text alone.

Law: for any grouping and batch size, a request has the same log p as when its text is read alone,
up to rounding.

Letters: B rows · T tokens of a row · p of its prefix · s of a rest · N requests.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.head_chunks import run_to_logits
from attar.numerics.logits import Logits, label_nats, row_values
from attar.scoring.continuations import Continuation, Groups, common
from attar.scoring.in_memory import evaluating

TRIED, KEPT = 8, 5
"""Number of tokens of a text of the test, and of the prefix."""
PASS = 32
"""Cost of one more forward pass, in tokens."""
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


@dataclass(frozen=True)
class _Row:
    """Texts of a group as one row of tokens; one text alone is all prefix."""

    texts: tuple[int, ...]
    """Requests, by index."""
    shared: int
    """Length of the common prefix."""
    begins: tuple[int, ...]
    """Column at which the rest of each text begins."""
    length: int

    @classmethod
    def of(cls, requests: Sequence[Continuation], texts: Sequence[int]) -> _Row:
        lengths = [len(requests[i].fed) for i in texts]
        shared = common(requests, texts) if len(texts) > 1 else lengths[0]
        *begins, length = accumulate((each - shared for each in lengths), initial=shared)
        return cls(tuple(texts), shared, tuple(begins), length)

    def column(self, text: int, place: int) -> int:
        """Column of a position of a text, which is given by its number in the row."""
        return place if place < self.shared else self.begins[text] + place - self.shared


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
        batch_tokens: number of tokens read together, with padding.
        after_batch: called with the number of requests just done.
    """
    log_p, is_greedy = np.zeros(len(requests)), np.ones(len(requests), np.bool_)
    with evaluating(model):
        rows = _rows(requests, groups, batch_tokens if shares_prefixes(model, requests) else 0)
        for batch in _batches(list(rows), batch_tokens):
            ids, positions, rests = _arranged(requests, batch)
            inputs = {"input_ids": torch.from_numpy(ids).to(model.device)}
            if any(len(row.texts) > 1 for row in batch):
                inputs["position_ids"] = torch.from_numpy(positions).to(model.device)
                inputs["attention_mask"] = _mask(torch.from_numpy(rests).to(model.device), model)
            _, logits = run_to_logits(model, inputs, use_cache=False)
            numbers, nats, is_first = _predicted(requests, batch, logits)
            np.subtract.at(log_p, numbers, nats)
            np.logical_and.at(is_greedy, numbers, is_first)
            after_batch(sum(len(row.texts) for row in batch))
    return Likelihoods(log_p, is_greedy)


def shares_prefixes(model: PreTrainedModel, requests: Sequence[Continuation]) -> bool:
    """Whether a model correctly reads several rests after one prefix; tested at the first call."""
    # a row's mask is the same for all layers, so a window must not be shorter than a text
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window is not None and any(len(request.fed) > window for request in requests):
        return False
    if model not in _tried:
        with evaluating(model):
            _tried[model] = _agrees(model)
    return _tried[model]


def _rows(requests: Sequence[Continuation], groups: Groups, most_tokens: int) -> Iterator[_Row]:
    """The rows of all groups. A group without a common prefix is divided, and one that is longer
    than `most_tokens`."""
    for group in groups:
        texts: list[int] = []
        for i in group:
            longer = [*texts, i]
            if texts and (
                not common(requests, longer) or _Row.of(requests, longer).length > most_tokens
            ):
                yield _Row.of(requests, texts)
                longer = [i]
            texts = longer
        yield _Row.of(requests, texts)


def _batches(rows: Sequence[_Row], batch_tokens: int) -> list[list[_Row]]:
    """Rows of similar length, longest first, up to `batch_tokens` with their padding; of all such
    divisions the one with the fewest tokens, where padding is counted, and `PASS` for each batch.
    """
    ordered = sorted(rows, key=lambda row: row.length, reverse=True)
    least, begin = [0], [0]  # tokens of the rows before an end; where the last batch begins
    for end in range(1, len(ordered) + 1):
        best = (least[end - 1] + ordered[end - 1].length + PASS, end - 1)
        for first in range(end - 2, -1, -1):
            tokens = (end - first) * ordered[first].length
            if tokens > batch_tokens:
                break
            best = min(best, (least[first] + tokens + PASS, first))
        least.append(best[0])
        begin.append(best[1])
    batches: list[list[_Row]] = []
    end = len(ordered)
    while end:
        batches.append(ordered[begin[end] : end])
        end = begin[end]
    return batches[::-1]


def _arranged(
    requests: Sequence[Continuation], batch: Sequence[_Row]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, positions, and the number of the rest that a token belongs to (0: the prefix, or
    padding), each int64 (B, T)."""
    ids, positions, rests = np.zeros((3, len(batch), batch[0].length), np.int64)
    for line, row in enumerate(batch):
        prefix = slice(row.shared)
        ids[line, prefix] = requests[row.texts[0]].fed[prefix]
        positions[line, prefix] = np.arange(row.shared)
        for number, (i, begin) in enumerate(zip(row.texts, row.begins, strict=True), 1):
            rest = requests[i].fed[row.shared :]
            columns = slice(begin, begin + len(rest))
            ids[line, columns] = rest
            positions[line, columns] = row.shared + np.arange(len(rest))
            rests[line, columns] = number
    return ids, positions, rests


def _mask(rests_BT: Tensor, model: PreTrainedModel) -> Tensor:
    """Which keys a query sees, as an additive mask (B, 1, T, T)."""
    length = rests_BT.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=rests_BT.device).tril()
    keys, queries = rests_BT[:, None, :], rests_BT[:, :, None]
    seen = before & ((keys == 0) | (keys == queries))
    lowest = torch.finfo(model.dtype).min
    return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, lowest)[:, None]


def _predicted(
    requests: Sequence[Continuation], batch: Sequence[_Row], logits: Logits
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each predicted token's request, its −log p in nats, and whether it is the first choice."""
    numbers, lines, columns, targets = np.array(
        [
            (i, line, row.column(text, requests[i].first + place), target)
            for line, row in enumerate(batch)
            for text, i in enumerate(row.texts)
            for place, target in enumerate(requests[i].targets)
        ]
    ).T
    device = logits.hidden.device if hasattr(logits, "hidden") else logits.device  # pyright: ignore
    index = tuple(torch.from_numpy(each.copy()).to(device) for each in (lines, columns))
    labels = torch.from_numpy(targets.copy()).to(device)
    values, _ = row_values([label_nats, _is_first_choice], index, logits, labels)
    values, is_first = (row.double().cpu().numpy() for row in values)
    return numbers, values, is_first > 0


def _is_first_choice(logits: Tensor, _: object, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=-1) == labels).to(logits.dtype)


def _agrees(model: PreTrainedModel) -> bool:
    """Whether two texts with a common prefix get the same logits in one row as each alone."""
    is_stateful = getattr(model, "_is_stateful", False)
    if is_stateful or "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    words = model.config.get_text_config().vocab_size
    ids = (7 * np.arange(2 * TRIED).reshape(2, TRIED) + 1) % words
    ids[1, :KEPT] = ids[0, :KEPT]
    texts = [Continuation(tuple(row), (0,)) for row in ids.tolist()]
    in_one, positions, rests = map(torch.from_numpy, _arranged(texts, [_Row.of(texts, [0, 1])]))
    whole = model(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False).logits
    row = model(
        input_ids=in_one.to(model.device),
        position_ids=positions.to(model.device),
        attention_mask=_mask(rests.to(model.device), model),
        use_cache=False,
    ).logits[0, KEPT:]
    largest = float(whole.abs().max())
    return torch.allclose(row, whole[:, KEPT:].flatten(0, 1), rtol=SAME, atol=SAME * largest)
