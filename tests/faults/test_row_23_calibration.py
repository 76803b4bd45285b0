"""Row 23: padding left, right or none, or texts packed in a row, give the same statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from attar.errors import DataError
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.sites import sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import (
    TEXTS_KEY,
    Calibration,
    calibrate,
    choose_examples,
)
from attar.step import StepContext

ROUNDING = 2e-5
"""Sums of another width are added in another order: float32, two blocks."""
TEXTS = ([5, 9, 13, 22, 41, 2], [7, 11, 2], [30, 8, 17, 2])


def statistics_of(family: str, batch: dict[str, Tensor]) -> Calibration:
    model = tiny.tiny_model(family)
    use_attar_attention_(model)
    here = Path()
    context = StepContext("int8", here, here, {}, {}, here, Progress(quiet=True))
    return calibrate(model, sites_of(model), [batch], context)


def padded(side: str, width: int) -> dict[str, Tensor]:
    """The texts as one batch."""
    ids = torch.ones(len(TEXTS), width, dtype=torch.int64)
    for row, text in enumerate(TEXTS):
        columns = slice(0, len(text)) if side == "right" else slice(width - len(text), width)
        ids[row, columns] = torch.tensor(text)
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def packed(family: str) -> dict[str, Tensor]:
    """The texts end to end in one row, each blind to the others."""
    ids = torch.tensor([[token for text in TEXTS for token in text]])
    numbers = torch.tensor([[n + 1 for n, text in enumerate(TEXTS) for _ in text]])
    positions = torch.tensor([[i for text in TEXTS for i in range(len(text))]])
    sees = numbers[:, None, :, None] == numbers[:, None, None, :]
    lowest = torch.finfo(torch.float32).min
    return {
        "input_ids": ids,
        "attention_mask": torch.where(sees, 0.0, lowest),
        "position_ids": positions + (2 if family == "roberta" else 0),
        TEXTS_KEY: numbers,
    }


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize(("side", "width"), [("left", 6), ("right", 30), ("left", 30)])
def test_padding_never_enters_a_statistic(family, side, width):
    plain = statistics_of(family, padded("right", 6))
    other = statistics_of(family, padded(side, width))
    assert torch.equal(torch.cat(other.logits), torch.cat(plain.logits))
    for site, seen in plain.statistics.items():
        found = other.statistics[site]
        assert (found.batch_lows, found.batch_highs) == (seen.batch_lows, seen.batch_highs), site
        assert np.array_equal(found.histogram.counts, seen.histogram.counts), site
        assert found.has_tokens == (site.port != "probabilities"), site
        for ours, theirs in (
            (found.token_lows, seen.token_lows),
            (found.token_highs, seen.token_highs),
        ):
            assert all(map(torch.equal, ours, theirs)), site
        assert (found.mean, found.std) == (seen.mean, seen.std), site


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_texts_packed_in_one_row_give_the_same_statistics(family):
    """The head reads one token a row, so its two sites differ by what packing means."""
    plain = statistics_of(family, padded("right", 6))
    together = statistics_of(family, packed(family))
    assert together.num_tokens == plain.num_tokens
    for site, seen in plain.statistics.items():
        if site.kind in ("pooler_input", "classifier_input"):
            continue
        found = together.statistics[site]
        assert found.histogram.num_values == seen.histogram.num_values, site
        for share in (0.0, 0.1, 0.9, 1.0):
            expected = seen.histogram.quantile(share)
            close = pytest.approx(expected, rel=1e-3, abs=ROUNDING)
            assert found.histogram.quantile(share) == close, site
        if site.port != "probabilities":
            ours, theirs = torch.cat(found.token_highs), torch.cat(seen.token_highs)
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=ROUNDING), site


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_every_count_is_that_of_real_tokens_alone(family):
    seen = statistics_of(family, padded("right", 30)).statistics
    tokens, pairs = sum(map(len, TEXTS)), sum(len(text) ** 2 for text in TEXTS)
    for site, statistics in seen.items():
        expected = {
            "attention_probs": pairs * 4,
            "ffn_act": tokens * 48,
            "pooler_input": len(TEXTS) * 32,
            "classifier_input": len(TEXTS) * 32,
        }.get(site.kind, tokens * 32)
        assert statistics.histogram.num_values == expected, site
        if site.port != "probabilities":
            is_pooled = site.kind in ("pooler_input", "classifier_input")
            rows = len(TEXTS) if is_pooled else tokens
            assert sum(map(len, statistics.token_highs)) == rows, site


def test_one_example_is_enough_to_be_counted():
    batch = {name: tensor[:1] for name, tensor in padded("right", 30).items()}
    alone = statistics_of("bert", batch)
    assert alone.num_examples == 1
    assert all(s.is_finite and s.histogram.num_values > 0 for s in alone.statistics.values())


def test_too_few_examples_are_an_error_with_the_numbers():
    with pytest.raises(DataError, match=r"needs 256 examples, data 'sst2' has 40 .*lower cal"):
        choose_examples(40, 256, 0, "sst2")
    assert len(choose_examples(256, 256, 0, "sst2")) == 256


def test_asking_for_more_examples_keeps_the_ones_there_were():
    few, many = (choose_examples(100, n, 7, "sst2").tolist() for n in (10, 60))
    assert many[:10] == few
    assert len(set(many)) == 60
