"""Planted outliers are found, where they were planted and nowhere else, and so are their tokens."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from attar.analysis.outlying.criteria import by_deviation, standardised
from attar.analysis.outlying.norms import norms_of
from attar.errors import ModelError
from studied import layer_norms, run_study
from tiny import tiny_model

PLANTED = 7
NORMS = 5
"""Of two blocks: the embedding's, and two a block."""


def flat(model: Any) -> None:
    """No norm prefers any dimension."""
    for norm in layer_norms(model):
        norm.weight.fill_(1.0)
        norm.bias.zero_()


def planted(model: Any) -> None:
    flat(model)
    for norm in layer_norms(model):
        norm.weight[PLANTED] = 40.0


def planted_in_block_one(model: Any) -> None:
    flat(model)
    for norm in layer_norms(model)[3:]:
        norm.weight[PLANTED] = 40.0


@pytest.mark.parametrize("criterion", ["gamma_3sigma", "activation_std"])
def test_a_planted_dimension_is_found_at_every_norm(tmp_path: Path, criterion: str) -> None:
    found = run_study(tmp_path, "outliers", change=planted, criterion=criterion)
    by_norm = found.metrics["outliers"]["encoder"]
    assert list(by_norm.values()) == [[PLANTED]] * NORMS
    [shared] = found.content["shared"]
    assert (shared["dimension"], shared["norms"], shared["of_norms"]) == (PLANTED, NORMS, NORMS)
    assert (shared["blocks"], shared["of_blocks"]) == (2, 2)


def test_a_dimension_planted_in_one_block_is_counted_for_that_block_alone(tmp_path: Path) -> None:
    found = run_study(tmp_path, "outliers", change=planted_in_block_one)
    [shared] = found.content["shared"]
    assert (shared["norms"], shared["blocks"]) == (2, 1)
    having = [row["norm"] for row in found.rows if row["dimensions"]]
    assert all("layer.1" in name for name in having)
    assert len(having) == 2


def test_norms_without_preference_have_no_outlier(tmp_path: Path) -> None:
    found = run_study(tmp_path, "outliers", change=flat)
    assert found.content["shared"] == []
    assert not any(found.metrics["outliers"]["encoder"].values())


def test_a_small_gamma_is_an_outlier_too_and_a_small_spread_is_none(tmp_path: Path) -> None:
    def negative(model: Any) -> None:
        flat(model)
        for norm in layer_norms(model):
            norm.weight[PLANTED] = -9.0

    found = run_study(tmp_path, "outliers", change=negative)
    assert list(found.metrics["outliers"]["encoder"].values()) == [[PLANTED]] * NORMS
    spread = torch.ones(32)
    spread[PLANTED] = 0.0
    assert by_deviation(standardised(spread)).dimensions == []


@pytest.mark.parametrize("family", ["bart", "t5", "gpt2", "llama"])
def test_every_family_with_an_anatomy_has_its_norms_told_apart(family: str) -> None:
    norms = norms_of(tiny_model(family))
    assert len({norm.site.fqn for norm in norms}) == len(norms)
    places = {tuple(norm.place.values())[1:] for norm in norms}
    assert len(places) == len(norms)


def test_the_word_that_carries_a_planted_dimension_is_found(tmp_path: Path) -> None:
    def carried(model: Any) -> None:
        flat(model)
        layer_norms(model)[0].weight[PLANTED] = 40.0
        model.bert.embeddings.word_embeddings.weight[word][PLANTED] = 500.0

    vocabulary = write_and_read_vocabulary(tmp_path)
    word = vocabulary["file"]
    found = run_study(tmp_path / "run", "outlier_tokens", change=carried, top_share=0.01)
    assert found.metrics["outlier_dimensions"] == [PLANTED]
    [row] = [row for row in found.rows if row["dimension"] == PLANTED]
    assert (row["token"], row["share"], row["norms"]) == ("file", 1.0, 1)
    assert row["share_of_tokens"] < 0.2
    ranks = Counter(row["frequency_rank"] for row in found.rows if row["token"] == "file")
    assert len(ranks) == 1
    assert found.rows[0]["dimension"] == "any"


def write_and_read_vocabulary(folder: Path) -> dict[str, int]:
    import tiny

    tiny.write_tokenizer(folder / "tokenizer")
    content = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    (folder / "run").mkdir()
    return content["model"]["vocab"]


def test_shares_of_carriers_and_of_tokens_are_shares(tmp_path: Path) -> None:
    found = run_study(tmp_path, "outlier_tokens", change=planted, top_share=1.0)
    for dimension in ("any", PLANTED):
        rows = [row for row in found.rows if row["dimension"] == dimension]
        for row in rows:  # of all tokens, each word carries as often as it occurs
            assert row["share"] == pytest.approx(row["share_of_tokens"])
        shares = [row["share"] for row in rows]
        assert shares == sorted(shares, reverse=True)
        ranked = sorted(rows, key=lambda row: row["frequency_rank"])
        assert [row["share"] for row in ranked] == shares


def test_a_bare_model_has_outliers_and_no_answers(tmp_path: Path) -> None:
    found = run_study(tmp_path, "outliers", bare=True)
    assert len(found.rows) == NORMS
    with pytest.raises(ModelError, match="not fine-tuned"):
        run_study(tmp_path, "methods", methods=["minmax"], widths=[8])
