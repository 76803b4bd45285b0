"""`outlier_tokens`: the tokens with the largest values of the outlier dimensions.

At every place where a dimension is an outlier, the `top_share` of tokens with the largest |y_j| are
the carriers. They are counted by token id:

    share = carriers with this id / all carriers      lift = share / (its share of all tokens)

The dimension `any` uses max_j |y_j| of a token, over all places. Tokens of an encoder and a decoder
are counted separately.
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
from attar.analysis.outlying.criteria import places_of, recognise
from attar.analysis.outlying.hidden import Tokens
from attar.analysis.studies.outliers import shared_dimensions
from attar.analysis.subject import Finding, Place, open_subject
from attar.special_tokens import open_tokenizer
from attar.step import StepContext

WORDS_SHOWN = 8
"""Number of tokens listed for each dimension."""
ANY = "any"


class _Magnitudes:
    """|y_j| of every real token for some dimensions, and max_j |y_j|, in reading order."""

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
    """The carriers of each outlier dimension, most frequent first.

    Raises:
        ModelError: the family is unknown, or the criterion needs biases and the norms have none.
    """
    subject = open_subject(config, context)
    verdicts = recognise(config, subject)
    having: dict[str, dict[int | str, list[Place]]] = {}
    for stack in dict.fromkeys(place.stack for place in verdicts):
        own = {place: verdict for place, verdict in verdicts.items() if place.stack == stack}
        listed = [row["dimension"] for row in shared_dimensions(own)[: config.dimensions]]
        having[stack] = {ANY: list(own)}
        having[stack] |= {j: [p for p in own if j in own[p].dimensions] for j in listed}
    sizes = {
        place: _Magnitudes([int(j) for j in having[place.stack] if j != ANY])
        for place in places_of(config, subject.model)
    }
    subject.watch({place: each.see for place, each in sizes.items()}, "values of tokens")
    words = open_tokenizer(subject.loaded.folder)
    rows: list[dict[str, Any]] = []
    for stack, dimensions in having.items():
        ids = Tokens.of(subject.model, subject.batches, stack).ids
        for dimension, places in dimensions.items():
            found = _carriers(dimension, places, sizes, ids, words, config.top_share)
            rows += [{"stack": stack, **row} for row in found]
    facts = {
        "criterion": config.criterion,
        "top_share": config.top_share,
        **subject.reading,
    }
    return Finding(facts, {"rows": rows}, _metrics(having, rows))


def _metrics(
    having: Mapping[str, Mapping[int | str, Any]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Dimensions and their most frequent carriers; by stack, if there are two."""
    found: dict[str, dict[str, Any]] = {}
    for stack, dimensions in having.items():
        own = [row for row in rows if row["stack"] == stack]
        found[stack] = {
            "outlier_dimensions": [j for j in dimensions if j != ANY],
            "carriers": {str(row["dimension"]): row["token"] for row in reversed(own)},
        }
    return next(iter(found.values())) if len(found) == 1 else found


def _carriers(
    dimension: int | str,
    places: Sequence[Place],
    sizes: Mapping[Place, _Magnitudes],
    ids: Tensor,
    words: Tokenizer,
    top_share: float,
) -> list[dict[str, Any]]:
    """The carriers of a dimension, pooled over places."""
    count = max(1, round(top_share * len(ids)))
    carried: Counter[int] = Counter()
    magnitude: dict[int, list[float]] = {}
    for place in places:
        values, rows = sizes[place].of(dimension).topk(count)
        carried.update(ids[rows].tolist())
        for word, value in zip(ids[rows].tolist(), values.tolist(), strict=True):
            magnitude.setdefault(word, []).append(value)
    everywhere = Counter(ids.tolist())
    ranks = {word: rank for rank, (word, _) in enumerate(everywhere.most_common(), start=1)}
    return [
        {
            "dimension": dimension,
            "norms": len(places),
            "token": words.id_to_token(word) or f"#{word}",
            "share": times / carried.total(),
            "share_of_tokens": everywhere[word] / len(ids),
            "frequency_rank": ranks[word],
            "mean_magnitude": sum(magnitude[word]) / len(magnitude[word]),
        }
        for word, times in carried.most_common(WORDS_SHOWN)
    ]
