"""Scores are the sums of log-probabilities that transformers gives each chunk alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import corpora
from attar.data.corpus.token_store import PARTS, Corpus
from attar.errors import ArtifactError, ModelError, StoppedError, UsageError
from attar.selection.score import read_scores, score_file
from attar.step import MadeRows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    corpora.write_documents(folder / "texts")
    corpora.write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> MadeRows:
    return corpora.tokenized(folder)[0]


@pytest.fixture(scope="module")
def scores(folder: Path, made: MadeRows) -> Path:
    corpora.scored(folder, made, "by_model")
    return folder / "by_model"


def test_sums_are_those_of_each_chunk_alone(folder: Path, made: MadeRows, scores: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    for number, shard in enumerate(Corpus.open(made.folder).shards):
        found = read_scores(score_file(scores, number))
        assert found.row.tolist() == np.flatnonzero(shard.part == PARTS.index("scored")).tolist()
        assert np.array_equal(found.digest, shard.digest[found.row])
        assert found.tokens.tolist() == (shard.lengths[found.row] - 1).tolist()
        for row, log_p in zip(found.row[::5], found.log_p[::5], strict=True):
            ids = torch.from_numpy(shard.chunk(int(row)))[None]
            with torch.no_grad():
                log_probs = model(ids).logits.log_softmax(-1)
            wanted = log_probs[0, :-1].gather(1, ids[0, 1:, None]).sum()
            assert log_p == pytest.approx(float(wanted), rel=2e-5, abs=1e-4)


def test_the_metric_is_the_mean_over_all_predicted_tokens(
    folder: Path, made: MadeRows, scores: Path
) -> None:
    metrics = corpora.scored(folder, made, "again")
    all_scores = [read_scores(file) for file in sorted(scores.glob("*.scores.safetensors"))]
    tokens = sum(int(each.tokens.sum()) for each in all_scores)
    assert metrics["tokens"] == tokens
    assert metrics["chunks"] == sum(len(each.row) for each in all_scores)
    total = sum(float(each.log_p.sum(dtype=np.float64)) for each in all_scores)
    assert metrics["nll"] == pytest.approx(-total / tokens, rel=1e-9)


@pytest.mark.parametrize("budget", [1, 64, 10_000])
def test_another_budget_changes_no_sum_beyond_rounding(
    folder: Path, made: MadeRows, scores: Path, budget: int
) -> None:
    corpora.scored(folder, made, f"budget_{budget}", settings={"batch_tokens": budget})
    for file in sorted(scores.glob("*.scores.safetensors")):
        other = read_scores(folder / f"budget_{budget}" / file.name)
        np.testing.assert_allclose(other.log_p, read_scores(file).log_p, rtol=2e-5, atol=1e-4)


def test_a_stopped_run_ends_with_the_same_bytes(folder: Path, made: MadeRows, scores: Path) -> None:
    asked = [0]

    def should_stop() -> bool:
        asked[0] += 1
        return asked[0] > 2

    with pytest.raises(StoppedError):
        corpora.scored(folder, made, "stopped", should_stop=should_stop)
    assert len(list((folder / "stopped.scratch" / "scores").iterdir())) == 2
    corpora.scored(folder, made, "stopped")
    for file in scores.iterdir():
        assert (folder / "stopped" / file.name).read_bytes() == file.read_bytes()


def test_the_reserved_part_is_scored_when_it_is_asked_for(folder: Path, made: MadeRows) -> None:
    corpora.scored(folder, made, "reserved", settings={"part": "reserved"})
    for number, shard in enumerate(Corpus.open(made.folder).shards):
        found = read_scores(score_file(folder / "reserved", number))
        assert found.row.tolist() == np.flatnonzero(shard.part == PARTS.index("reserved")).tolist()


def test_another_tokenizer_is_refused(folder: Path, made: MadeRows) -> None:
    corpora.write_model(folder / "other")
    file = folder / "other" / "tokenizer.json"
    file.write_text(
        file.read_text().replace('"add_prefix_space": false', '"add_prefix_space":true', 1)
    )
    with pytest.raises(ModelError, match="not the one the corpus was made with"):
        corpora.scored(folder, made, "none", "other")


def test_a_model_with_too_few_positions_is_refused(folder: Path, made: MadeRows) -> None:
    corpora.write_model(folder / "short", max_position_embeddings=16)
    with pytest.raises(ModelError, match="chunks of 24 tokens, the model has 16 positions"):
        corpora.scored(folder, made, "none", "short")


def test_a_model_whose_answers_are_not_finite_is_refused(folder: Path, made: MadeRows) -> None:
    from safetensors.torch import load_file, save_file

    from attar.errors import NonFiniteError

    corpora.write_model(folder / "broken")
    file = folder / "broken" / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][:] = 1e38
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(NonFiniteError, match="not finite"):
        corpora.scored(folder, made, "none", "broken")


def test_data_that_is_no_corpus_is_refused(folder: Path) -> None:
    from attar.data.config import FilesData

    with pytest.raises(UsageError, match="not a corpus"):
        corpora.scored(folder, FilesData(path="texts", text="text", label_names=None), "none")


def test_damaged_scores_are_refused(scores: Path, tmp_path: Path) -> None:
    file = tmp_path / "00000.scores.safetensors"
    file.write_bytes(score_file(scores, 0).read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_scores(file)
