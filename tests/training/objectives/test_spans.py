"""T5's pre-training over shards: full rows, other spans in every epoch, the same after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import corpora
from attar.artifacts import read_json
from attar.data.config import FilesData
from attar.data.corpus.spans import Corruption
from attar.data.corpus.stream import StreamRows
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.errors import ModelError, StoppedError, UsageError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.memory import measure_here
from attar.evaluation.run import evaluate
from attar.losses.targets import UNLABELLED
from attar.models.load import load_model
from attar.special_tokens import open_tokenizer
from attar.step import MadeRows
from attar.tasks.denoising import PUBLISHED, Denoiser
from attar.training import work
from attar.training.config import TrainStep
from attar.training.objectives.spans import HiddenSpans
from attar.training.run import train

CPU = torch.device("cpu")
LENGTH = 64
LEARNED = {"train_on": "texts", "vocab_size": 320, "sentinels": 20}
SMALL = {"d_model": 16, "d_ff": 24, "d_kv": 4, "dropout_rate": 0.1}
SETTINGS: dict[str, Any] = {
    "model": {"size": "nano", "family": "t5", "tokenizer": "corpus", "config": SMALL},
    "data": "corpus",
    "objective": "span_corruption",
    "max_length": LENGTH,
    "batch_size": 16,
    "max_steps": 6,
    "evaluations": 2,
    "optimizer": "adafactor",
    "learning_rate": 0.03,
    "schedule": "constant",
    "weight_decay": 0.0,
    "max_grad_norm": False,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    corpora.write_documents(folder / "texts")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> MadeRows:
    """A corpus in chunks of 24 tokens, with a tokenizer that was learned on it."""
    made, _ = corpora.tokenized(folder, settings={"tokenizer": LEARNED, "reserve": 0.0})
    return MadeRows("attar.selection.rows:corpus_rows", made.folder, made.step, 0)


@pytest.fixture(scope="module")
def spans(made: MadeRows) -> HiddenSpans:
    corruption = Corruption.of(PUBLISHED, LENGTH, made.folder, seed=0)
    view = CorpusView(Corpus.open(made.folder))
    return HiddenSpans(StreamRows(view, corruption.raw_tokens), corruption, start_id=0)


def _train(folder: Path, made: MadeRows, name: str, **settings: Any) -> dict[str, Any]:
    texts = FilesData(path="texts", text="text", objective="causal_lm", label_names=None)
    data = {"texts": texts, "corpus": made}
    should_stop = settings.pop("should_stop", lambda: False)
    inputs = {"corpus": made.folder}
    context = corpora.context(folder, name, data, inputs=inputs, should_stop=should_stop)
    return dict(train(TrainStep.model_validate({**SETTINGS, **settings}), context))


@pytest.fixture(scope="module")
def trained(folder: Path, made: MadeRows) -> dict[str, Any]:
    return _train(folder, made, "whole")


def test_rows_fill_the_encoder_and_their_targets_have_one_length(spans: HiddenSpans) -> None:
    assert len(spans) > 3
    inputs, targets = spans.batch(np.arange(len(spans)), CPU)
    full = slice(0, len(spans) - 1)
    assert inputs["input_ids"].shape == (len(spans), LENGTH)
    assert inputs["attention_mask"][full].all()
    (published,) = PUBLISHED
    written = published.targets(spans.corruption.raw_tokens)
    assert targets.labels.shape[1] == written
    assert (targets.labels[full] != UNLABELLED).all()
    fed = inputs["decoder_input_ids"]
    assert (fed[:, 0] == 0).all()
    is_fed = inputs["decoder_attention_mask"][:, 1:] > 0
    assert torch.equal(fed[:, 1:][is_fed], targets.labels[:, :-1][is_fed])


def test_counts_are_those_of_the_batch_and_of_an_epoch(spans: HiddenSpans) -> None:
    every = np.arange(len(spans))
    inputs, targets = spans.batch(every, CPU)
    counts = spans.counts(every)
    assert counts["encoder"] == inputs["attention_mask"].sum()
    assert counts["decoder"] == counts["labelled"] == (targets.labels != UNLABELLED).sum()
    assert spans.tokens == counts["encoder"] + counts["decoder"] == spans.lengths.sum()


def test_every_epoch_hides_other_spans_of_the_same_texts(spans: HiddenSpans) -> None:
    first, again, next_epoch = (
        spans.batch(np.array([row]), CPU)[0]["input_ids"][0].tolist() for row in (0, 0, len(spans))
    )
    assert first == again != next_epoch
    sentinels = set(spans.corruption.sentinels.tolist())
    texts = [[t for t in row if t not in sentinels] for row in (first, next_epoch)]
    assert len(texts[0]) == len(texts[1])
    assert texts[0][-1] == texts[1][-1] == spans.corruption.end_id


def test_products_alone_have_the_rows_that_each_matrix_reads(
    spans: HiddenSpans, trained: dict[str, Any], folder: Path
) -> None:
    model = load_model(folder / "whole" / "model").model
    seen: list[tuple[tuple[int, int], int]] = []

    def see(module: torch.nn.Linear, given: tuple[torch.Tensor], _: torch.Tensor) -> None:
        rows = given[0].numel() // module.in_features
        seen.append(((module.in_features, module.out_features), rows))

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(see)
    inputs, _ = spans.batch(np.arange(2), CPU)
    model(**inputs)
    read, written = (inputs[name].numel() for name in ("input_ids", "decoder_input_ids"))
    assert sorted(seen) == sorted(work._shapes(model, read, written))
    assert trained["matmul_share"] > 0


def test_a_model_learns_to_write_what_is_hidden(trained: dict[str, Any], folder: Path) -> None:
    losses = [row["validation"]["nll"] for row in _history(folder / "whole")]
    assert losses[-1] < losses[0] < np.log(320) + 1.5
    assert trained["objective"] == "span_corruption"
    assert trained["data"]["train_rows"] < 100
    task = read_json(folder / "whole" / "model" / "task.json")
    assert task["objective"] == "span_corruption"
    assert task["denoisers"] == [{"share": 1.0, "noise_density": 0.15, "mean_span": 3.0}]
    model = load_model(folder / "whole" / "model").model
    assert model.config.decoder_start_token_id == 0


def _history(folder: Path) -> list[dict[str, Any]]:
    import json

    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [line for line in lines if "validation" in line]


def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    folder: Path, made: MadeRows, trained: dict[str, Any]
) -> None:
    """Over more than one epoch, with Adafactor's moments and dropout."""
    asked: list[int] = []

    def fourth() -> bool:
        asked.append(1)
        return len(asked) == 4

    assert trained["epochs"] > 1
    with pytest.raises(StoppedError):
        _train(folder, made, "stopped", should_stop=fourth)
    _train(folder, made, "stopped")
    whole, resumed = (
        load_file(folder / name / "model" / "model.safetensors") for name in ("whole", "stopped")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_evaluation_hides_the_spans_that_training_validated_on(
    folder: Path, trained: dict[str, Any]
) -> None:
    texts = FilesData(path="texts", text="text", objective="causal_lm", label_names=None)
    model = folder / "whole" / "model"
    step = EvaluateStep(models=("whole",), data="texts", memory=False, speed=None, bootstrap=100)
    context = corpora.context(folder, "judged", {"texts": texts}, inputs={"whole": model})
    found = evaluate(step, context)["models"]["whole"]
    assert found["nll"]["value"] == pytest.approx(trained["validation"]["nll"], rel=1e-5)
    assert found["perplexity"]["value"] == pytest.approx(np.exp(found["nll"]["value"]))


def test_the_operations_are_those_of_what_each_stack_reads(
    folder: Path, trained: dict[str, Any], spans: HiddenSpans
) -> None:
    from attar.models.cost import flops

    model = load_model(folder / "whole" / "model").model
    assert spans.written is not None
    row = flops(model, 1, round(spans.tokens / len(spans)) - spans.written, spans.written)
    rows = trained["flops"] / (3 * row)
    assert rows == round(rows)
    assert trained["tokens"] > 0


def test_a_mixture_of_denoisers_is_padded_to_its_longest_row(folder: Path, made: MadeRows) -> None:
    mixture = [{"share": 1.0}, {"share": 1.0, "noise_density": 0.5, "mean_span": 8}]
    found = _train(folder, made, "mixture", max_steps=2, denoisers=mixture)
    assert np.isfinite(found["validation"]["nll"])
    assert len(read_json(folder / "mixture" / "model" / "task.json")["denoisers"]) == 2


UL2 = (
    Denoiser(share=2, prefix="[R]"),
    Denoiser(noise_density=0.25, mean_span="suffix", prefix="[S]"),
    Denoiser(noise_density=0.5, mean_span=8, prefix="[X]"),
)
"""Spans, one span at the end, and much of the text; each said by a token that is read first."""


def test_denoisers_with_prefixes_are_told_apart_trained_and_judged(
    folder: Path, made: MadeRows
) -> None:
    kinds = [denoiser.prefix for denoiser in UL2]
    learned = {**LEARNED, "special_tokens": kinds}
    settings = {"tokenizer": learned, "reserve": 0.0}
    corpus, _ = corpora.tokenized(folder, "ul2_corpus", settings=settings)
    ul2 = MadeRows("attar.selection.rows:corpus_rows", corpus.folder, corpus.step, 0)
    denoisers = [denoiser.model_dump() for denoiser in UL2]
    found = _train(folder, ul2, "ul2", denoisers=denoisers, max_steps=8)

    corruption = Corruption.of(UL2, LENGTH, corpus.folder, seed=0)
    rows = HiddenSpans(
        StreamRows(CorpusView(Corpus.open(corpus.folder)), corruption.raw_tokens), corruption, 0
    )
    inputs, targets = rows.batch(np.arange(len(rows) - 1), CPU)
    ids = {open_tokenizer(corpus.folder).token_to_id(kind): kind for kind in kinds}
    seen = [ids[int(row[0])] for row in inputs["input_ids"]]
    assert set(seen) == set(kinds), "rows of every kind, each with its prefix first"
    is_sentinel = torch.isin(targets.labels, torch.from_numpy(corruption.sentinels))
    by_kind = dict(zip(kinds, UL2, strict=True))
    for kind, spans_of_row in zip(seen, is_sentinel.sum(dim=1).tolist(), strict=True):
        assert spans_of_row == by_kind[kind].hidden(corruption.raw_tokens).spans

    task = load_model(folder / "ul2" / "model").task
    assert task is not None and task.denoisers == UL2
    texts = FilesData(path="texts", text="text", objective="causal_lm", label_names=None)
    step = EvaluateStep(models=("ul2",), data="texts", memory=False, speed=None, bootstrap=100)
    model = {"ul2": folder / "ul2" / "model"}
    judged = evaluate(step, corpora.context(folder, "ul2_judged", {"texts": texts}, inputs=model))
    nll = judged["models"]["ul2"]["nll"]["value"]
    assert nll == pytest.approx(found["validation"]["nll"], rel=1e-5)
    with pytest.raises(ModelError, match=r"has no token '\[R\]'"):
        _train(folder, made, "refused", denoisers=denoisers)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_length": 512}, ModelError, "has 20 sentinels .* needs 28"),
        ({"model": {**SETTINGS["model"], "family": "llama"}}, ModelError, "no decoder that reads"),
        ({"objective": "causal_lm", "denoisers": [{}]}, UsageError, 'set objective = "span_corr'),
    ],
)
def test_what_cannot_work_is_refused(
    folder: Path,
    made: MadeRows,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    if settings.get("model"):
        settings = {"model": {"size": "nano", "family": "llama", "tokenizer": "corpus"}}
    with pytest.raises(error, match=message):
        _train(folder, made, "refused", **settings)


def test_texts_that_were_not_tokenized_before_are_corrupted_too(
    folder: Path, made: MadeRows
) -> None:
    found = _train(folder, made, "plain", data="texts", max_steps=1)
    assert np.isfinite(found["validation"]["nll"])


def test_a_denoiser_is_refused_that_hides_nothing_or_all() -> None:
    for settings in ({"noise_density": 0.0}, {"noise_density": 1.0}, {"mean_span": 0.5}):
        with pytest.raises(ValueError, match=r"greater|less"):
            Denoiser(**settings)


def test_the_memory_of_writing_hidden_spans_can_be_measured(
    folder: Path, trained: dict[str, Any]
) -> None:
    """In this process, whose high-water mark says nothing of the model: that it runs is the law."""
    texts = [("a text of some words",)]
    found = measure_here(folder / "whole" / "model", texts, LENGTH, (1, 2), threads=1)
    assert found.torch_loaded
    assert found.peak_rss_mib > 0
