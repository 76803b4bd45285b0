"""Planted outliers are found, where they were planted and nowhere else, and so are their tokens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter

from attar.analysis.config import AnalyzeStep, Criterion
from attar.analysis.outlying.criteria import CRITERIA as RECOGNISERS
from attar.analysis.outlying.criteria import LargeValues, by_deviation, standardised
from attar.analysis.outlying.hidden import norms_of
from attar.analysis.studies.outlier_tokens import _Magnitudes
from attar.errors import ModelError
from studied import layer_norms, run_study, vocabulary_for
from tiny import tiny_model

PLANTED = 7
NORMS = 5
"""Of two blocks: the embedding's, and two a block."""
STATES = 3


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


def planted_in_bias_too(model: Any) -> None:
    planted(model)
    for norm in layer_norms(model):
        norm.bias[PLANTED] = -7.0


CRITERIA = (
    ("gamma_3sigma", None),
    ("gamma_and_bias_3sigma", None),
    ("activation_std", "norms"),
    ("activation_std", "hidden_states"),
    ("activation_magnitude", "norms"),
    ("activation_magnitude", "hidden_states"),
)


def test_every_criterion_is_tried_here() -> None:
    assert {name for name, _ in CRITERIA} == set(get_args(Criterion))


@pytest.mark.parametrize(("criterion", "at"), CRITERIA)
def test_a_planted_dimension_is_found_at_every_place(
    tmp_path: Path, criterion: str, at: str | None
) -> None:
    found = run_study(tmp_path, "outliers", change=planted_in_bias_too, criterion=criterion, at=at)
    places = STATES if at == "hidden_states" else NORMS
    by_place = found.metrics["outliers"]["encoder"]
    assert list(by_place.values()) == [[PLANTED]] * places
    [shared] = found.content["shared"]
    assert (shared["dimension"], shared["norms"], shared["of_norms"]) == (PLANTED, places, places)
    assert (shared["blocks"], shared["of_blocks"]) == (2, 2)
    [recognised] = found.content["recognised"]
    assert (recognised["times"], recognised["dimensions"]) == (2, [PLANTED])
    assert found.metrics["num_outlier_dimensions"] == {"encoder": 1}


@pytest.mark.parametrize(("criterion", "at"), CRITERIA)
def test_norms_without_preference_have_no_outlier(
    tmp_path: Path, criterion: str, at: str | None
) -> None:
    def even(model: Any) -> None:
        flat(model)
        words = model.bert.embeddings.word_embeddings.weight
        words.copy_(torch.randn(words.shape, generator=torch.Generator().manual_seed(3)))

    found = run_study(tmp_path, "outliers", change=even, criterion=criterion, at=at)
    assert found.content["shared"] == []
    assert found.content["recognised"] == []
    assert not any(found.metrics["outliers"]["encoder"].values())


def test_gamma_alone_is_no_outlier_of_gamma_and_bias(tmp_path: Path) -> None:
    settings = {"criterion": "gamma_and_bias_3sigma", "activations": False}
    assert run_study(tmp_path, "outliers", change=planted, **settings).content["shared"] == []


def test_gamma_and_bias_is_refused_of_norms_without_bias(tmp_path: Path) -> None:
    told = r"5 of the 5 norms of model 'teacher' have no bias.*criterion = \"gamma_3sigma\""
    with pytest.raises(ModelError, match=told):
        run_study(tmp_path, "outliers", family="llama", criterion="gamma_and_bias_3sigma")


def test_a_large_dimension_of_too_few_tokens_or_blocks_is_no_outlier(tmp_path: Path) -> None:
    settings = {"criterion": "activation_magnitude", "activations": False}
    found = run_study(tmp_path, "outliers", change=planted_in_block_one, **settings)
    assert [row["dimension"] for row in found.content["shared"]] == [PLANTED]
    for few in ({"layer_share": 0.6}, {"magnitude": 1e3}):
        assert run_study(tmp_path, "outliers", **settings, **few).content["shared"] == []

    def planted_once(model: Any) -> None:
        flat(model)
        layer_norms(model)[3].weight[PLANTED] = 40.0

    settings |= {"at": "norms", "magnitude": 100.0}
    some = run_study(tmp_path / "once", "outliers", change=planted_once, **settings)
    share = max(row["strengths"][str(PLANTED)] for row in some.rows)
    assert 0.06 < share < 0.9
    settings["token_share"] = share + 0.01
    assert run_study(tmp_path / "once", "outliers", **settings).content["shared"] == []


@pytest.mark.parametrize("norm", [0, 1, 2])
def test_a_block_of_several_norms_counts_once_by_whichever_is_large(
    norm: int, tmp_path: Path
) -> None:
    """A T5's decoder block has three norms: one of them large in every block is every block."""

    def planted_in_one_norm_of_each_block(model: Any) -> None:
        for name, module in model.named_modules():
            if name.endswith("layer_norm"):
                module.weight.fill_(0.1)
                if f"decoder.block.0.layer.{norm}" in name or f"block.1.layer.{norm}" in name:
                    module.weight[PLANTED] = 400.0

    settings = {"criterion": "activation_magnitude", "at": "norms", "activations": False}
    change = planted_in_one_norm_of_each_block
    found = run_study(tmp_path, "outliers", change=change, family="t5", layer_share=1.0, **settings)
    [shared] = [row for row in found.content["shared"] if row["stack"] == "decoder"]
    assert (shared["dimension"], shared["norms"], shared["blocks"]) == (PLANTED, 2, 2)


def test_a_share_at_its_limit_counts_and_every_stack_by_its_own_blocks() -> None:
    """Four tokens. In the encoder dimensions 2, 5 and 9 are large in one, two and three of them, in
    every block; in the decoder dimension 5 is, in one block of two."""
    config = TypeAdapter(AnalyzeStep).validate_python(
        {
            **{"run": "analyze", "model": "m", "study": "outliers", "data": "d"},
            **{"criterion": "activation_magnitude", "at": "hidden_states"},
            **{"token_share": 0.25, "layer_share": 0.6},
        }
    )
    criterion = RECOGNISERS["activation_magnitude"](config, tiny_model("t5"))
    for place, see in criterion.watchers.items():
        values = torch.zeros(4, 32)
        if place.stack == "encoder":
            values[:1, 2], values[:2, 5], values[:3, 9] = 6.0, -7.0, 100.0
        elif place.block == 0:
            values[:, 5] = 50.0
        see(values)
    found = criterion.verdicts()
    assert {place.stack for place in found} == {"encoder", "decoder"}
    for place, verdict in found.items():
        assert verdict.dimensions == ([9, 5, 2] if place.stack == "encoder" else []), place


def test_large_values_of_two_halves_are_those_of_the_whole() -> None:
    values = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * 6
    whole, halves = LargeValues(6.0), LargeValues(6.0)
    whole.see(values)
    for piece in values.split([7, 33]):
        halves.see(piece)
    assert halves.shares.tolist() == whole.shares.tolist()
    expected = (values.abs() >= 6).double().mean(dim=0)
    torch.testing.assert_close(whole.shares, expected)


def test_a_dimension_planted_in_one_block_is_counted_for_that_block_alone(tmp_path: Path) -> None:
    found = run_study(tmp_path, "outliers", change=planted_in_block_one)
    [shared] = found.content["shared"]
    assert (shared["norms"], shared["blocks"]) == (2, 1)
    having = [row["norm"] for row in found.rows if row["dimensions"]]
    assert all("layer.1" in name for name in having)
    assert len(having) == 2


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

    vocabulary = vocabulary_for(tmp_path)
    word = vocabulary["file"]
    found = run_study(tmp_path / "run", "outlier_tokens", change=carried, top_share=0.01)
    assert found.metrics["outlier_dimensions"] == [PLANTED]
    [row] = [row for row in found.rows if row["dimension"] == PLANTED]
    assert (row["token"], row["share"], row["norms"]) == ("file", 1.0, 1)
    assert row["share_of_tokens"] < 0.2
    ranks = Counter(row["frequency_rank"] for row in found.rows if row["token"] == "file")
    assert len(ranks) == 1
    assert found.rows[0]["dimension"] == "any"


def test_a_token_is_large_on_either_side_of_zero() -> None:
    seen = _Magnitudes([1])
    seen.see(torch.tensor([[4.0, -9.0, 1.0], [-7.0, 2.0, 3.0]]))
    assert seen.of(1).tolist() == [9.0, 2.0]
    assert seen.of("any").tolist() == [9.0, 7.0]


def test_shares_of_carriers_and_of_tokens_are_shares(tmp_path: Path) -> None:
    found = run_study(tmp_path, "outlier_tokens", change=planted, top_share=1.0)
    for dimension in ("any", PLANTED):
        rows = [row for row in found.rows if row["dimension"] == dimension]
        assert len(rows) == 8
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
        run_study(tmp_path, "leave_one_kind")
