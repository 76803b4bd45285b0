"""Distinct-n: how many of the n-grams of some texts are different ones (Li et al.,
arXiv 1510.03055).

    distinct-n = different n-grams / all n-grams            over all texts together

1: none is repeated. It falls as the texts grow, so only as many texts of the same lengths can be
compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def distinct_ratio(texts: Sequence[NDArray[np.integer]], n: int) -> float | None:
    """Distinct-n of token ids; None: no text has n tokens.

    Example:
        >>> distinct_ratio([np.array([1, 2, 1, 2])], 1), distinct_ratio([np.array([1, 2, 1, 2])], 2)
        (0.5, 0.6666666666666666)
    """
    long_enough = [text for text in texts if len(text) >= n]
    if not long_enough:
        return None
    tokens = np.concatenate(long_enough)
    begins = np.concatenate([[0], np.cumsum([len(text) for text in long_enough])])
    is_whole = np.ones(len(tokens), np.bool_)  # whether an n-gram from here ends in the same text
    for back in range(1, n):
        is_whole[begins[1:] - back] = False
    names = np.unique(tokens, return_inverse=True)[1].astype(np.int64)
    number_of_tokens = int(names.max()) + 1
    grams = names
    for place in range(1, n):  # an n-gram is an (n − 1)-gram, by its number, and a token
        longer = grams[:-1] * number_of_tokens + names[place:]
        grams = np.unique(longer, return_inverse=True)[1].astype(np.int64)
    found = grams[is_whole[: len(grams)]]
    return len(np.unique(found)) / len(found)
