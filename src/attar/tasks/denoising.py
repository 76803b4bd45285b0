"""How much of a text span corruption hides: exact counts, before anything is sampled.

A denoiser hides some spans of a text. The encoder reads the text with a sentinel in place of each
span; the decoder writes each sentinel followed by the span. Both sequences end with an end token.
For t tokens of text, with density ρ and mean span μ:

    hidden  = round(ρ · t)                       inputs  = t − hidden + spans + 1
    spans   = round(hidden / μ)                  targets = hidden + spans + 1

For a model that reads n tokens, t is the largest number of tokens whose inputs are at most n: with
ρ = 0.15, μ = 3 and n = 512, t is 568, and there are 114 targets. No padding is needed.

Source: Raffel et al. 2020 (arXiv 1910.10683), section 3.1.4 and the code published with it; the
mixtures of denoisers are UL2's (Tay et al. 2022, arXiv 2205.05131).

*Differs from the paper*: there are never more spans than visible tokens, which the formulas would
give at densities near 1; UL2's S-denoiser uses the same sentinel as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from attar.config import Config


@dataclass(frozen=True)
class Hidden:
    """How much of a text a denoiser hides."""

    tokens: int
    spans: int


class Denoiser(Config):
    """One kind of corruption."""

    share: float = Field(default=1.0, gt=0)
    """Share of the texts, relative to the shares of the other denoisers."""
    noise_density: float = Field(default=0.15, gt=0, lt=1)
    """Share of a text's tokens to hide."""
    mean_span: Annotated[float, Field(ge=1)] | Literal["suffix"] = 3.0
    """Mean number of tokens in a hidden span; "suffix": one span, at the end of the text, as for a
    prefix language model."""
    prefix: str | None = Field(default=None, min_length=1, max_length=100)
    """A token that the model reads first and that identifies the kind of corruption; None: no such
    token."""

    def hidden(self, tokens: int) -> Hidden:
        """How much of a text with this many tokens is hidden; a text of one token is hidden
        entirely.
        """
        hidden = max(min(round(tokens * self.noise_density), tokens - 1), 1)
        spans = 1 if self.mean_span == "suffix" else round(hidden / self.mean_span)
        return Hidden(hidden, max(min(spans, tokens - hidden), 1))

    def inputs(self, tokens: int) -> int:
        """Number of tokens that the encoder reads."""
        hidden = self.hidden(tokens)
        return tokens - hidden.tokens + hidden.spans + 1 + (self.prefix is not None)

    def targets(self, tokens: int) -> int:
        """Number of tokens that the decoder writes.

        Example:
            >>> Denoiser().inputs(568), Denoiser().targets(568)
            (512, 114)
        """
        hidden = self.hidden(tokens)
        return hidden.tokens + hidden.spans + 1


PUBLISHED = (Denoiser(),)
"""T5's corruption: 15 % of the tokens, in spans of 3 on average."""


def raw_tokens(denoisers: Sequence[Denoiser], max_length: int) -> int:
    """The most tokens of text for which no denoiser gives more than `max_length` inputs.

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
    """Number of sentinels needed for texts of at most this many tokens."""
    return max(denoiser.hidden(tokens).spans for denoiser in denoisers)


def mean_lengths(denoisers: Sequence[Denoiser], tokens: int) -> tuple[float, float]:
    """Mean numbers of inputs and targets over the denoisers, for texts of this many tokens."""
    total = sum(denoiser.share for denoiser in denoisers)
    inputs = sum(denoiser.share * denoiser.inputs(tokens) for denoiser in denoisers)
    targets = sum(denoiser.share * denoiser.targets(tokens) for denoiser in denoisers)
    return inputs / total, targets / total
