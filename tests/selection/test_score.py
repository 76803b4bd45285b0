"""Scores are the sums of log-probabilities that transformers gives each chunk alone."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

import corpora
import tiny
from attar.data.batches import token_batches
from attar.data.corpus.token_store import PARTS, Corpus, chunk_digest
from attar.errors import ArtifactError, ModelError, NonFiniteError, StoppedError, UsageError
from attar.models.cost import flops
from attar.models.load import load_model
from attar.selection.scores import read_scores, score_file
from attar.step import MadeRows


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


@pytest.mark.parametrize("batches", [1, 5, 20])
def test_a_stopped_run_goes_on_where_it_was_and_ends_with_the_same_bytes(
    folder: Path, made: MadeRows, scores: Path, batches: int
) -> None:
    asked = [0]

    def should_stop() -> bool:
        asked[0] += 1
        return asked[0] == batches

    name = f"stopped_{batches}"
    with pytest.raises(StoppedError, match="the scores so far are saved"):
        corpora.scored(folder, made, name, should_stop=should_stop)
    asked[0] = -1000
    corpora.scored(folder, made, name, should_stop=should_stop)
    lengths = [
        shard.lengths[shard.part == PARTS.index("scored")]
        for shard in Corpus.open(made.folder).shards
    ]
    all_batches = sum(len(list(token_batches(each, 128))) for each in lengths)
    assert asked[0] + 1000 == all_batches - batches  # none was done twice
    assert not list((folder / f"{name}.scratch" / "scores").glob("*.part"))
    for file in scores.iterdir():
        assert (folder / name / file.name).read_bytes() == file.read_bytes()


def test_what_was_begun_is_kept_now_and_then_for_the_next_run(
    folder: Path, made: MadeRows, scores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill leaves it: nothing is saved at the end."""
    monkeypatch.setattr("attar.selection.score.KEEP_EVERY_S", 0.0)
    calls = [0]

    def dies() -> bool:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        corpora.scored(folder, made, "died", should_stop=dies)
    [part] = (folder / "died.scratch" / "scores").glob("*.part")
    assert load_file(part)["batches"].tolist() == [3]
    part.write_bytes(part.read_bytes()[:-9])  # damaged: the shard begins again
    corpora.scored(folder, made, "died")
    for file in scores.iterdir():
        assert (folder / "died" / file.name).read_bytes() == file.read_bytes()


def test_the_reserved_part_is_scored_when_it_is_asked_for(folder: Path, made: MadeRows) -> None:
    corpora.scored(folder, made, "reserved", settings={"part": "reserved"})
    for number, shard in enumerate(Corpus.open(made.folder).shards):
        found = read_scores(score_file(folder / "reserved", number))
        assert found.row.tolist() == np.flatnonzero(shard.part == PARTS.index("reserved")).tolist()


def test_a_model_whose_tokenizer_file_only_cuts_and_encloses_texts_is_accepted(
    folder: Path, made: MadeRows
) -> None:
    """As attar and transformers write it when a model is saved."""
    corpora.write_model(folder / "saved")
    file = folder / "saved" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(16)
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    tokenizer.save(str(file), pretty=False)
    assert corpora.scored(folder, made, "by_saved", model="saved")["chunks"] > 0


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


def test_a_model_that_predicts_masked_words_is_refused(folder: Path, made: MadeRows) -> None:
    from transformers import BertForMaskedLM

    corpora.write_tokenizer(folder / "masked")
    config = tiny.tiny_config("bert", vocab_size=320)
    BertForMaskedLM(config).save_pretrained(folder / "masked")
    with pytest.raises(ModelError, match="BertForMaskedLM, which does not predict the next token"):
        corpora.scored(folder, made, "none", "masked")


def _rare_token(made: MadeRows) -> int:
    """A token that is in some chunks of the scored part, but in few."""
    counts = np.zeros(320, np.int64)
    for shard in Corpus.open(made.folder).shards:
        for row in np.flatnonzero(shard.part == PARTS.index("scored")):
            counts[np.unique(shard.chunk(int(row)))] += 1
    return int(np.where(counts > 2, counts, counts.max()).argmin())


def _spoiled(folder: Path, name: str, token: int | slice) -> None:
    """The model with NaN for embeddings of some tokens."""
    corpora.write_model(folder / name)
    file = folder / name / "model.safetensors"
    weights = load_file(file)
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, file, {"format": "pt"})


def test_a_chunk_that_breaks_the_model_is_set_aside_and_leaves_the_others_alone(
    folder: Path, made: MadeRows, scores: Path
) -> None:
    token = _rare_token(made)
    _spoiled(folder, "spoiled", token)
    metrics = corpora.scored(folder, made, "part", "spoiled", settings={"max_set_aside": 0.5})
    lines = gzip.decompress((folder / "part" / "set_aside.jsonl.gz").read_bytes()).splitlines()
    faults = {fault["row"]: fault["reason"] for fault in map(json.loads, lines)}
    begin = 0
    for number, shard in enumerate(Corpus.open(made.folder).shards):
        found, whole = (read_scores(score_file(each, number)) for each in (folder / "part", scores))
        assert np.array_equal(found.row, whole.row)
        has_token = np.array([token in shard.chunk(int(row))[:-1] for row in found.row])
        assert np.array_equal(np.isnan(found.log_p), has_token)
        np.testing.assert_allclose(
            found.log_p[~has_token], whole.log_p[~has_token], rtol=2e-5, atol=1e-4
        )
        assert {begin + int(row) for row in found.row[has_token]} == {
            row for row in faults if begin <= row < begin + len(shard)
        }
        begin += len(shard)
    assert metrics["set_aside"] == {"the log-probability is NaN or infinite": len(faults)}
    assert 0 < len(faults) < metrics["chunks"] / 2
    assert np.isfinite(metrics["nll"])


def test_a_token_without_an_embedding_sets_its_chunk_aside(
    folder: Path, made: MadeRows, tmp_path: Path
) -> None:
    """A tokenizer may have more tokens than its model has embeddings."""
    shutil.copytree(made.folder, tmp_path / "corpus")
    file = tmp_path / "corpus" / "00000.tokens.safetensors"
    tensors = load_file(file)
    row = int(np.flatnonzero(tensors["part"] == PARTS.index("scored"))[1])
    begin, end = tensors["starts"][row : row + 2]
    tensors["ids"][begin] = 60_000
    tensors["digest"][row] = chunk_digest(tensors["ids"][begin:end])
    save_file(tensors, file)
    corpus = Corpus.open(tmp_path / "corpus")
    replace(corpus, about={**corpus.about, "vocabulary": 60_001}).write_about()
    damaged = replace(made, folder=corpus.folder)
    metrics = corpora.scored(folder, damaged, "outside")
    assert list(metrics["set_aside"].values()) == [1]
    [line] = gzip.decompress((folder / "outside" / "set_aside.jsonl.gz").read_bytes()).splitlines()
    reason = "a token id is not below 320, the number of the model's embeddings"
    assert json.loads(line) == {"row": row, "reason": reason}
    with pytest.raises(ModelError, match=r"max_set_aside allows 0\.0%"):
        corpora.scored(folder, damaged, "none", settings={"max_set_aside": 0.0})


def test_a_model_whose_answers_are_not_finite_is_refused(folder: Path, made: MadeRows) -> None:
    _spoiled(folder, "broken", slice(None))
    with pytest.raises(NonFiniteError, match=r"have no score, max_set_aside allows 1\.0%: .* NaN"):
        corpora.scored(folder, made, "none", "broken")
    assert not list((folder / "none.scratch" / "scores").iterdir())


def test_two_models_score_the_same_sample(folder: Path, made: MadeRows, scores: Path) -> None:
    corpora.write_model(folder / "other", seed=1)
    for name, model in (("few", "model"), ("few_by_other", "other")):
        metrics = corpora.scored(folder, made, name, model, settings={"chunks": 20})
        assert metrics["chunks"] == 20
    for file in sorted(scores.glob("*.scores.safetensors")):
        few, other = (read_scores(folder / name / file.name) for name in ("few", "few_by_other"))
        assert np.array_equal(few.row, other.row)
        whole = read_scores(file)
        log_p = dict(zip(whole.row.tolist(), whole.log_p.tolist(), strict=True))
        wanted = [log_p[row] for row in few.row.tolist()]
        np.testing.assert_allclose(few.log_p, wanted, rtol=2e-5, atol=1e-4)


def test_operations_are_those_of_each_chunk_alone(
    folder: Path, made: MadeRows, scores: Path
) -> None:
    metrics = corpora.scored(folder, made, "counted")
    model = load_model(folder / "model").model
    lengths = [read_scores(file).tokens for file in sorted(scores.glob("*.scores.safetensors"))]
    wanted = sum(flops(model, 1, int(tokens)) for tokens in np.concatenate(lengths))
    assert metrics["flops"] == wanted


def test_data_that_is_no_corpus_is_refused(folder: Path) -> None:
    from attar.data.config import FilesData

    with pytest.raises(UsageError, match="not a corpus"):
        corpora.scored(folder, FilesData(path="texts", text="text", label_names=None), "none")


def test_damaged_scores_are_refused(scores: Path, tmp_path: Path) -> None:
    file = tmp_path / "00000.scores.safetensors"
    file.write_bytes(score_file(scores, 0).read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_scores(file)
