"""Find the words of a text, and the tokens that are whole words.

A word is a run of letters that the tokenizer does not join to its neighbours, identified by its
character span. A new text is the old one with some spans replaced, so the rest stays identical,
including spaces.

A token can replace a word if it decodes to letters only and the tokenizer encodes these letters as
that single token. This excludes pieces such as "##ing", in any vocabulary. If tokens include the
preceding space (RoBERTa), it depends on whether there is one.

Not replaced: numbers, punctuation, and words with an unknown token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding

from attar.artifacts import read_json
from attar.data.tokenize import TextEncoder, encodings
from attar.errors import ModelError
from attar.special_tokens import num_ids, open_tokenizer

MASKS = ("[MASK]", "<mask>")
"""Mask tokens of BERT-like and RoBERTa-like vocabularies."""


@dataclass(frozen=True)
class Word:
    """A word that may be replaced."""

    begin: int
    """First character."""
    end: int
    """One after the last character."""
    position: int
    """Position of its first token."""
    pieces: tuple[int, ...]
    """Its token ids."""
    after_space: bool
    """Whether white space precedes it."""


@dataclass(frozen=True)
class ReadText:
    """A text, its token ids (truncated to the tokenizer's limit), and its words."""

    text: str
    ids: np.ndarray
    words: tuple[Word, ...]

    def with_words(self, replaced: Mapping[int, str]) -> str:
        """The text with some words replaced.

        Args:
            replaced: number of the word → new word.
        """
        parts: list[str] = []
        end = 0
        for number in sorted(replaced):
            word = self.words[number]
            parts += [self.text[end : word.begin], replaced[number]]
            end = word.end
        return "".join([*parts, self.text[end:]])


class WordReader:
    """The tokenizer of a masked language model, with access to words."""

    def __init__(self, folder: Path, max_length: int) -> None:
        encoder = TextEncoder.from_folder(folder, max_length, ("input_ids",))
        self.pad_id = encoder.pad_id
        self._tokenizer = open_tokenizer(folder)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        # settings take precedence over tokenizer.json, which has what bert-base-uncased's settings
        # lack
        names = _names_in_tokenizer(folder) | _names_in_settings(folder)
        self.mask_id = self._id_of(names, "mask_token", folder)
        self._unknown_id = self._tokenizer.token_to_id(names.get("unk_token") or "")

    def _id_of(self, names: Mapping[str, str], kind: str, folder: Path) -> int:
        token = names.get(kind)
        found = None if token is None else self._tokenizer.token_to_id(token)
        if found is None:
            raise ModelError(
                f"{folder} has no {kind} (tokenizer_config.json has {token!r}, and "
                f"tokenizer.json no special token {' or '.join(MASKS)}); use a masked "
                "language model with its own tokenizer, such as bert-base-uncased"
            )
        return found

    def read(self, texts: Sequence[str]) -> list[ReadText]:
        """Tokenize texts and find their words, using all cores."""
        read = encodings(self._tokenizer, texts, special=True, offsets=True)
        return [
            ReadText(text, np.array(encoding.ids, np.int64), tuple(self._words(text, encoding)))
            for text, encoding in zip(texts, read, strict=True)
        ]

    def _words(self, text: str, encoding: Encoding) -> Iterator[Word]:
        ids, numbers, offsets = encoding.ids, encoding.word_ids, encoding.offsets
        position = 0
        while position < len(ids):
            first, number = position, numbers[position]
            while position < len(ids) and numbers[position] == number:
                position += 1
            if number is None:
                continue
            begin, end = offsets[first][0], offsets[position - 1][1]
            # some tokenizers count the preceding space as part of the word
            begin = end - len(text[begin:end].lstrip())
            pieces = tuple(ids[first:position])
            if text[begin:end].isalpha() and self._unknown_id not in pieces:
                yield Word(begin, end, first, pieces, begin > 0 and text[begin - 1].isspace())

    def whole_words(self, size: int) -> tuple[list[str], np.ndarray]:
        """The text of each token, and whether it can replace a word.

        Args:
            size: vocabulary size of the model; ids that the tokenizer lacks can replace nothing.

        Returns:
            `size` words, and bool (2, size): row 0 without, row 1 with preceding white space.
        """
        known = min(size, num_ids(self._tokenizer))
        written = self._tokenizer.decode_batch([[i] for i in range(known)])
        words = [word.strip() for word in written] + [""] * (size - known)
        fits = np.zeros((2, size), dtype=bool)
        for row, prefix in enumerate(("", " ")):
            read = encodings(self._tokenizer, [prefix + word for word in words[:known]])
            for i, encoding in enumerate(read):
                fits[row, i] = encoding.ids == [i] and words[i].isalpha()
        return words, fits


def _names_in_tokenizer(folder: Path) -> dict[str, str]:
    """The unknown token of the vocabulary, and a special token spelled like a mask token."""
    plain: dict[str, Any] = read_json(folder / "tokenizer.json")
    names: dict[str, str] = {}
    unknown = (plain.get("model") or {}).get("unk_token")
    if isinstance(unknown, str):
        names["unk_token"] = unknown
    special = {token["content"] for token in plain.get("added_tokens") or () if token["special"]}
    masks = [written for written in MASKS if written in special]
    return names | ({"mask_token": masks[0]} if masks else {})


def _names_in_settings(folder: Path) -> dict[str, str]:
    file = folder / "tokenizer_config.json"
    settings: dict[str, Any] = read_json(file) if file.is_file() else {}
    plain = {
        kind: token.get("content") if isinstance(token, dict) else token
        for kind, token in settings.items()
        if kind.endswith("_token")
    }
    return {kind: token for kind, token in plain.items() if isinstance(token, str)}
