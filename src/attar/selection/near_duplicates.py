"""Find chunks that nearly repeat an earlier one, with MinHash.

Two texts are near duplicates if their sets of word 5-grams have a Jaccard similarity |A ∩ B| / |A ∪
B| of at least a threshold. The share of equal entries in two MinHash signatures of 128 values
estimates it (standard error ≤ 0.044, Broder 1997); signatures are compared only if one of their
bands is equal. A text of fewer than five words is a single gram.

Cost: about 4 kB of memory per chunk, mostly for the index of its 32 bands, and 0.1 ms for 200 words
on one core: 4 GB and two minutes for a million chunks. For larger corpora, remove duplicate
documents before tokenizing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from attar.extras import require

PERMUTATIONS, BANDS = 128, 32
"""Each band has 4 values: texts with similarity s are compared with probability 1 − (1 − s⁴)³²;
0.99 at 0.6."""
GRAM = 5
SEED = 0


def near_duplicates(texts: Iterable[str], threshold: float) -> Iterator[int | None]:
    """For each text, the number of the first earlier text that it nearly repeats; None: it is new.

    A text that repeats another is not compared with later ones, so in a chain of copies each is
    matched with the first.
    """
    rensa = require("rensa", "corpus")
    index = rensa.RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=BANDS)
    signatures: dict[int, Any] = {}
    for number, text in enumerate(texts):
        signature = rensa.RMinHash(num_perm=PERMUTATIONS, seed=SEED)
        signature.update(grams(text))
        candidates = sorted(index.query(signature))
        found = next((c for c in candidates if signatures[c].jaccard(signature) >= threshold), None)
        if found is None:
            index.insert(number, signature)
            signatures[number] = signature
        yield found


def grams(text: str) -> list[str]:
    """The distinct word 5-grams of a text, in lower case."""
    words = text.lower().split()
    return list(
        dict.fromkeys(
            " ".join(words[begin : begin + GRAM]) for begin in range(max(1, len(words) - GRAM + 1))
        )
    )


def similarity(left: str, right: str) -> float:
    """Exact Jaccard similarity of two texts' word 5-grams.

    Example:
        >>> similarity("a b c d e f", "A b c d e g")
        0.3333333333333333
    """
    one, two = set(grams(left)), set(grams(right))
    return len(one & two) / len(one | two)
