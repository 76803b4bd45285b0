"""Diversity of the kept chunks: the Vendi score of a sample, before and after the selection.

The samples have the same size: from all scored chunks, from the kept ones, and, if fewer are kept
than a sample needs, a random sample of that smaller size from all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.scoring.config import Diversity
from attar.scoring.diversity import scored_with_interval, text_embeddings
from attar.seeds import generator
from attar.selection.fates import KEPT, Selection
from attar.step import StepContext


def diversity(
    config: Diversity,
    context: StepContext,
    corpus: Corpus,
    selection: Selection,
    seed: int,
) -> dict[str, Any]:
    """Vendi scores, each with its confidence interval and sample size.

    Raises:
        AttarError: the encoder cannot be used.
    """
    samples = _samples(config.chunks, selection.fate == KEPT, seed)
    wanted = np.unique(np.concatenate(list(samples.values())))
    sampled = CorpusView(corpus, kept=selection.scored.details(wanted).row)
    embeddings = text_embeddings(config, context, list(sampled.all_texts()))
    scores = {
        name: scored_with_interval(embeddings[np.searchsorted(wanted, sample)])
        for name, sample in samples.items()
    }
    return {"model": config.model, "max_length": config.max_length, **scores}


def _samples(most: int, is_kept: NDArray[np.bool_], seed: int) -> dict[str, NDArray[np.int64]]:
    """Indices of the sampled chunks; `all` and `random` are disjoint if there are enough chunks."""
    order = generator(seed, "diversity").permutation(len(is_kept))
    kept = order[is_kept[order]][:most]
    return {"all": order[:most], "kept": kept, "random": order[::-1][: len(kept)]}
