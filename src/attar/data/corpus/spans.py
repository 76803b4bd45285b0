"""Span corruption of token ids: which tokens are hidden, and the resulting inputs and targets.

The published corruption (arXiv 1910.10683) fixes how many tokens are hidden and in how many spans
(`tasks.denoising`), and draws the rest: the hidden tokens are split into that many spans and the
visible tokens into as many segments, with all splits equally likely; visible segments and hidden
spans then alternate. So a text begins with a visible token and ends with a hidden one. (Hiding each
token independently is a different corruption.)

    text      the cat sat on the mat
    hidden        ─────── ──     ───
    inputs    the <S0> the <S1> end              S0, S1: <extra_id_0>, <extra_id_1>
    targets   <S0> cat sat on <S1> mat end

The draw is a pure function of (seed, epoch, number of the text): a resumed run, or another machine,
hides the same tokens, and each epoch hides others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from attar.data.corpus.config import sentinel
from attar.data.packing import document_tokenizer
from attar.errors import ModelError
from attar.seeds import generator
from attar.tasks.denoising import Denoiser, most_spans, raw_tokens

Ids = NDArray[np.int64]


def segment_lengths(items: int, segments: int, random: np.random.Generator) -> Ids:
    """Lengths of `segments` non-empty segments of `items` items; all splits are equally likely.

    Example:
        >>> segment_lengths(3, 3, np.random.default_rng(0)).tolist()
        [1, 1, 1]
    """
    if segments == 1:
        return np.array([items])
    cuts = np.sort(random.choice(items - 1, segments - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=items)


def noise_mask(tokens: int, denoiser: Denoiser, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which tokens of a text are hidden, (tokens,)."""
    hidden = denoiser.hidden(tokens)
    kept = segment_lengths(tokens - hidden.tokens, hidden.spans, random)
    lost = segment_lengths(hidden.tokens, hidden.spans, random)
    turns = np.stack([kept, lost], axis=1).ravel()
    return np.repeat(np.tile([False, True], hidden.spans), turns)


def corrupted(
    ids: Ids, mask: NDArray[np.bool_], sentinels: Ids, end_id: int, prefix: Sequence[int] = ()
) -> tuple[Ids, Ids]:
    """Inputs and targets of a text.

    Args:
        mask: True for hidden tokens.
        sentinels: in order, at least one for each hidden span.
        prefix: ids read before the text.
    """
    begins = mask & ~np.concatenate([[False], mask[:-1]])
    own = sentinels[: begins.sum()]
    read = ids.copy()
    read[begins] = own
    written = np.insert(ids[mask], np.flatnonzero(begins[mask]), own)
    return np.array([*prefix, *read[~mask | begins], end_id]), np.append(written, end_id)


@dataclass(frozen=True, eq=False)
class Corruption:
    """A mixture of denoisers, with the ids of one tokenizer."""

    denoisers: tuple[Denoiser, ...]
    sentinels: Ids
    end_id: int
    prefixes: tuple[tuple[int, ...], ...]
    """Prefix ids of each denoiser."""
    raw_tokens: int
    """Number of tokens of a full-length text, before corruption."""
    seed: int

    @classmethod
    def of(
        cls, denoisers: tuple[Denoiser, ...], max_length: int, model_folder: Path, seed: int
    ) -> Corruption:
        """Corruption for a model with this tokenizer that reads `max_length` tokens.

        Raises:
            ModelError: the tokenizer has no end token, too few sentinels, or lacks a prefix token.
        """
        tokenizer, end_id = document_tokenizer(model_folder)
        raw = raw_tokens(denoisers, max_length)
        sentinels, needed = sentinel_ids(tokenizer), most_spans(denoisers, raw)
        if len(sentinels) < needed:
            raise ModelError(
                f"the tokenizer of {model_folder} has {len(sentinels)} sentinels "
                f"({sentinel(0)}, {sentinel(1)}, …), and span corruption with max_length = "
                f"{max_length} needs {needed}; use a tokenizer of T5, or learn one with "
                f"tokenizer = {{ train_on = …, vocab_size = …, sentinels = 100 }}"
            )
        prefixes = tuple(_prefix(tokenizer, denoiser, model_folder) for denoiser in denoisers)
        return cls(denoisers, np.array(sentinels), end_id, prefixes, raw, seed)

    def of_text(self, ids: Ids, number: int, epoch: int) -> tuple[Ids, Ids]:
        """Inputs and targets of a text.

        Args:
            number: index of the text in the data.
        """
        place, random = self._draw(number, epoch)
        mask = noise_mask(len(ids), self.denoisers[place], random)
        return corrupted(ids, mask, self.sentinels, self.end_id, self.prefixes[place])

    def lengths(self, tokens: int, number: int, epoch: int) -> tuple[int, int]:
        """Numbers of input and target tokens of a text with this many tokens."""
        place = self._draw(number, epoch)[0] if len(self.denoisers) > 1 else 0
        denoiser = self.denoisers[place]
        return denoiser.inputs(tokens), denoiser.targets(tokens)

    def _draw(self, number: int, epoch: int) -> tuple[int, np.random.Generator]:
        """The denoiser of a text, and the random generator for its mask."""
        random = generator(self.seed, "spans", epoch, number)
        if len(self.denoisers) == 1:
            return 0, random
        ends = np.cumsum([denoiser.share for denoiser in self.denoisers])
        return int(np.searchsorted(ends, random.random() * ends[-1], side="right")), random


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokenizer's sentinels, in their order."""
    found: list[int] = []
    while (token := tokenizer.token_to_id(sentinel(len(found)))) is not None:
        found.append(token)
    return found


def _prefix(tokenizer: Tokenizer, denoiser: Denoiser, model_folder: Path) -> tuple[int, ...]:
    if denoiser.prefix is None:
        return ()
    found = tokenizer.token_to_id(denoiser.prefix)
    if found is None:
        raise ModelError(
            f"the tokenizer of {model_folder} has no token {denoiser.prefix!r}, which a denoiser "
            "uses as its prefix; train a tokenizer with special_tokens = "
            f"[{denoiser.prefix!r}], or leave prefix out"
        )
    return (found,)
