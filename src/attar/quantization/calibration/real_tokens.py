"""Selects the values of a tensor that belong to real tokens, of the encoder or the decoder.

Batches are padded; an encoder-decoder has separate masks for the encoder and the decoder. The
masks are set once per batch (`RealTokens`). An observer at a site then selects the values that
count; `Site.tokens` and `Site.keys` say which mask applies.

    tokens (B, T, D)            rows whose mask is not 0
    probabilities (B, H, T, S)  pairs (query, key) that are both real and of the same text; in
                                causal self-attention only keys that are not later than the query
    pooled (B, D)               every row: one per example

Only masks are used, never lengths, so left padding, right padding and several texts packed into one
row all select the same values.
Shape letters: `B` batch, `T` tokens (of queries), `S` tokens of keys, `D` hidden, `H` heads, `N`
values that count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attar.models.structure.site_kinds import StackName
from attar.models.structure.sites import Site
from attar.step import StepContext

TEXTS_KEY = "text_numbers"
"""Optional key of a packed batch, with `RealTokens.texts`. It is not passed to the model."""
DECODER_MASK = "decoder_attention_mask"
"""Optional key of a batch, with the mask of the decoder inputs of an encoder-decoder."""


def texts_of(batch: Mapping[str, Tensor]) -> Tensor:
    """(B, T): 0 at padding, elsewhere the number of the text."""
    return batch[TEXTS_KEY] if TEXTS_KEY in batch else batch["attention_mask"]


@dataclass
class RealTokens:
    """Masks of the current batch. Set before each forward pass and read by the observers.

    `texts` (B, T) is 0 at padding and elsewhere the number of the text: an ordinary attention mask,
    or, for example, 1, 1, 2, 2, 2, 0 with two texts packed into one row.
    """

    texts: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    decoder_texts: Tensor | None = None
    """The same for the decoder inputs; None: the same length as the encoder's, shifted by one."""

    def read(self, batch: Mapping[str, Tensor]) -> None:
        """Set the masks from the next batch."""
        self.texts, self.decoder_texts = texts_of(batch), batch.get(DECODER_MASK)

    def each(
        self,
        batches: Sequence[Mapping[str, Tensor]],
        context: StepContext,
        title: str,
        doing: str = "calibration",
    ) -> Iterator[Mapping[str, Tensor]]:
        """The batches of one pass, each after its masks are set.

        Raises:
            StoppedError: the process was asked to stop.
        """
        with context.progress.task(title, len(batches)) as task:
            for batch in batches:
                context.stop_if_asked(doing)
                self.read(batch)
                yield batch
                task.advance()

    def of(self, site: Site) -> TokensAt:
        """View of the masks for one site."""
        return TokensAt(self, site.tokens, site.keys, site.is_causal)

    def side(self, name: StackName) -> Tensor:
        """`texts` of one stack, (B, T)."""
        is_decoder = name == "decoder" and self.decoder_texts is not None
        return self.decoder_texts if is_decoder else self.texts  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class TokensAt:
    """Selects the values of a site's tensor that belong to real tokens."""

    real: RealTokens
    tokens: StackName
    keys: StackName
    is_causal: bool = False

    def values_of(self, x: Tensor) -> Tensor:
        """The values of `x` at real tokens: (N, D), or (N, H) for probabilities."""
        if x.ndim == 2:
            return x
        texts = self.real.side(self.tokens)
        if x.ndim == 3 and x.shape[:2] == texts.shape:
            return x[texts > 0]
        keys = self.real.side(self.keys)
        if x.ndim == 4 and x.shape[-2:] == (texts.shape[1], keys.shape[1]):
            is_pair = (texts[:, :, None] == keys[:, None, :]) & (texts > 0)[:, :, None]
            return x.movedim(1, -1)[is_pair.tril() if self.is_causal else is_pair]
        raise ValueError(
            f"a site has shape {tuple(x.shape)}, the batch's masks {tuple(texts.shape)} and "
            f"{tuple(keys.shape)}"
        )
