"""Which chunks a score step scores: those of a part, or a random sample of them.

Every chunk of the part has a random key, a pure function of (seed, shard, place), and the sample
has the largest keys. So it is uniform and without replacement; two steps with equal settings score
the same chunks; and a larger sample contains a smaller one. Memory: one shard.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attar.data.corpus.token_store import PARTS, Corpus
from attar.numerics.selection import cut_of, ordered
from attar.seeds import generator


def rows_to_score(
    corpus: Corpus, part: str, chunks: int | None, seed: int
) -> Callable[[int], NDArray[np.int64]]:
    """Number of a shard → its rows to be scored, rising.

    Args:
        chunks: of the sample; None, or as many as there are: all.
    """

    def of_part(shard: int) -> NDArray[np.int64]:
        return np.flatnonzero(np.asarray(corpus.shards[shard].part) == PARTS.index(part))

    def keys(shard: int) -> NDArray[np.float32]:
        return generator(seed, "sample", shard).random(len(of_part(shard)), np.float32)

    shards = range(len(corpus.shards))
    if chunks is None or chunks >= sum(len(of_part(shard)) for shard in shards):
        return of_part
    cut = cut_of(lambda: map(keys, shards), chunks)
    ties = np.cumsum([0, *(int((ordered(keys(shard)) == cut.key).sum()) for shard in shards)])
    return lambda shard: of_part(shard)[cut.keeps(keys(shard), int(ties[shard]))]
