"""Classification with label words: the log-likelihood of each class's word under a language model.

The problem: a language model generates words, and a metric needs classes. The idea: give each class
a word, and use the word's log-likelihood as the class's score,

    score_c = Σ_s log p(w_{c,s} | input, w_{c,<s})        [ / number of tokens of w_c, if set ]

    decoder           input = the prompt's tokens; the word follows after a space. A long prompt is
                      truncated at its beginning, so that the question at its end remains
    encoder-decoder input = the source, encoded once for all candidates; the word is a target with
                      the tokenizer's special tokens, as in training

A row's texts are formatted with a template from the model's task or from a study.

The model reads all tokens of a candidate except the last. If that is a prefix of what another
candidate needs, one pass serves both: all candidates of one token together take a single pass of
the prompt. Equal words have equal scores; argmax takes the first.

Not included: normalization by a prior (log p of the word after an empty prompt).

Letters: B texts · T input tokens · C candidates · S tokens of a candidate · G distinct inputs · V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.prompts import INPUTS, prompts
from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import ModelError
from attar.models.generation import start_of
from attar.scoring.in_memory import evaluating
from attar.scoring.rows import Batch, Scorer
from attar.special_tokens import open_tokenizer
from attar.tasks.task import Task, filled


@dataclass(frozen=True)
class Candidates:
    """Tokenized candidates."""

    ids: tuple[tuple[int, ...], ...]
    """C rows of at least one token each."""

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """Input sequences for the candidates: each without its last token, leaving out prefixes of
        others.

        Example:
            >>> Candidates(((5,), (7,), (7, 8, 9))).inputs
            ((7, 8),)
        """
        fed = list(dict.fromkeys(ids[:-1] for ids in self.ids))
        return tuple(
            one
            for one in fed
            if not any(other != one and other[: len(one)] == one for other in fed)
        )

    @property
    def input_of(self) -> tuple[int, ...]:
        """For each candidate, the row of `inputs` that begins with its input, (C,)."""
        rows = self.inputs
        return tuple(
            next(i for i, row in enumerate(rows) if row[: len(ids) - 1] == ids[:-1])
            for ids in self.ids
        )


@dataclass(frozen=True)
class LabelWords:
    """A template and the label words of the classes, tokenized for one model."""

    template: str
    """Format of a row's texts, with the placeholders {0} and {1}."""
    candidates: Candidates
    """The tokenized label words."""

    @classmethod
    def of(cls, model: PreTrainedModel, folder: Path, template: str, words: Sequence[str]) -> Self:
        """Tokenize label words for a model.

        Raises:
            ModelError: a word has no token, or is merged with the end of the template.
        """
        tokenizer = open_tokenizer(folder)
        if model.config.is_encoder_decoder:
            return cls(template, target_candidates(tokenizer, words))
        return cls(template, following_candidates(tokenizer, words, template))

    @classmethod
    def of_task(cls, model: PreTrainedModel, folder: Path, task: Task | None) -> Self | None:
        """The label words of a model's task; None: it has none."""
        if task is None or not task.label_words:
            return None
        return cls.of(model, folder, task.template, task.label_words)

    def render(self, texts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Fill each row into the template.

        Raises:
            DataError: the template refers to a text that a row does not have.
        """
        return [(filled(self.template, row),) for row in texts]

    def encode(
        self,
        model: PreTrainedModel,
        folder: Path,
        texts: Sequence[tuple[str, ...]],
        max_length: int,
    ) -> Encoded:
        """Tokenize rows for the model, so that each has at most `max_length` tokens including a
        label word.
        """
        rendered = self.render(texts)
        if model.config.is_encoder_decoder:
            return TextEncoder.from_folder(folder, max_length, INPUTS).encode(rendered)
        room = max_length - max(map(len, self.candidates.inputs))
        return prompts(folder, [text for (text,) in rendered], room)


def label_word_scores(
    model: PreTrainedModel, candidates: Candidates, *, per_token: bool = False
) -> Scorer:
    """Log-likelihood of each label word after each row, float32 (B, C)."""

    def answer(batch: Batch) -> np.ndarray:
        with evaluating(model):
            ids, mask = (
                torch.from_numpy(batch[name]).to(model.device)
                for name in ("input_ids", "attention_mask")
            )
            return word_scores(model, candidates, ids, mask, per_token=per_token).cpu().numpy()

    return answer


def target_candidates(tokenizer: Tokenizer, words: Sequence[str]) -> Candidates:
    """Words as targets of an encoder-decoder, including special tokens."""
    return _checked([_ids(tokenizer, word, special=True) for word in words], words)


def following_candidates(
    tokenizer: Tokenizer, words: Sequence[str], template: str = "{0}"
) -> Candidates:
    """Words as they follow a prompt, after one space.

    They are cut from the tokens of a whole text, because some tokenizers treat the beginning of a
    text differently.

    Raises:
        ModelError: the template ends in a space, which belongs to the word; or the tokenizer merges
            a word with the text before it.
    """
    if template != template.rstrip():
        raise ModelError(
            f"template {template!r} ends in a space, which the label words already start with: "
            f"write {template.rstrip()!r}"
        )
    before = template.format("x", "x")
    head = _ids(tokenizer, before, special=False)
    rows: list[tuple[int, ...]] = []
    for word in words:
        whole = _ids(tokenizer, f"{before} {word}", special=False)
        if whole[: len(head)] != head:
            raise ModelError(
                f"the tokenizer joins {word!r} with the end of the template {template!r}; end it "
                "with another character, such as a colon"
            )
        rows.append(whole[len(head) :])
    return _checked(rows, words)


def word_scores(
    model: PreTrainedModel,
    candidates: Candidates,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    per_token: bool = False,
) -> Tensor:
    """Log-likelihood of every candidate after every row, float32 (B, C).

    Args:
        input_ids, attention_mask: (B, T), padded on the right: prompts, or an encoder's sources.
        per_token: divide by the candidate's number of tokens, so that long words have no
            disadvantage.
    """
    fed = candidates.inputs
    longest = max(map(len, fed))
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in fed], dtype=torch.int64)
    scored = _after_source if model.config.is_encoder_decoder else _after_prompt
    log_p = scored(model, padded.to(input_ids.device), input_ids, attention_mask)
    scores = []
    for ids, row in zip(candidates.ids, candidates.input_of, strict=True):
        words = torch.tensor(ids, device=log_p.device)
        steps = log_p[:, row, : len(ids)]  # (B, S, V)
        total = steps.gather(2, words.expand(len(steps), -1)[..., None]).sum(dim=(1, 2))
        scores.append(total / len(ids) if per_token else total)
    return torch.stack(scores, dim=1)


def _after_source(
    model: PreTrainedModel, fed: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """log p of each next token, (B, G, S, V), from an encoder-decoder with these sources."""
    texts, inputs = len(input_ids), len(fed)
    encoder: Any = model.get_encoder()
    states = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    start = torch.full((inputs, 1), start_of(model), dtype=torch.int64, device=fed.device)
    logits = model(
        encoder_outputs=(states.repeat_interleave(inputs, dim=0),),
        attention_mask=attention_mask.repeat_interleave(inputs, dim=0),
        decoder_input_ids=torch.cat([start, fed], dim=1).repeat(texts, 1),
        use_cache=False,
    ).logits
    return logits.float().log_softmax(dim=-1).unflatten(0, (texts, inputs))


def _after_prompt(
    model: PreTrainedModel, fed: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """log p of each next token, (B, G, S, V), from a decoder after these prompts."""
    texts, inputs, steps = len(input_ids), len(fed), fed.shape[1] + 1
    lengths = attention_mask.sum(dim=1)
    ids = torch.nn.functional.pad(input_ids, (0, fed.shape[1])).repeat_interleave(inputs, dim=0)
    places = lengths[:, None] - 1 + torch.arange(steps, device=fed.device)  # (B, S)
    spread = places.repeat_interleave(inputs, dim=0)
    ids = ids.scatter(1, spread[:, 1:], fed.repeat(texts, 1))
    mask = (torch.arange(ids.shape[1], device=fed.device) <= spread[:, -1:]).to(torch.int64)
    first = int(places.min())
    kept = torch.arange(first, int(places.max()) + 1, device=fed.device)
    logits = model(
        input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False
    ).logits.float()
    at = (spread - first)[..., None].expand(-1, -1, logits.shape[-1])
    return logits.gather(1, at).log_softmax(dim=-1).unflatten(0, (texts, inputs))


def _ids(tokenizer: Tokenizer, text: str, *, special: bool) -> tuple[int, ...]:
    """The tokens of a short text, without any padding that the tokenizer adds."""
    encoding = tokenizer.encode(text, add_special_tokens=special)
    real = zip(encoding.ids, encoding.attention_mask, strict=True)
    return tuple(token for token, is_real in real if is_real)


def _checked(rows: Sequence[tuple[int, ...]], words: Sequence[str]) -> Candidates:
    empty = [word for word, row in zip(words, rows, strict=True) if not row]
    if empty or not words:
        raise ModelError(
            f"the label words {list(words)} cannot be scored: {empty} have no token; every class "
            "needs a label word"
        )
    return Candidates(tuple(rows))
