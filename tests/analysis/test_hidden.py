"""Hidden states are transformers' own, of real tokens only, and of each stack apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from attar.analysis.outlying.hidden import Tokens, hidden_states_of, run_with_states
from attar.analysis.outlying.massive import LayerFigures
from attar.errors import NonFiniteError
from studied import layer_norms, run_study

ENCODERS_OWN, DECODERS_OWN = 5, 11
PAD = 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_hidden_states_are_those_that_transformers_gives(family: str) -> None:
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    places = hidden_states_of(model)
    with torch.no_grad():
        seen = run_with_states(model, batch)
        given = model(**batch, output_hidden_states=True)
    if model.config.is_encoder_decoder:
        expected = {"encoder": given.encoder_hidden_states, "decoder": given.decoder_hidden_states}
    else:
        expected = {places[0].stack: given.hidden_states}
    assert set(seen) == set(expected)
    assert len(places) == sum(len(states) for states in expected.values())
    for place in places:
        found = seen[place.stack][place.index]
        torch.testing.assert_close(found, expected[place.stack][place.index])


def test_the_last_state_of_a_model_with_a_last_norm_is_told_apart() -> None:
    kinds = {f: [s.kind for s in hidden_states_of(tiny.tiny_model(f))] for f in ("bert", "gpt2")}
    assert kinds == {
        "bert": ["embedding", "block", "block"],
        "gpt2": ["embedding", "block", "normed_block"],
    }


def test_tokens_are_numbered_by_text_and_position_without_padding() -> None:
    batches = [tiny.tiny_batch(batch=2, tokens=4, seed=seed) for seed in (0, 1)]
    tokens = Tokens.of(tiny.tiny_model("bert"), batches, "encoder")
    assert tokens.positions.tolist() == [0, 1, 2, 3, 0, 1, 2] * 2
    assert tokens.texts.tolist() == [0] * 4 + [1] * 3 + [2] * 4 + [3] * 3
    assert tokens.ids[:4].tolist() == batches[0]["input_ids"][0].tolist()


def test_a_decoder_that_is_told_nothing_reads_the_text_behind_the_start_token() -> None:
    model, batch = tiny.tiny_model("t5"), tiny.tiny_batch(batch=1, tokens=4)
    ids = Tokens.of(model, [batch], "decoder").ids.tolist()
    start = model.config.decoder_start_token_id
    assert ids == [start, *batch["input_ids"][0, :3].tolist()]


def test_figures_do_not_depend_on_how_a_stream_is_cut() -> None:
    values = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) ** 3
    whole, pieces = LayerFigures(), LayerFigures()
    whole.see(values)
    pieces.see(values[:11])
    pieces.see(values[11:])
    assert pieces.row() == pytest.approx(whole.row(), rel=1e-9)
    assert whole.row()["largest"] == pytest.approx(float(values.abs().max()))
    pieces.see(values[:1] * 0)  # what came before is not forgotten
    torch.testing.assert_close(pieces.peaks.values, values.abs().amax(dim=0))


@pytest.mark.parametrize("at_once", [1, 24])
def test_padding_counts_for_nothing(tmp_path: Path, at_once: int) -> None:
    def huge_padding(model: Any) -> None:
        model.transformer.wte.weight[PAD] = 1e6

    found = run_study(
        tmp_path,
        "outliers",
        change=huge_padding,
        family="gpt2",
        calibration={"batch_size": at_once},
    )
    assert len(found.content["layers"]) == 3
    assert all(row["largest"] < 1e3 for row in found.content["layers"])
    assert found.content["massive"] == []
    alone = run_study(tmp_path, "outliers", family="gpt2", calibration={"batch_size": 5}).content[
        "layers"
    ]
    for row, other in zip(found.content["layers"], alone, strict=True):
        for name in ("kurtosis", "std", "largest", "largest_kurtosis"):
            assert row[name] == pytest.approx(other[name], rel=1e-4), name


@pytest.mark.parametrize("criterion", ["activation_std", "activation_magnitude"])
def test_the_outliers_of_an_encoder_and_of_a_decoder_are_told_apart(
    tmp_path: Path, criterion: str
) -> None:
    def one_each(model: Any) -> None:
        stacks = (
            (model.transformer.encoder, ENCODERS_OWN),
            (model.transformer.decoder, DECODERS_OWN),
        )
        for stack, own in stacks:
            ffn = stack.block[0].layer[-1].DenseReluDense
            ffn.wo.weight[own] = 200.0

    found = run_study(
        tmp_path,
        "outliers",
        change=one_each,
        family="t5",
        criterion=criterion,
        at="hidden_states",
        magnitude=50.0,
    )
    by_stack = found.metrics["outliers"]
    assert by_stack["encoder"]["encoder_hidden_states.1"] == [ENCODERS_OWN]
    assert by_stack["decoder"]["decoder_hidden_states.1"] == [DECODERS_OWN]
    assert by_stack["encoder"]["encoder_hidden_states.0"] == []
    tokens = run_study(
        tmp_path, "outlier_tokens", criterion=criterion, at="hidden_states", magnitude=50.0
    )
    assert tokens.metrics["encoder"]["outlier_dimensions"][0] == ENCODERS_OWN
    assert tokens.metrics["decoder"]["outlier_dimensions"][0] == DECODERS_OWN


def test_a_hidden_state_that_is_not_a_number_is_refused_by_name(tmp_path: Path) -> None:
    def broken(model: Any) -> None:
        layer_norms(model)[1].weight[3] = float("nan")

    with pytest.raises(NonFiniteError, match=r"of hidden_states\.1 are NaN"):
        run_study(tmp_path, "outliers", change=broken)
