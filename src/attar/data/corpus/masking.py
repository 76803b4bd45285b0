"""Masking of token ids: which tokens of a text are predicted, and what the model reads in their
place.

`density` of a text's tokens are predicted (`attar.tasks.masking`), rounded, but at least one;
special tokens never are. Words are drawn in random order as long as they fit into that number; the
first one is always taken. Without `whole_words`, each token is a word. The draw is a pure function
of (seed, epoch, number of the text), as for span corruption: a resumed run masks the same tokens,
and each epoch masks others.

A word ends before a token that does not continue it. Tokens that continue a word have "##" in
WordPiece; in vocabularies that mark spaces ("Ġ", "▁") they are those without the mark, so a comma
after a word belongs to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from attar.data.packing import SEPARATOR, document_tokenizer
from attar.errors import ModelError
from attar.seeds import generator
from attar.special_tokens import num_ids, special_token_id
from attar.tasks.masking import MASKED, RANDOM, Masking

Ids = NDArray[np.int64]
NOT_PREDICTED = -1
SPACES = ("Ġ", "▁")


@dataclass(frozen=True, eq=False)
class Masker:
    """Masking with the ids of one tokenizer."""

    masking: Masking
    before: Ids
    after: Ids
    """Special tokens before and after a text."""
    mask_id: int
    is_special: NDArray[np.bool_]
    """Whether each id is a special token, (V,)."""
    continues: NDArray[np.bool_]
    """Whether each id continues a word, (V,)."""
    text_tokens: int
    """Maximum number of tokens of a text, without special tokens."""
    seed: int

    @classmethod
    def of(cls, masking: Masking, max_length: int, model_folder: Path, seed: int) -> Masker:
        """Masking for a model with this tokenizer that reads `max_length` tokens.

        Raises:
            ModelError: the tokenizer has no separator or no mask token.
        """
        tokenizer, _ = document_tokenizer(model_folder, SEPARATOR)
        mask_id = special_token_id(model_folder, tokenizer, "mask_token")
        if mask_id is None:
            raise ModelError(
                f"the tokenizer of {model_folder} names no mask token (mask_token in "
                "tokenizer_config.json), so nothing can be masked; use a model that was "
                "pre-trained as a masked language model, such as bert or roberta"
            )
        frame = tokenizer.encode("a")
        inside = [place for place, part in enumerate(frame.sequence_ids) if part is not None]
        ids = np.array(frame.ids)
        before, after = ids[: inside[0]], ids[inside[-1] + 1 :]
        is_special, continues = _by_id(tokenizer, whole_words=masking.whole_words)
        room = max_length - len(before) - len(after)
        return cls(masking, before, after, mask_id, is_special, continues, room, seed)

    @property
    def added(self) -> int:
        """Number of special tokens around a text."""
        return len(self.before) + len(self.after)

    def of_text(self, ids: Ids, number: int, epoch: int) -> tuple[Ids, Ids]:
        """Input ids and labels of a text; a label is `NOT_PREDICTED` or the original token.

        Args:
            number: index of the text in the data.
        """
        random = generator(self.seed, "masking", epoch, number)
        hidden = self._hidden(ids, random)
        read, labels = ids.copy(), np.full(len(ids), NOT_PREDICTED)
        labels[hidden] = ids[hidden]
        way = random.random(len(hidden))
        plain = np.flatnonzero(~self.is_special)
        read[hidden[way < MASKED]] = self.mask_id
        is_random = (way >= MASKED) & (way < MASKED + RANDOM)
        read[hidden[is_random]] = random.choice(plain, int(is_random.sum()))
        around = (np.full(len(part), NOT_PREDICTED) for part in (self.before, self.after))
        return (
            np.concatenate([self.before, read, self.after]),
            np.concatenate([next(around), labels, next(around)]),
        )

    def _hidden(self, ids: Ids, random: np.random.Generator) -> Ids:
        """Positions of the tokens to predict."""
        places = np.flatnonzero(~self.is_special[ids])
        if not len(places):
            return places
        wanted = max(1, round(self.masking.density * len(places)))
        # a word continues only at the next position, never across a special token
        goes_on = self.continues[ids[places]] & (np.diff(places, prepend=-2) == 1)
        word_of = np.cumsum(~goes_on) - (0 if goes_on[0] else 1)
        lengths = np.bincount(word_of)
        order = random.permutation(len(lengths))
        taken = order[np.cumsum(lengths[order]) <= wanted]
        return places[np.isin(word_of, taken if len(taken) else order[:1])]


def _by_id(
    tokenizer: Tokenizer, *, whole_words: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which ids are special tokens (or not in the vocabulary), and which continue a word."""
    is_special = np.ones(num_ids(tokenizer), np.bool_)
    continues = np.zeros(len(is_special), np.bool_)
    added = tokenizer.get_added_tokens_decoder()
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None)
    for token, id in tokenizer.get_vocab(with_added_tokens=True).items():
        is_special[id] = id in added and added[id].special
        continues[id] = whole_words and (
            token.startswith(prefix) if prefix else not token.startswith(SPACES)
        )
    return is_special, continues
