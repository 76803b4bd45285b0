"""Masking of token ids: which tokens of a text are predicted, and what is read in their place.

`density` of a text's tokens are predicted (`attar.tasks.masking`), rounded, at least one; special
tokens never are. Words are drawn one after another while they fit into that number; without
`whole_words` a word is a token. What is drawn is a pure function of (seed, epoch, number of the
text), as for span corruption: a run that goes on after a stop masks the same tokens, each epoch
others.

Whole words end where a token does not continue one: "##" in WordPiece; in vocabularies that mark
spaces ("Ġ", "▁") a token without the mark continues, a comma behind a word included.
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
    """Masking, as one tokenizer writes it."""

    masking: Masking
    before: Ids
    after: Ids
    """Special tokens around a text."""
    mask_id: int
    is_special: NDArray[np.bool_]
    """By id, (V,)."""
    continues: NDArray[np.bool_]
    """By id: the token goes on with a word, (V,)."""
    text_tokens: int
    """Of a whole text, without special tokens."""
    seed: int

    @classmethod
    def of(cls, masking: Masking, max_length: int, model_folder: Path, seed: int) -> Masker:
        """The masking of texts that a model with this tokenizer reads in `max_length` tokens.

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
        """Special tokens around a text."""
        return len(self.before) + len(self.after)

    def of_text(self, ids: Ids, number: int, epoch: int) -> tuple[Ids, Ids]:
        """What is read of a text, and what is predicted at each place: `NOT_PREDICTED` or the
        token.

        Args:
            number: of the text among all.
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
        """Places of the tokens that are predicted."""
        places = np.flatnonzero(~self.is_special[ids])
        if not len(places):
            return places
        wanted = max(1, round(self.masking.density * len(places)))
        # a word goes on in the next place, and not behind a special token
        goes_on = self.continues[ids[places]] & (np.diff(places, prepend=-2) == 1)
        word_of = np.cumsum(~goes_on) - (0 if goes_on[0] else 1)
        lengths = np.bincount(word_of)
        order = random.permutation(len(lengths))
        taken = order[np.cumsum(lengths[order]) <= wanted]
        return places[np.isin(word_of, taken if len(taken) else order[:1])]


def _by_id(
    tokenizer: Tokenizer, *, whole_words: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which ids are special tokens, or none at all; and which continue a word."""
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
