"""How much of a text is hidden by span corruption: exact counts, before anything is drawn.

A denoiser hides some spans of a text. The encoder reads the text with a sentinel in the place of
each span; the decoder writes each sentinel and what it stood for. An end token follows on both
sides. Of t tokens of text, with density ρ and mean span μ:

    hidden  = round(ρ · t)                       inputs  = t − hidden + spans + 1
    spans   = round(hidden / μ)                  targets = hidden + spans + 1

So a model that reads n tokens is given the most tokens of text whose inputs are at most n: with
ρ = 0.15 and μ = 3, 568 for 512, and 114 to write. No token of padding is needed.

Source: Raffel et al. 2020 (arXiv 1910.10683), section 3.1.4 and the code published with it; the
mixtures of denoisers are UL2's (Tay et al. 2022, arXiv 2205.05131).
*Differs from the paper*: there are never more spans than tokens that stay, which at densities
near 1 the formulas would ask for; UL2's S-denoiser has the same sentinel as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from attar.config import Config


@dataclass(frozen=True)
class Hidden:
    """What a denoiser hides of a text."""

    tokens: int
    spans: int


class Denoiser(Config):
    """One kind of corruption."""

    share: float = Field(default=1.0, gt=0)
    """Of the texts, in relation to the shares of the other denoisers."""
    noise_density: float = Field(default=0.15, gt=0, lt=1)
    """Share of a text's tokens that is hidden."""
    mean_span: Annotated[float, Field(ge=1)] | Literal["suffix"] = 3.0
    """Tokens of a hidden span on average; "suffix": one span, at the end of the text, as for a
    prefix language model."""
    prefix: str | None = Field(default=None, min_length=1, max_length=100)
    """A token that the model reads first, which tells it the kind of corruption; None: none."""

    def hidden(self, tokens: int) -> Hidden:
        """How much of a text of so many tokens is hidden; a text of one token is hidden whole."""
        hidden = max(min(round(tokens * self.noise_density), tokens - 1), 1)
        spans = 1 if self.mean_span == "suffix" else round(hidden / self.mean_span)
        return Hidden(hidden, max(min(spans, tokens - hidden), 1))

    def inputs(self, tokens: int) -> int:
        """Tokens that the encoder reads of such a text."""
        hidden = self.hidden(tokens)
        return tokens - hidden.tokens + hidden.spans + 1 + (self.prefix is not None)

    def targets(self, tokens: int) -> int:
        """Tokens that the decoder writes.

        Example:
            >>> Denoiser().inputs(568), Denoiser().targets(568)
            (512, 114)
        """
        hidden = self.hidden(tokens)
        return hidden.tokens + hidden.spans + 1


PUBLISHED = (Denoiser(),)
"""T5's: 15 % of the tokens, in spans of 3 on average."""


def raw_tokens(denoisers: Sequence[Denoiser], max_length: int) -> int:
    """Tokens of text that fill `max_length` inputs, with the denoiser that leaves the most.

    Args:
        max_length: at least 8.

    Example:
        >>> [raw_tokens(PUBLISHED, length) for length in (128, 256, 512)]
        [141, 284, 568]
    """
    tokens = 1
    while all(denoiser.inputs(tokens + 1) <= max_length for denoiser in denoisers):
        tokens += 1
    return tokens


def most_spans(denoisers: Sequence[Denoiser], tokens: int) -> int:
    """Sentinels that are needed for texts of at most so many tokens."""
    return max(denoiser.hidden(tokens).spans for denoiser in denoisers)


def mean_lengths(denoisers: Sequence[Denoiser], tokens: int) -> tuple[float, float]:
    """Inputs and targets of texts of so many tokens, on average over the denoisers."""
    total = sum(denoiser.share for denoiser in denoisers)
    inputs = sum(denoiser.share * denoiser.inputs(tokens) for denoiser in denoisers)
    targets = sum(denoiser.share * denoiser.targets(tokens) for denoiser in denoisers)
    return inputs / total, targets / total
