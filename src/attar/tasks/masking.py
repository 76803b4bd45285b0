"""How running text is masked for masked language modelling. Imports no torch.

Of the tokens of a text, excluding special tokens, `density` are predicted. BERT replaces them in
three ways, so that the model also learns to represent plain words when there is no [MASK]:

    80 %  the mask token        10 %  a random token        10 %  the token itself

Source: Devlin et al. 2019, "BERT" (arXiv 1810.04805), section 3.1; whole words: its later models.
"""

from __future__ import annotations

from pydantic import Field

from attar.config import Config

MASKED, RANDOM = 0.8, 0.1
"""Shares of the predicted tokens; the rest is left unchanged."""


class Masking(Config):
    """Which tokens of a text are predicted."""

    density: float = Field(default=0.15, gt=0, lt=1)
    """Share of a text's tokens to predict."""
    whole_words: bool = False
    """Predict either all tokens of a word or none of them."""
