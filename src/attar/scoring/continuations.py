"""Pairs of context and continuation as tokens: the input of a language model, and its targets.

The tokens are those of lm-evaluation-harness, so that log-likelihoods can be compared one by one:

    spaces at the end of the context belong to the continuation
    context tokens        tokens of the context alone, with the tokenizer's own special tokens
    continuation tokens   tokens of context + continuation after the number that the context has
    model input           both, without the last token; long inputs are truncated at the beginning

Source: lm-evaluation-harness 0.4.13, `api/model.py` and `models/huggingface.py`.

*Differs from it*: a continuation without tokens, and a tokenizer that ends every text with a
special token, are rejected in advance; there, the former fails an assertion and the latter gives a
wrong number.

Imports no torch. Letters: N requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from attar.data.tokenize import encodings
from attar.errors import DataError, ModelError
from attar.special_tokens import open_tokenizer
from attar.transformers_tokenizer import read_as_transformers

Pair = tuple[str, str]
"""Context and continuation."""
Groups = Sequence[Sequence[int]]
"""Requests whose texts have the same beginning, by index; every index occurs once."""
LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx")
"""Fields of a config with the maximum number of tokens, in the order in which they are checked."""
USUAL_LENGTH = 2048
"""Maximum number of tokens, if neither config nor tokenizer defines it."""
SAID = 60
"""Maximum number of characters of a text in a message."""


@dataclass(frozen=True)
class Continuation:
    fed: tuple[int, ...]
    """Input tokens of the model."""
    targets: tuple[int, ...]
    """Tokens that the last positions of `fed` predict."""
    lost: int = 0
    """Number of tokens cut off at the beginning of the context."""

    @property
    def first(self) -> int:
        """Position in `fed` that predicts the first target."""
        return len(self.fed) - len(self.targets)


def most_tokens(config: Any, model_folder: Path) -> int:
    """Maximum number of input tokens of a model.

    Args:
        config: transformers' config of the model.
    """
    text = getattr(config, "text_config", None) or config
    for name in LENGTHS:
        if (length := getattr(text, name, None)) is not None:
            return int(length)
    length = read_as_transformers(model_folder).model_max_length
    return int(length) if length < 1e30 else USUAL_LENGTH


def encode_pairs(model_folder: Path, pairs: Sequence[Pair], limit: int) -> list[Continuation]:
    """Tokenize each pair for the model.

    Args:
        limit: maximum number of input tokens.

    Raises:
        ModelError: the tokenizer ends texts with a special token, merges a continuation with its
            context, or has no token to use for an empty context.
        DataError: a continuation has more tokens than the model can read.
    """
    reader = _Reader(model_folder)
    moved = [_with_spaces_moved(pair) for pair in pairs]
    contexts = reader.ids([context for context, _ in moved])
    wholes = reader.ids(
        [f"{context}{following}" if context else following for context, following in moved],
        [not context for context, _ in moved],
    )
    found = []
    for pair, (context, _), own, whole in zip(pairs, moved, contexts, wholes, strict=True):
        if context:
            start, targets = own, whole[len(own) :]
        else:
            start, targets = reader.without_context(whole)
        found.append(_fitted(start, targets, limit, pair))
    return found


def common(requests: Sequence[Continuation], group: Sequence[int]) -> int:
    """Length of the common prefix of a group's texts, in tokens; 0 for a single text."""
    if len(group) < 2:
        return 0
    texts = [requests[i].fed for i in group]
    first, last = min(texts), max(texts)  # all others lie between them in lexicographic order
    differs = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(differs, min(map(len, texts)))


class _Reader:
    """A model's tokenizer, used as in the harness."""

    def __init__(self, model_folder: Path) -> None:
        self._folder = model_folder
        self._tokenizer: Tokenizer = open_tokenizer(model_folder)
        built: Any = read_as_transformers(model_folder)
        bos, eos = built.bos_token_id, built.eos_token_id
        self._prefix: int | None = eos if bos is None else bos
        # a text that begins with this token gets no further special tokens
        self._opening = "" if self._prefix is None else built.decode(self._prefix)
        around = self._tokenizer.encode("a", add_special_tokens=True)
        if around.special_tokens_mask[-1:] == [1]:
            raise ModelError(
                f"the tokenizer of {model_folder} ends every text with {around.tokens[-1]!r}, so "
                "no continuation can follow a context; save it with a template (post_processor in "
                "tokenizer.json) that appends nothing"
            )

    def ids(self, texts: Sequence[str], bare: Sequence[bool] | None = None) -> list[list[int]]:
        """The tokens of each text.

        Args:
            bare: whether each text gets no special tokens; None: all get them.
        """
        without = [
            (bare is not None and bare[i]) or bool(self._opening and text.startswith(self._opening))
            for i, text in enumerate(texts)
        ]
        found: dict[int, list[int]] = {}
        for special in (True, False):
            rows = [i for i, is_bare in enumerate(without) if is_bare is not special]
            read = encodings(self._tokenizer, [texts[i] for i in rows], special=special)
            found |= {i: encoding.ids for i, encoding in zip(rows, read, strict=True)}
        return [found[i] for i in range(len(texts))]

    def without_context(self, targets: list[int]) -> tuple[list[int], list[int]]:
        """Input in place of an empty context, and the remaining targets."""
        if self._prefix is None:
            raise ModelError(
                f"{self._folder} has neither bos_token nor eos_token, and an empty context needs "
                "one of them; set one in tokenizer_config.json"
            )
        if targets[:1] == [self._prefix]:
            return targets[:1], targets[1:]
        return [self._prefix], targets


def _with_spaces_moved(pair: Pair) -> Pair:
    context, following = pair
    bare = context.rstrip()
    return bare, context[len(bare) :] + following


def _fitted(start: list[int], targets: list[int], limit: int, pair: Pair) -> Continuation:
    context, following = (text if len(text) <= SAID else f"{text[:SAID]}…" for text in pair)
    if not targets:
        raise ModelError(
            f"the tokenizer joins {following!r} with the end of {context!r}, so no token is left "
            "to predict; use other tasks"
        )
    if len(targets) > limit:
        raise DataError(
            f"the continuation {following!r} has {len(targets)} tokens, but the model reads at "
            f"most {limit}; use a model with more positions"
        )
    whole = [*start, *targets][-(limit + 1) :]
    lost = len(start) + len(targets) - len(whole)
    return Continuation(tuple(whole[:-1]), tuple(targets), lost)
