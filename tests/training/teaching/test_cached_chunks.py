"""Answers about a corpus's chunks: a file per shard, found by the chunks' own digests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import corpora
from attar.artifacts import Result, read_json, seal, verify, write_json
from attar.data.config import FilesData
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import DIGEST_FILE, KEPT_FILE, CorpusView
from attar.errors import ArtifactError, DataError, ModelError, StoppedError
from attar.step import MadeRows
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep
from attar.training.run import train
from attar.training.teaching.cache import cache

ROUNDING = 1e-3
"""Of the codec's five bits, after a few steps."""
Place = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A corpus of some shards, two selections of it, and a teacher with something to say."""
    folder = tmp_path_factory.mktemp("distributions")
    corpora.write_documents(folder / "texts")
    corpora.write_model(folder / "model")
    corpora.write_model(folder / "teacher", seed=1, initializer_range=0.3)
    made, _ = corpora.tokenized(folder)
    corpus = Corpus.open(made.folder)
    data: dict[str, Any] = {
        "corpus": MadeRows("attar.selection.rows:corpus_rows", made.folder, made.step, 0)
    }
    for name, rows in (("kept", np.arange(3, len(corpus), 2)), ("few", np.arange(3, 40, 4))):
        (folder / name).mkdir()
        save_file({"row": rows}, folder / name / KEPT_FILE)
        write_json(folder / name / DIGEST_FILE, CorpusView(corpus, kept=rows).digest())
        step: Any = SimpleNamespace(data="corpus")
        data[name] = MadeRows("attar.selection.rows:selected_rows", folder / name, step, 0)
    settings = {"path": "texts", "text": "text", "objective": "causal_lm", "label_names": None}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder, {"texts": FilesData.model_validate(settings), **data}
    torch.set_num_threads(threads)


def cached(place: Place, name: str, data: str = "kept", **settings: Any) -> dict[str, Any]:
    folder, made = place
    stop = settings.pop("should_stop", lambda: False)
    shutil.rmtree(folder / name, ignore_errors=True)
    context = corpora.context(folder, name, made, should_stop=stop)
    fixed = {"teacher": "teacher", "max_length": 24, "batch_size": 7, "precision": "fp32"}
    return cache(CacheStep(data=data, **{**fixed, **settings}), context)


def losses(place: Place, teacher: str, data: str = "kept", **settings: Any) -> list[dict[str, Any]]:
    """Of a student's steps."""
    folder, made = place
    for name in ("student", "student.scratch"):
        shutil.rmtree(folder / name, ignore_errors=True)
    inputs = {teacher: folder / teacher} if teacher not in ("teacher", "wide") else {}
    context = corpora.context(folder, "student", made, inputs=inputs)
    fixed: dict[str, Any] = {"max_length": 24, "batch_size": 6, "max_steps": 4, "evaluations": 1}
    fixed |= {"model": "model", "precision": "fp32", "learning_rate": 1e-3}
    train(TrainStep(data=data, teacher=teacher, **{**fixed, **settings}), context)
    lines = map(json.loads, (folder / "student" / "history.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def whole(place: Place) -> dict[str, Any]:
    """The cache of the whole corpus, by default settings."""
    return cached(place, "whole", "corpus")


def test_each_shard_has_a_file_of_records_keyed_by_the_digests_of_its_chunks(
    place: Place, whole: dict[str, Any]
) -> None:
    folder, made = place
    corpus = Corpus.open(made["corpus"].folder)
    assert len(corpus.shards) > 2
    assert whole["distribution"] == {"exact": 32, "tail_draws": 8}
    for number, shard in enumerate(corpus.shards):
        rows = load_file(folder / "whole" / f"rows-{number:05}.safetensors")
        np.testing.assert_array_equal(rows["fingerprints"], shard.digest)
        np.testing.assert_array_equal(rows["predictions.counts"], shard.lengths - 1)
        packed = load_file(folder / "whole" / f"logits-{number:05}.safetensors")["values"]
        assert packed.dtype == np.uint8
        assert packed.shape == ((shard.lengths - 1).sum(), whole["bytes_per_token"])
    assert 0.2 < whole["mass_exact"] < 0.99
    header = read_json(folder / "whole" / "cache.json")
    assert header["sparse"]["exact"] == 32 and header["bits"] == 5


@pytest.mark.parametrize("size", [6, 2])
def test_students_of_a_selection_learn_from_the_cache_of_the_whole_corpus(
    place: Place, whole: dict[str, Any], size: int
) -> None:
    """However the batch is cut, and as from a cache of the selection alone, whose batches of the
    teacher are other ones."""
    mine = [line["loss"] for line in losses(place, "whole", micro_batch_size=size)]
    assert [line["loss"] for line in losses(place, "whole")] == pytest.approx(mine, rel=1e-5)
    cached(place, "alone")
    assert [line["loss"] for line in losses(place, "alone")] == pytest.approx(mine, rel=1e-5)


def test_a_cache_of_every_id_teaches_what_the_live_teacher_does_to_rounding(place: Place) -> None:
    cached(place, "every", distribution={"exact": 4096, "tail_draws": 8})
    cached(place, "dense", distribution="dense")
    live = [line["loss"] for line in losses(place, "teacher")]
    assert [line["loss"] for line in losses(place, "dense")] == pytest.approx(live, rel=1e-5)
    assert [line["loss"] for line in losses(place, "every")] == pytest.approx(live, rel=ROUNDING)


def test_draws_are_near_the_live_loss_and_a_bucket_is_called_a_lower_bound(
    place: Place, whole: dict[str, Any]
) -> None:
    cached(place, "bucket", distribution={"exact": 32, "tail": "bucket"})
    live, drawn, bound = (
        losses(place, teacher, max_steps=1, batch_size=60)[0]["losses"]
        for teacher in ("teacher", "whole", "bucket")
    )
    assert drawn["forward_kl"] == pytest.approx(live["forward_kl"], abs=0.05)
    assert sorted(bound) == ["cross_entropy", "forward_kl_lower_bound"]
    assert bound["forward_kl_lower_bound"] < live["forward_kl"]
    assert bound["cross_entropy"] == pytest.approx(live["cross_entropy"])


def test_chunks_that_the_teacher_was_not_asked_about_are_refused_with_their_number(
    place: Place,
) -> None:
    folder, made = place
    cached(place, "small", "few")
    kept = len(CorpusView.of_selection(Corpus.open(made["corpus"].folder), folder / "kept"))
    said = rf"10 rows of data 'few', and {kept - 10} of the {kept} rows .* \(rows 1, 3"
    with pytest.raises(DataError, match=said):
        losses(place, "small")


@pytest.mark.parametrize("batch", [0, 3, 8])
def test_a_stopped_cache_goes_on_inside_a_shard_and_has_the_same_bytes(
    place: Place, whole: dict[str, Any], batch: int
) -> None:
    folder, _ = place
    polls = iter(range(1000))
    with pytest.raises(StoppedError, match=f"after batch {batch} of"):
        cached(place, "stopped", "corpus", should_stop=lambda: next(polls) == batch)
    cached(place, "stopped", "corpus")
    for file in sorted((folder / "whole").glob("*.*")):
        assert (folder / "stopped" / file.name).read_bytes() == file.read_bytes()
    shutil.rmtree(folder / "stopped.scratch")


def test_another_teacher_tokenizer_or_a_flipped_byte_is_refused(
    place: Place, whole: dict[str, Any]
) -> None:
    folder, _ = place
    cached(place, "spoiled")
    file = folder / "spoiled" / "logits-00001.safetensors"
    good = file.read_bytes()
    seal(folder / "spoiled", Result(step="spoiled", run="cache", key="k"))
    file.unlink()  # the other name, in scratch, stays as it is
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"logits-00001\.safetensors was changed"):
        verify(folder / "spoiled")
    tensors = load_file(file)
    save_file({"values": np.roll(tensors["values"], 1, axis=0)}, file)
    with pytest.raises(ArtifactError, match=r"train row \d+, the distributions: .* nats"):
        losses(place, "spoiled")
    file.write_bytes(good)
    header = folder / "spoiled" / "cache.json"
    about = read_json(header)
    for name in ("weights", "tokenizer"):
        write_json(header, about | {name: "another"})
        with pytest.raises(ArtifactError, match=f"its {name} has the hash"):
            losses(place, "spoiled")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"kind": "reverse_kl"}, "weights tokens by the student's probabilities"),
        ({"kind": "jsd"}, "weights tokens by the student's probabilities"),
        ({"kind": "forward_kl", "temperature": 2.0}, "temperature = 2.0 changes"),
        ({"kind": "hidden_mse"}, r"need hidden state .* distributions \(32 exact ids and 8 draws"),
    ],
)
def test_losses_that_need_more_are_refused_before_training(
    place: Place, whole: dict[str, Any], loss: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        losses(place, "whole", losses=[loss])


def test_a_student_of_fewer_words_learns_from_a_cache_of_all_of_them(place: Place) -> None:
    folder, _ = place
    corpora.write_model(folder / "wide", seed=1, vocab_size=384)
    cached(place, "dense", teacher="wide", distribution="dense")
    from_cache, live = (losses(place, teacher) for teacher in ("dense", "wide"))
    for one, other in zip(from_cache, live, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-4)
