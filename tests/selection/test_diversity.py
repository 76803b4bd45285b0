"""Vendi scores of samples of one size, by embeddings that padding does not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import corpora
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView, kept_rows
from attar.errors import NonFiniteError, StoppedError
from attar.models.load import load_model
from attar.numerics.vendi import second_moments, vendi_score
from attar.scoring.config import Diversity
from attar.selection.config import SelectStep
from attar.selection.select import _samples, select
from attar.step import MadeRows

SETTINGS = Diversity(model="model", chunks=50, max_length=24)


def test_a_select_step_compares_samples_of_one_size(folder: Path, made: MadeRows) -> None:
    step = SelectStep(data="corpus", teacher="teacher", reference="reference", diversity=SETTINGS)
    inputs = {each: folder / each for each in ("teacher", "reference")}
    found = [
        select(step, corpora.context(folder, name, {"corpus": made}, inputs=inputs, seed=3))
        for name in ("one", "same")
    ]
    scores = found[0]["diversity"]
    assert found[1]["diversity"] == scores
    for sample in ("all", "kept", "random"):
        assert scores[sample]["chunks"] == SETTINGS.chunks
        low, high = scores[sample]["ci95"]
        assert 1 <= low < scores[sample]["vendi"] < high <= SETTINGS.chunks
    # counted anew, from kept chunks alone, one text at a time
    view = CorpusView(Corpus.open(made.folder), "scored")
    is_kept = np.isin(view.rows(np.arange(len(view))), kept_rows(folder / "one"))
    sample = _samples(SETTINGS.chunks, is_kept, 3)["kept"]
    assert is_kept[sample].all()
    embeddings = _one_by_one(folder / "model", view.texts(np.sort(sample)))
    expected = vendi_score(second_moments(embeddings))
    assert scores["kept"]["vendi"] == pytest.approx(expected, rel=1e-4)


def _one_by_one(folder: Path, texts: list[str]) -> np.ndarray:
    from tokenizers import Tokenizer

    model = load_model(folder).model.base_model
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([tokenizer.encode(text).ids[: SETTINGS.max_length]])
            rows.append(model(input_ids=ids).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


def test_samples_of_all_and_at_random_share_nothing_where_there_are_enough() -> None:
    samples = _samples(50, np.arange(200) % 2 == 0, seed=0)
    assert len(set(samples["all"]) & set(samples["random"])) == 0
    few = _samples(50, np.arange(200) < 20, seed=0)
    assert [len(few[name]) for name in ("all", "kept", "random")] == [50, 20, 20]


def test_embeddings_that_are_not_finite_are_refused(folder: Path, made: MadeRows) -> None:
    weights = corpora.write_model(folder / "broken") / "model.safetensors"
    save_file({name: x * float("nan") for name, x in load_file(weights).items()}, weights)
    settings = SETTINGS.model_copy(update={"model": "broken"})
    step = SelectStep(data="corpus", teacher="teacher", reference="reference", diversity=settings)
    inputs = {each: folder / each for each in ("teacher", "reference")}
    with pytest.raises(NonFiniteError, match=r"diversity\.model"):
        select(step, corpora.context(folder, "none", {"corpus": made}, inputs=inputs))


@pytest.mark.parametrize("asked", [{"near_duplicates": 0.8}, {"diversity": SETTINGS}])
def test_a_selection_stops_where_it_takes_long(
    folder: Path, made: MadeRows, asked: dict[str, Any]
) -> None:
    step = SelectStep(data="corpus", teacher="teacher", reference="reference", **asked)
    inputs = {each: folder / each for each in ("teacher", "reference")}
    asks = {"inputs": inputs, "should_stop": lambda: True}
    with pytest.raises(StoppedError, match="starts over on resume"):
        select(step, corpora.context(folder, "stopped", {"corpus": made}, **asks))
