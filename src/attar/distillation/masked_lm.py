"""Batched queries of a masked language model for thousands of words.

Every (text, masked word) is a row. Rows of similar length share a batch of about `batch_tokens`
tokens, and between body and head all tokens except the masked one are dropped, so that the head
runs once per row. The results are the same as with one pass per word.

A word of several tokens has no single position to mask. Its candidates are its neighbours in the
embedding table, by the cosine between a token's row and the mean of the word's rows.

Shapes: R rows (masked words), T tokens, D hidden, V vocabulary; `top` words per query.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.data.batches import token_batches
from attar.distillation.words import ReadText, Word
from attar.errors import ModelError

WORDS_AT_ONCE = 1024
"""Number of words of several tokens that are compared with the vocabulary at once."""


@dataclass(frozen=True)
class Request:
    """A query for replacements of one word in one text."""

    text: ReadText
    number: int
    """Index of the word in its text."""

    @property
    def word(self) -> Word:
        return self.text.words[self.number]


class MaskedLm:
    """A masked language model, with the tokens that can replace a word.

    Args:
        fits_2V: bool (2, V); see `WordReader.whole_words`.
        batch_tokens: number of tokens in a forward pass, including padding.
        bf16: compute in bf16, in a copy of the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        fits_2V: np.ndarray,
        *,
        mask_id: int,
        pad_id: int,
        top: int,
        batch_tokens: int,
        bf16: bool = False,
    ) -> None:
        fewest = int(fits_2V.sum(axis=1).min())
        if fewest <= top:
            raise ModelError(
                f"top is {top}, but the tokenizer has only {fewest} whole-word tokens; set top = "
                f"{max(fewest - 1, 1)} or less"
            )
        if bf16:
            # bf16 throughout instead of autocast: casting weights and activations took a quarter of
            # the time, and nothing is trained here that would need float32
            model = cast(PreTrainedModel, copy.deepcopy(model).to(torch.bfloat16))  # pyright: ignore[reportArgumentType]
        self.model, self.device = model.eval(), model.device
        self._fits_2V = torch.from_numpy(fits_2V).to(self.device)
        self._mask_id, self._pad_id, self._top = mask_id, pad_id, top
        self._batch_tokens = batch_tokens
        self.num_forwards = 0

    def batches(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Indices of the requests of each forward pass, short texts first."""
        lengths = np.array([len(request.text.ids) for request in requests])
        return (batch.tolist() for batch in token_batches(lengths, self._batch_tokens))

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request]) -> np.ndarray:
        """The `top` most likely words in place of each word, best first, excluding the word itself:
        token ids, int64 (R, top).

        Raises:
            ModelError: the model does not return scores for a single position.
        """
        width = max(len(request.text.ids) for request in requests)
        ids_RT = torch.full((len(requests), width), self._pad_id, dtype=torch.int64)
        mask_RT = torch.zeros_like(ids_RT)
        for row, request in enumerate(requests):
            length = len(request.text.ids)
            ids_RT[row, :length] = torch.from_numpy(request.text.ids)
            mask_RT[row, :length] = 1
        positions_R = torch.tensor([request.word.position for request in requests])
        ids_RT[torch.arange(len(requests)), positions_R] = self._mask_id
        scores_RV = self._scores(ids_RT, mask_RT, positions_R)
        own_R = torch.tensor([request.word.pieces[0] for request in requests])
        return self._best(scores_RV, requests, own_R)

    def _scores(self, ids_RT: Tensor, mask_RT: Tensor, positions_R: Tensor) -> Tensor:
        inputs = {"input_ids": ids_RT.to(self.device), "attention_mask": mask_RT.to(self.device)}
        with _only_at(self.model, positions_R.to(self.device)):
            scores_R1V: Tensor = self.model(**inputs).logits
        self.num_forwards += 1
        if scores_R1V.shape[:2] != (len(ids_RT), 1):
            raise ModelError(
                f"{type(self.model).__name__} returned scores of shape {tuple(scores_R1V.shape)} "
                f"for one place in each of {len(ids_RT)} texts; use another masked language model, "
                "such as bert-base-uncased"
            )
        return scores_R1V[:, 0].float()

    @cached_property
    def _embeddings(self) -> tuple[Tensor, Tensor]:
        """The embedding table in float32, (V, D), and the same with rows normalized to length 1."""
        table: Any = self.model.get_input_embeddings()
        table_VD: Tensor = table.weight.detach().float()[: self._fits_2V.shape[1]]
        return table_VD, nn.functional.normalize(table_VD, dim=1)

    def _best(self, scores_RV: Tensor, requests: Sequence[Request], own_R: Tensor) -> np.ndarray:
        spaces_R = torch.tensor([int(request.word.after_space) for request in requests])
        scores_RV = scores_RV.masked_fill(~self._fits_2V[spaces_R.to(self.device)], -torch.inf)
        scores_RV.scatter_(1, own_R.to(self.device)[:, None], -torch.inf)
        return scores_RV.topk(self._top, dim=1).indices.cpu().numpy()

    @torch.inference_mode()
    def neighbours(self, requests: Sequence[Request]) -> np.ndarray:
        """The `top` nearest words in the embedding table: token ids, int64 (R, top)."""
        table_VD, unit_VD = self._embeddings
        found: list[np.ndarray] = []
        for begin in range(0, len(requests), WORDS_AT_ONCE):
            part = requests[begin : begin + WORDS_AT_ONCE]
            pieces = [torch.tensor(request.word.pieces).to(self.device) for request in part]
            mean_RD = torch.stack([table_VD[ids].mean(dim=0) for ids in pieces])
            cosine_RV = nn.functional.normalize(mean_RD, dim=1) @ unit_VD.t()
            own_R = torch.tensor([request.word.pieces[0] for request in part])
            found.append(self._best(cosine_RV, part, own_R))
        return np.concatenate(found)


@contextmanager
def _only_at(model: PreTrainedModel, positions_R: Tensor) -> Iterator[None]:
    """While active, the body passes only one token of each text to the head."""

    def keep_one(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        hidden_RTD: Tensor = output.last_hidden_state
        rows_R = torch.arange(len(positions_R), device=positions_R.device)
        output.last_hidden_state = hidden_RTD[rows_R, positions_R][:, None]
        return output

    handle = model.base_model.register_forward_hook(keep_one)
    try:
        yield
    finally:
        handle.remove()
