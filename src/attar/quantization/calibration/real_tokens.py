"""Which values of a tensor count: those of real tokens, on the side of the model they belong to.

A batch is padded, and an encoder-decoder is padded on both sides, each with a mask of its own.
Whoever runs a batch sets both masks once (`RealTokens`); whoever looks at a site asks for the
values that count there, and the site says whose tokens they are (`Site.tokens`, `Site.keys`).

    tokens (B, T, D)            rows whose mask is not 0
    probabilities (B, H, T, S)  pairs (query, key) that are both real and of the same text; in a
                                decoder's own attention only keys that are not later than the query
    pooled (B, D)               every row: one an example

Masks alone say what is real, never lengths, so that left padding, right padding and several texts
packed in one row all give the same values.
Shape letters: `B` batch, `T` tokens (of queries), `S` tokens of keys, `D` hidden, `H` heads, `N`
values that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attar.models.structure.site_kinds import StackName
from attar.models.structure.sites import Site

TEXTS_KEY = "text_numbers"
"""Optional entry of a batch of packed texts: `RealTokens.texts`. It is not given to the model."""
DECODER_MASK = "decoder_attention_mask"
"""Optional entry of a batch: the mask of what the decoder of an encoder-decoder reads."""


def texts_of(batch: Mapping[str, Tensor]) -> Tensor:
    """(B, T): 0 at padding, the number of the text elsewhere."""
    return batch[TEXTS_KEY] if TEXTS_KEY in batch else batch["attention_mask"]


@dataclass
class RealTokens:
    """Which tokens of the batch in flight count; set before each forward pass, read by observers.

    `texts` (B, T) is 0 at padding and the number of the text elsewhere: an attention mask as it is,
    or, with several texts packed in a row, 1, 1, 2, 2, 2, 0.
    """

    texts: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    decoder_texts: Tensor | None = None
    """The same of what a decoder reads; None: as many tokens as the encoder, shifted by one."""

    def read(self, batch: Mapping[str, Tensor]) -> None:
        """Take over the masks of the batch that is run next."""
        self.texts, self.decoder_texts = texts_of(batch), batch.get(DECODER_MASK)

    def of(self, site: Site) -> TokensAt:
        """The same masks, as one site needs them."""
        return TokensAt(self, site.tokens, site.keys, site.is_causal)

    def side(self, name: StackName) -> Tensor:
        """The texts of one side, (B, T)."""
        is_decoder = name == "decoder" and self.decoder_texts is not None
        return self.decoder_texts if is_decoder else self.texts  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class TokensAt:
    """Which values of a site's tensor count."""

    real: RealTokens
    tokens: StackName
    keys: StackName
    is_causal: bool = False

    def values_of(self, x: Tensor) -> Tensor:
        """The values of `x` that belong to real tokens: (N, D), (N, H) for probabilities."""
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
