"""Training straight from shards: chunks as they were packed, the same whatever kills the run."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import corpora
from attar.data.corpus.order import ChunkBatches
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.errors import ModelError, StoppedError, UsageError
from attar.losses.targets import UNLABELLED
from attar.models.cost import flops
from attar.models.load import LoadedModel, build_model, load_model
from attar.seeds import derive_seed
from attar.step import MadeRows
from attar.training import work
from attar.training.config import TrainStep
from attar.training.objectives.examples import Validation
from attar.training.objectives.shards import Shards
from attar.training.run import train
from attar.training.work import matmul_seconds

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    corpora.write_documents(folder / "texts")
    corpora.write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> MadeRows:
    made, _ = corpora.tokenized(folder)
    return MadeRows("attar.selection.rows:corpus_rows", made.folder, made.step, 0)


@pytest.fixture(scope="module")
def shards(folder: Path, made: MadeRows) -> Shards:
    return Shards.of(CorpusView(Corpus.open(made.folder), "scored"), folder / "model", 24)


SETTINGS: dict[str, Any] = {
    "model": "model",
    "data": "corpus",
    "part": "scored",
    "max_length": 24,
    "batch_size": 6,
    "max_steps": 5,
    "evaluations": 1,
    "learning_rate": 1e-3,
    "precision": "fp32",
}


def _train(folder: Path, made: MadeRows, name: str, **settings: Any) -> dict[str, Any]:
    from attar.data.config import FilesData

    texts = FilesData(path="texts", text="text", objective="causal_lm", label_names=None)
    should_stop = settings.pop("should_stop", lambda: False)
    data = {"texts": texts, "corpus": made}
    context = corpora.context(folder, name, data, should_stop=should_stop)
    return dict(train(TrainStep(**{**SETTINGS, **settings}), context))


def _weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "model" / "model.safetensors")


def test_a_chunk_predicts_every_token_but_its_first(shards: Shards) -> None:
    rows = np.array([3, 0, len(shards) - 1])
    chunks = [ids.tolist() for ids in shards.view.ids(rows)]
    inputs, targets = shards.batch(rows, CPU)
    for place, chunk in enumerate(chunks):
        n = len(chunk) - 1
        assert inputs["input_ids"][place, :n].tolist() == chunk[:-1]
        assert targets.labels[place, :n].tolist() == chunk[1:]
        assert (targets.labels[place, n:] == UNLABELLED).all()
        assert inputs["attention_mask"][place].sum() == n
    counts = shards.counts(rows)
    assert counts["labelled"] == (targets.labels != UNLABELLED).sum() == sum(map(len, chunks)) - 3
    assert counts["decoder"] == inputs["attention_mask"].sum()
    assert shards.lengths[rows].tolist() == [len(chunk) - 1 for chunk in chunks]


def test_a_chunk_of_one_token_is_read_and_predicts_nothing(shards: Shards) -> None:
    class One(CorpusView):
        def ids(self, places: Any) -> Any:
            return [np.array([7])]

        def lengths(self, places: Any) -> Any:
            return np.ones(len(places), np.int64)

    alone = Shards(One(shards.view.corpus))
    inputs, targets = alone.batch(np.array([0]), CPU)
    assert inputs["input_ids"].tolist() == [[7]]
    assert targets.labels.tolist() == [[UNLABELLED]]
    assert alone.counts(np.array([0])) == {"prediction": 1, "labelled": 1, "decoder": 1}


def test_nothing_is_tokenized_and_no_text_of_a_chunk_is_read(
    folder: Path, made: MadeRows, tmp_path: Path
) -> None:
    shutil.copytree(folder / "texts", tmp_path / "texts")
    shutil.copytree(folder / "model", tmp_path / "model")
    shutil.copytree(made.folder, tmp_path / "bare")
    for file in (tmp_path / "bare").glob("*.texts.parquet"):
        file.unlink()
    (tmp_path / "texts" / "train.jsonl").write_text("no json\n")  # the validation split is enough
    bare = MadeRows(made.reader, tmp_path / "bare", made.step, 0)
    metrics = _train(tmp_path, bare, "student", max_steps=1)
    view = CorpusView(Corpus.open(made.folder), "scored")
    assert metrics["data"]["train_rows"] == len(view)


def test_every_chunk_is_learned_from_once_an_epoch(
    folder: Path, made: MadeRows, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    batch = Shards.batch

    def watched(self: Shards, rows: np.ndarray, device: torch.device) -> Any:
        seen.extend(rows.tolist())
        return batch(self, rows, device)

    monkeypatch.setattr(Shards, "batch", watched)
    for order, is_shuffled in (("shuffled", True), ("corpus", False)):
        seen.clear()
        _train(folder, made, f"epoch_{order}", epochs=1, max_steps=None, order=order)
        assert sorted(seen) == list(range(len(shards)))
        assert (seen != sorted(seen)) is is_shuffled


@pytest.mark.parametrize("steps", [1, 3])
def test_a_stopped_run_goes_on_bit_for_bit(folder: Path, made: MadeRows, steps: int) -> None:
    whole, name = f"whole_{steps}", f"stopped_{steps}"
    count = math.ceil(len(CorpusView(Corpus.open(made.folder), "reserved")) / 6) + 2
    cut = {"micro_batch_size": 4} if steps == 3 else {}
    settings = {"part": "reserved", "max_steps": count, **cut}  # into the second epoch
    _train(folder, made, whole, **settings)
    asked = itertools.count()
    with pytest.raises(StoppedError):
        _train(folder, made, name, **settings, should_stop=lambda: next(asked) >= steps)
    _train(folder, made, name, **settings)
    expected, found = _weights(folder, whole), _weights(folder, name)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    histories = [(folder / each / "history.jsonl").read_bytes() for each in (whole, name)]
    assert histories[0] == histories[1]


def test_a_batch_is_one_micro_batch_or_four_of_unequal_tokens(
    folder: Path, made: MadeRows, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, or rounding would hide a mean of means."""

    def build_in_double(*given: Any, **settings: Any) -> LoadedModel:
        loaded = build_model(*given, **settings)
        loaded.model.double()
        return loaded

    monkeypatch.setattr("attar.training.run.build_model", build_in_double)
    batches = ChunkBatches(len(shards), 7, derive_seed(0, "order")).at(0)
    parts = [shards.lengths[batches[at : at + 2]].sum() for at in range(0, 7, 2)]
    assert len(parts) == len(set(parts)) == 4
    for name, cut in (("whole", {}), ("cut", {"micro_batch_size": 2})):
        _train(folder, made, name, max_steps=2, batch_size=7, warmup_steps=0, **cut)
    whole, cut = _weights(folder, "whole"), _weights(folder, "cut")
    start = load_file(folder / "model" / "model.safetensors")
    moved = max(float((whole[key] - start[key]).abs().max()) for key in whole)
    assert moved > 1e-4
    assert all((whole[key] - cut[key]).abs().max() < 1e-10 for key in whole)


def test_chunks_as_validation_rows_have_the_mean_over_their_tokens(
    folder: Path, shards: Shards
) -> None:
    model = load_model(folder / "model", task=None, seed=0).model.eval()
    small = Shards(shards.view.take(np.arange(7)))
    found = small.validate(Validation(model, ("nll", "bits_per_byte"), 3))
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for ids in small.view.ids(np.arange(7)):
            log_p = model(torch.from_numpy(ids)[None]).logits[0].log_softmax(-1)
            nats -= float(log_p[:-1].gather(1, torch.from_numpy(ids)[1:, None]).sum())
            tokens += len(ids) - 1
    num_bytes = sum(len(text.encode()) for text in small.view.all_texts())
    assert found["nll"] == pytest.approx(nats / tokens, rel=1e-5)
    expected = nats / math.log(2) / (num_bytes * tokens / small.view.tokens)
    assert found["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_another_tokenizer_is_refused_with_the_way_out(folder: Path, made: MadeRows) -> None:
    other = corpora.write_model(folder / "other_words")
    words = json.loads((other / "tokenizer.json").read_text())
    words["model"]["merges"].pop()
    (other / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ModelError, match=r'from = "corpus", retokenize = true, max_length = 24'):
        _train(folder, made, "refused", model="other_words")


def test_a_shorter_max_length_is_refused(folder: Path, made: MadeRows) -> None:
    with pytest.raises(UsageError, match="set max_length = 24"):
        _train(folder, made, "refused", max_length=16)


def test_corpus_order_belongs_to_a_corpus(folder: Path, made: MadeRows) -> None:
    with pytest.raises(UsageError, match=r'order = "corpus".*leave order out'):
        _train(folder, made, "refused", data="texts", part="all", order="corpus")


def test_a_teacher_answers_about_chunks(folder: Path, made: MadeRows) -> None:
    corpora.write_model(folder / "teacher", seed=5)
    losses = [{"kind": "forward_kl"}, {"kind": "cross_entropy"}]
    metrics = _train(folder, made, "taught", teacher="teacher", losses=losses)
    assert math.isfinite(metrics["validation"]["nll"])
    alone = _train(
        folder, made, "taught_by_itself", teacher="model", losses=losses[:1], max_steps=1
    )
    line = (folder / "taught_by_itself" / "history.jsonl").read_text().splitlines()[0]
    assert alone["steps"] == 1
    assert (
        '"forward_kl": 0.0' in line or float(line.split('"forward_kl": ')[1].split("}")[0]) < 1e-6
    )


def test_batches_are_a_function_of_the_step() -> None:
    batches = ChunkBatches(100, 8, seed=3)
    assert len(batches) == 13
    seen = np.concatenate([batches.at(step) for step in range(13)])
    assert sorted(seen.tolist()) == list(range(100))
    assert batches.at(20).tolist() == ChunkBatches(100, 8, seed=3).at(20).tolist()
    assert batches.at(20).tolist() != batches.at(7).tolist()


def test_budgets_are_in_tokens_of_the_chunks(folder: Path, made: MadeRows, shards: Shards) -> None:
    settings = {"max_steps": None, "batch_tokens": 100, "evaluate_at_tokens": [200, 10**9]}
    metrics = _train(folder, made, "budget", **settings, max_tokens=500)
    lines = map(json.loads, (folder / "budget" / "history.jsonl").read_text().splitlines())
    history = list(lines)
    a_step = 4 * shards.tokens / len(shards)  # 100 tokens hold 4 chunks of 24
    assert metrics["steps"] == math.ceil(500 / a_step)
    assert 0 <= metrics["tokens"] - 500 < 4 * 24
    assert metrics["tokens"] == history[-1]["tokens"]
    evaluated = [line["step"] for line in history if "validation" in line]
    assert evaluated == [math.ceil(200 / a_step), metrics["steps"]]


def test_the_result_has_the_work_of_training(folder: Path, made: MadeRows, shards: Shards) -> None:
    metrics = _train(folder, made, "worked", epochs=1, max_steps=None)
    assert metrics["tokens"] == shards.tokens
    model = load_model(folder / "model", task=None, seed=0).model
    forward = flops(model, 1, round(shards.tokens / len(shards)))
    assert metrics["flops"] == 3 * forward * len(shards)
    assert metrics["tokens_per_s"] > 0
    assert metrics["matmul_share"] > 0


def test_only_products_of_weights_with_tokens_are_timed(folder: Path) -> None:
    model = load_model(folder / "model", task=None, seed=0).model
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    shapes = [((m.in_features, m.out_features), 64) for m in linear]
    assert sorted(work._shapes(model, 64, None)) == sorted(shapes)
    assert matmul_seconds(model, 64, dtype=torch.float32) > 0


def test_a_model_with_another_tokenizer_learns_from_the_texts_packed_again(
    folder: Path, made: MadeRows
) -> None:
    other = corpora.write_model(folder / "other_pieces")
    words = json.loads((other / "tokenizer.json").read_text())
    del words["model"]["merges"][20:]
    (other / "tokenizer.json").write_text(json.dumps(words))
    data = {"from": "corpus", "retokenize": True, "max_length": 20}
    metrics = _train(folder, made, "retokenized", model="other_pieces", data=data)
    again = Corpus.open(folder / "retokenized.scratch" / "retokenized")
    assert metrics["data"]["train_rows"] == len(again)
    assert again.about["max_length"] == 20
    of_scored = Corpus.open(made.folder)
    texts = [sorted("".join(CorpusView(each, "scored").all_texts())) for each in (of_scored, again)]
    assert "".join(texts[0]).strip() == "".join(texts[1]).strip()


def test_a_table_is_never_retokenized(folder: Path, made: MadeRows) -> None:
    data = {"from": "texts", "retokenize": True}
    with pytest.raises(UsageError, match="write data = 'texts'"):
        _train(folder, made, "refused", data=data, part="all")


def test_memory_does_not_grow_with_the_corpus(made: MadeRows, tmp_path: Path) -> None:
    """The same shard under a hundred numbers is a larger corpus."""
    corpus = Corpus.open(made.folder)
    peaks = []
    for count in (2, 200):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            for kind in ("tokens.safetensors", "texts.parquet"):
                (folder / f"{number:05}.{kind}").hardlink_to(corpus.folder / f"00000.{kind}")
        about = {**corpus.about, "shards": [corpus.about["shards"][0]] * count}
        large = Shards(CorpusView(Corpus(folder, about), "scored"))
        batches = ChunkBatches(len(large), 8, seed=0)
        large.batch(batches.at(0), CPU)
        tracemalloc.start()
        for step in range(20):
            large.counts(batches.at(step))
            large.batch(batches.at(step), CPU)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(large) > 20 * count
    assert peaks[1] < 1.5 * peaks[0] + 2**14, peaks


def test_a_model_is_narrowed_by_what_it_makes_of_chunks(folder: Path, made: MadeRows) -> None:
    narrower = {"from": "model", "intermediate_size": 8}
    metrics = _train(folder, made, "narrowed", model=narrower, max_steps=1)
    whole = sum(t.numel() for t in load_file(folder / "model" / "model.safetensors").values())
    assert metrics["num_params"] < whole
