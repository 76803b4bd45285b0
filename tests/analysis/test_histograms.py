"""Histograms count every value of every shown layer, of one model or of two; γ is told as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import simulated
from attar.analysis.config import HistogramsStep
from attar.analysis.outlying.hidden import HiddenState, norms_of
from attar.analysis.studies.histograms import ANSWER, QUESTION, _row, _watched
from attar.analysis.subject import encoder_of
from attar.errors import ModelError
from attar.models.load import load_model
from attar.numerics.magnitudes import Magnitudes
from studied import context_below, layer_norms, run_study

HIDDEN = 32
PLANTED = 7


def second_model(root: Path, **changes: Any) -> str:
    """A folder beside the first model's."""
    simulated.write_float_model(root / "other", **changes)
    return str(root / "other")


def test_counts_of_a_layer_sum_to_its_values(tmp_path: Path) -> None:
    found = run_study(tmp_path, "histograms")
    assert [row["layer"] for row in found.rows] == [0, 1, 2]
    for row in found.rows:
        assert sum(row["counts"]) == row["values"] == found.facts["tokens"] * HIDDEN
        top = 2 ** ((row["first_bin"] + len(row["counts"])) / found.facts["bins_per_octave"])
        assert top / 2**0.25 <= row["largest"] <= top


def test_two_models_are_counted_in_the_same_bins_over_the_same_texts(tmp_path: Path) -> None:
    deeper = second_model(tmp_path, blocks=6)
    found = run_study(tmp_path, "histograms", compare_with=deeper)
    by_model = {
        model: [row for row in found.rows if row["model"] == model] for model in ("teacher", deeper)
    }
    layers = {model: [row["layer"] for row in rows] for model, rows in by_model.items()}
    assert layers == {"teacher": [0, 1, 2], deeper: [0, 3, 6]}
    assert len({row["values"] for row in found.rows}) == 1
    assert [row["line"] for row in found.rows] == [0, 1, 2] * 2
    assert found.facts["examples"] == 24
    assert found.facts["tokens_of"] == dict.fromkeys(("teacher", deeper), found.facts["tokens"])
    itself = second_model(tmp_path / "again")
    same = run_study(tmp_path, "histograms", compare_with=itself).rows
    assert [row["counts"] for row in same[:3]] == [row["counts"] for row in same[3:]]


def test_each_model_has_its_own_count_of_tokens(tmp_path: Path) -> None:
    """A decoder's tokens are counted too, so that two models read the same text and not as much."""
    both = second_model(tmp_path, family="t5")
    found = run_study(tmp_path, "histograms", compare_with=both, data=None)
    values = dict.fromkeys(("teacher", both), 0)
    for row in found.rows:
        if row["layer"] == 0:
            values[row["model"]] += row["values"]
    assert {m: tokens * HIDDEN for m, tokens in found.facts["tokens_of"].items()} == values
    assert values[both] > values["teacher"]


def test_a_planted_dimension_stands_to_the_right_of_everything_else(tmp_path: Path) -> None:
    def planted(model: Any) -> None:
        for norm in layer_norms(model):
            norm.weight[PLANTED] = 60.0

    found = run_study(tmp_path, "histograms", change=planted)
    assert [row["layer"] for row in found.rows] == [0, 1, 2]
    for row in found.rows:
        assert row["largest"] > 20 * row["median"]
        assert 0 < sum(row["counts"][-4:]) <= row["values"] / HIDDEN


def test_layers_may_be_named_and_must_be_there(tmp_path: Path) -> None:
    found = run_study(tmp_path, "histograms", layers=[2])
    assert [row["layer"] for row in found.rows] == [2]
    with pytest.raises(ModelError, match=r"hidden state 3 of the encoder.*'teacher' has 0 to 2"):
        run_study(tmp_path, "histograms", layers=[3])


@pytest.mark.parametrize("family", ["bert", "t5", "gpt2"])
def test_without_data_a_question_is_read_and_a_decoder_reads_its_answer(
    tmp_path: Path, family: str
) -> None:
    root = tmp_path / family
    found = run_study(root, "histograms", family=family, data=None)
    assert found.facts["examples"] == 1
    assert found.facts["tokens"] > 0
    stacks = {row["stack"]: row["values"] for row in found.rows}
    assert sum(stacks.values()) == found.facts["tokens"] * HIDDEN
    assert set(stacks) == {"bert": {"encoder"}, "gpt2": {"decoder"}}.get(
        family, {"encoder", "decoder"}
    )
    assert ANSWER in QUESTION


def test_a_decoder_reads_the_answer_behind_its_start_token(tmp_path: Path) -> None:
    loaded = load_model(simulated.write_float_model(tmp_path / "float", "t5"))
    config = HistogramsStep.model_validate({"model": "teacher", "data": None})
    (batch,) = _watched(config, loaded, context_below(tmp_path)).batches
    answer = encoder_of(loaded).encode([(ANSWER,)]).batch([0])["input_ids"][0].tolist()
    wanted = [loaded.model.config.decoder_start_token_id, *answer[:-1]]
    assert batch["decoder_input_ids"].tolist() == [wanted]
    assert wanted[1] != answer[1]


def test_the_figures_of_a_row_are_the_median_the_999th_in_1000_and_the_largest() -> None:
    seen = Magnitudes()
    seen.see(torch.logspace(-10, 10, 20001, base=2.0)[None])
    row = _row(HiddenState("hidden_states.1", "block", 0, "encoder", 1), seen)
    assert row["median"] == pytest.approx(1.0, rel=0.03)
    assert row["p999"] == pytest.approx(2 ** (10 - 20 / 1000), rel=0.03)
    assert row["largest"] == 1024.0


def test_the_gamma_table_is_that_of_the_weights(tmp_path: Path) -> None:
    def planted(model: Any) -> None:
        for norm in layer_norms(model):
            norm.weight.fill_(1.0)
            norm.weight[PLANTED] = 9.0

    found = run_study(tmp_path, "gamma", change=planted)
    norms = norms_of(load_model(tmp_path / "float").model)
    assert [row["norm"] for row in found.rows] == [norm.site.fqn for norm in norms]
    for row, norm in zip(found.rows, norms, strict=True):
        assert row["dimensions"] == [PLANTED]
        assert row["gamma"]["outliers"] == {str(PLANTED): 9.0}
        assert row["gamma"]["mean"] == pytest.approx(float(norm.gamma.mean()))
        assert (row["gamma"]["min"], row["gamma"]["max"]) == (1.0, 9.0)
        assert norm.beta is not None
        assert row["beta"]["std"] == pytest.approx(float(norm.beta.std(correction=0)))
        assert row["beta"]["outliers"][str(PLANTED)] == float(norm.beta[PLANTED])


def test_a_norm_without_bias_has_none_and_no_text_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.T5ForSequenceClassification.forward", None)
    found = run_study(tmp_path, "gamma", family="t5")
    assert {row["stack"] for row in found.rows} == {"encoder", "decoder"}
    assert all(row["beta"] is None for row in found.rows)
    assert found.facts["norms_with_bias"] == 0
    assert json.dumps(found.metrics)
    assert torch.tensor([row["gamma"]["std"] for row in found.rows]).all()
