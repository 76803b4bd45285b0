"""`outlier_tokens`: which words carry the largest values of the outlier dimensions.

An outlier dimension is large in nearly every token; far larger still it is in a few, and they are
always of the same kind: separators, full stops, frequent words. That is why a share of tokens, not
of values, can be clipped at little cost. At every norm where a dimension is an outlier the
`top_share` of tokens with the largest |y_j| is taken, and the words among them are counted:

    share = carriers that are this word / all carriers      lift = share / (its share of all tokens)

`any` in place of a dimension: the largest max_j |y_j| of a token, over all norms.
Source: Outlier Suppression (Wei et al. 2022), figure 10 and appendix D.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from attar.analysis.config import OutlierTokensStep
from attar.analysis.criteria import deviations, outlying
from attar.analysis.norms import norms_of
from attar.analysis.studies.outliers import shared_dimensions
from attar.analysis.study import Finding
from attar.analysis.subject import Subject, open_subject
from attar.errors import ModelError
from attar.models.structure.sites import Site
from attar.step import StepContext

WORDS_SHOWN = 8
"""Words listed for each dimension."""
ANY = "any"


class _Magnitudes:
    """|y_j| of every real token for some dimensions, and max_j |y_j|, in the order of reading."""

    def __init__(self, dimensions: Sequence[int]) -> None:
        self.dimensions, self.pieces = list(dimensions), []

    def see(self, values: Tensor) -> None:
        sizes = values.abs().float()
        self.pieces.append(torch.cat([sizes[:, self.dimensions], sizes.amax(1, True)], dim=1))

    def of(self, dimension: int | str) -> Tensor:
        """(N,)"""
        column = -1 if dimension == ANY else self.dimensions.index(int(dimension))
        return torch.cat(self.pieces)[:, column]


def outlier_tokens(config: OutlierTokensStep, context: StepContext) -> Finding:
    """The words that carry each outlier dimension, the most frequent carriers first.

    Raises:
        ModelError: the model has several stacks, whose tokens are not the same.
    """
    subject = open_subject(config, context)
    norms = norms_of(subject.model)
    if len({norm.site.stack for norm in norms}) > 1:
        raise ModelError(
            f"study outlier_tokens follows the tokens of one stack, model {config.model!r} has an "
            'encoder and a decoder; use study = "outliers", which tells them apart'
        )
    off = deviations(config.criterion, norms, subject)
    found = {norm.site: outlying(off[norm.site]) for norm in norms}
    shared = shared_dimensions(norms, found, off)[: config.dimensions]
    dimensions = [int(row["dimension"]) for row in shared]
    sizes = {norm.site: _Magnitudes(dimensions) for norm in norms}
    subject.watch({site: each.see for site, each in sizes.items()}, "values of tokens")
    ids = token_ids(subject)
    words = Tokenizer.from_file(str(subject.loaded.folder / "tokenizer.json"))
    having = {j: [site for site in found if j in found[site]] for j in dimensions}
    rows = [
        row
        for dimension, sites in ({ANY: list(found)} | having).items()
        for row in _carriers(dimension, sites, sizes, ids, words, config.top_share)
    ]
    facts = {
        "criterion": config.criterion,
        "top_share": config.top_share,
        "examples": subject.num_examples,
        "tokens": len(ids),
    }
    first = {str(row["dimension"]): row["token"] for row in reversed(rows)}
    return Finding(facts, {"rows": rows}, {"outlier_dimensions": dimensions, "carriers": first})


def token_ids(subject: Subject) -> Tensor:
    """The real tokens of all texts in the order in which a watcher sees them, (N,)."""
    return torch.cat([b["input_ids"][b["attention_mask"] > 0] for b in subject.batches])


def _carriers(
    dimension: int | str,
    sites: Sequence[Site],
    sizes: Mapping[Site, _Magnitudes],
    ids: Tensor,
    words: Tokenizer,
    top_share: float,
) -> list[dict[str, Any]]:
    """The words among the largest values of a dimension, pooled over norms."""
    count = max(1, round(top_share * len(ids)))
    carried: Counter[int] = Counter()
    magnitude: dict[int, list[float]] = {}
    for site in sites:
        values, places = sizes[site].of(dimension).topk(count)
        carried.update(ids[places].tolist())
        for word, value in zip(ids[places].tolist(), values.tolist(), strict=True):
            magnitude.setdefault(word, []).append(value)
    everywhere = Counter(ids.tolist())
    ranks = {word: rank for rank, (word, _) in enumerate(everywhere.most_common(), start=1)}
    return [
        {
            "dimension": dimension,
            "norms": len(sites),
            "token": words.id_to_token(word) or f"#{word}",
            "share": times / carried.total(),
            "share_of_tokens": everywhere[word] / len(ids),
            "frequency_rank": ranks[word],
            "mean_magnitude": sum(magnitude[word]) / len(magnitude[word]),
        }
        for word, times in carried.most_common(WORDS_SHOWN)
    ]
