"""Every token is predicted once, from as much context as was asked for, whatever the windows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tiny
from attar.errors import DataError, ModelError, NonFiniteError, UsageError
from attar.evaluation.compare import sentence
from attar.evaluation.config import EvaluateStep, Speed
from attar.evaluation.run import evaluate
from attar.numerics.statistics import Difference
from attar.progress import Progress
from attar.scoring import running_text
from attar.scoring.running_text import check_window, read_stream, score_stream, windows
from attar.step import StepContext
from attar.tasks.task import Task
from language_runs import TEXT, write_running_text, write_tokenizer

CONTEXT = 9
ROUNDING = 1e-4
"""Nats of a token in float32, in windows of other shapes."""


def write_language_model(folder: Path, seed: int, family: str = "gpt2") -> Path:
    from transformers import AutoModelForCausalLM

    words = write_tokenizer(folder)
    ids = {"vocab_size": words, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny.tiny_config(family, **ids))
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    Task(
        objective="causal_lm",
        max_length=CONTEXT,
        input_names=("input_ids", "attention_mask"),
        metrics=("nll",),
    ).write(folder)
    return folder


def context_for(root: Path, *models: str) -> StepContext:
    folder = root / f"made{len(list(root.iterdir()))}"
    folder.mkdir()
    return StepContext(
        name="scores",
        folder=folder,
        scratch=root / "scratch",
        inputs={name: root / name for name in models},
        data={"text": TEXT},
        recipe_folder=root,
        progress=Progress(quiet=True),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("language")
    write_running_text(root / "text", documents=8)
    file = root / "text" / "validation.jsonl"
    lines = file.read_text().splitlines()
    rows = [json.loads(line)["text"].split()[: 3 + n] for n, line in enumerate(lines)]
    file.write_text("".join(json.dumps({"text": " ".join(row)}) + "\n" for row in rows))
    write_language_model(root / "a", 0)
    write_language_model(root / "b", 1, "llama")
    return root


def texts(root: Path) -> list[str]:
    lines = (root / "text" / "validation.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def nats_one_by_one(folder: Path, ids: list[int], stride: int) -> list[float]:
    """A forward pass a token."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for place in range(1, len(ids)):
        window = (place - 1) // stride * stride + 1
        end = min(window + stride, len(ids))
        begin = max(0, end - 1 - CONTEXT)
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:place]])).logits[0, -1]
        found.append(-float(logits.log_softmax(-1)[ids[place]]))
    return found


@pytest.mark.parametrize("stride", [None, 4])
def test_every_figure_is_that_of_one_token_after_another(root: Path, stride: int | None) -> None:
    quick = Speed(rounds=3, calls=1, threads=1)
    settings: dict[str, Any] = {"speed": quick, "memory": False, "bootstrap": 200}
    config = EvaluateStep(models=("a", "b"), data="text", stride=stride, batch_size=3, **settings)
    context = context_for(root, "a", "b")
    metrics = evaluate(config, context)
    json.dumps(metrics, allow_nan=False)
    size = sum(len(text.encode()) for text in texts(root))
    table = pq.read_table(context.folder / "predictions.parquet")
    for name in ("a", "b"):
        stream = read_stream(root / name, [(text,) for text in texts(root)], "text")
        expected = sum(nats_one_by_one(root / name, stream.ids.tolist(), stride or CONTEXT))
        entry, tokens = metrics["models"][name], len(stream.ids) - 1
        assert entry["nll"]["value"] == pytest.approx(expected / tokens, abs=ROUNDING)
        assert entry["perplexity"]["value"] == pytest.approx(np.exp(entry["nll"]["value"]))
        bits = expected / np.log(2) / size
        assert entry["bits_per_byte"]["value"] == pytest.approx(bits, abs=ROUNDING)
        low, high = entry["nll"]["ci95"]
        assert low < entry["nll"]["value"] < high
        assert entry["nll"]["n"] == len(texts(root)) == table.num_rows
        assert (entry["context"], entry["stride"]) == (CONTEXT, stride or CONTEXT)
        assert entry["tokens_per_s"] > 0
        shapes = {stage: (t["batch"], t["tokens"]) for stage, t in entry["stages"].items()}
        assert shapes == dict.fromkeys(("prefill", "decode_step"), (1, 39)), "40 positions, 1 new"
        predicted = np.bincount(stream.passages)
        predicted[0] -= 1  # the very first token has no context
        assert table[f"{name}.tokens"].to_pylist() == predicted.tolist()
    assert sum(table["bytes"].to_pylist()) == size
    said = {row["metric"]: row for row in metrics["differences"]}
    assert set(said) == {"nll", "perplexity", "bits_per_byte"}
    gap = metrics["models"]["b"]["nll"]["value"] - metrics["models"]["a"]["nll"]["value"]
    assert said["nll"]["value"] == pytest.approx(gap)
    low, high = said["nll"]["ci95"]
    spans = [metrics["models"][name]["nll"]["ci95"] for name in "ab"]
    assert high - low < sum(top - bottom for bottom, top in spans), "paired, so narrower"


@pytest.mark.parametrize(("tokens", "context", "stride"), [(50, 7, 7), (50, 7, 3), (5, 9, 2)])
def test_windows_predict_every_token_once(tokens: int, context: int, stride: int) -> None:
    found = list(windows(tokens, context, stride))
    predicted = [t for _, end, new in found for t in range(end - new, end)]
    assert predicted == list(range(1, tokens))
    for begin, end, new in found:
        assert end - 1 - begin == min(context, end - 1)
        before_the_first_new = end - new - begin
        assert before_the_first_new >= min(context - stride + 1, end - new)


def test_passages_are_runs_of_characters_of_one_document(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_text, "PASSAGE", 9)
    stream = read_stream(root / "a", [("open the file",), ("",), ("list äö",)], "text")
    assert stream.num_bytes.tolist() == [9, 4, 0, 9]
    assert stream.passages.tolist() == [0, 0, 1, 1, 2, *[3] * (len(stream.ids) - 5)]
    assert [i for i, token in enumerate(stream.ids) if token == 3] == [3, 4, len(stream.ids) - 1]


def test_passages_never_step_back_where_offsets_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer may split one letter into tokens whose offsets are not in order; across a border
    of passages, one token would count for the passage before."""

    class SplitsALetter:
        def encode_batch(self, texts: list[str], **_: Any) -> list[Any]:
            offsets = [(2, 5), (4, 5), (3, 4), (5, 8)]
            return [SimpleNamespace(ids=[5, 6, 7, 8], offsets=offsets) for _ in texts]

    monkeypatch.setattr(running_text, "PASSAGE", 4)
    monkeypatch.setattr(running_text, "document_tokenizer", lambda _: (SplitsALetter(), 3))
    stream = read_stream(Path("unread"), [("eight ch",)], "text")
    assert stream.passages.tolist() == [0, 1, 1, 1, 1]


def test_the_stream_is_what_a_model_was_trained_on(root: Path) -> None:
    from attar.data.packing import token_blocks

    rows = [(text,) for text in texts(root)]
    stream = read_stream(root / "a", rows, "text")
    trained = token_blocks(root / "a", rows, len(stream.ids), "text")
    assert stream.ids.tolist() == trained.encoded.ids.tolist()
    assert int(stream.num_bytes.sum()) == trained.num_bytes


def test_what_cannot_be_measured_is_refused_with_numbers(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="context is 99, model 'a' has 40 positions"):
        check_window(99, None, 40, "a")
    with pytest.raises(UsageError, match="stride is 9, above context = 8"):
        check_window(8, 9, 40, "a")
    with pytest.raises(DataError, match="fewer than 2 tokens"):
        read_stream(root / "a", [("",)], "text")
    stream = read_stream(root / "a", [("open the file",)], "text")
    for broken in (np.nan, np.inf, -np.inf):
        with pytest.raises(NonFiniteError, match=r"3 of 3 tokens.*first: token 1"):
            score_stream(
                stream,
                lambda ids, broken=broken: np.full((len(ids), ids.shape[1] - 1), broken),
                **{"context": 4, "stride": 4, "batch_size": 2, "model": "a"},
                after_tokens=lambda tokens: None,
            )
    tiny.write_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="no end token"):
        read_stream(tmp_path, [("open",)], "text")


def test_a_single_passage_has_no_interval(root: Path, tmp_path: Path) -> None:
    write_running_text(tmp_path / "text", documents=8)
    file = tmp_path / "text" / "validation.jsonl"
    file.write_text(json.dumps({"text": "open the file and read the list"}) + "\n")
    config = EvaluateStep(models=("a",), data="text", speed=None, memory=False)
    context = replace(context_for(root, "a"), recipe_folder=tmp_path)
    with pytest.raises(DataError, match=r"has 1 passage of up to 2,000 characters.*at least 2"):
        evaluate(config, context)


def test_a_classifier_is_not_asked_for_the_next_token(root: Path) -> None:
    from simulated import write_float_model

    if not (root / "classifier").exists():
        write_float_model(root / "classifier")
    config = EvaluateStep(models=("classifier",), data="text", speed=None, memory=False)
    with pytest.raises(ModelError, match="made for classification, data 'text' are for causal_lm"):
        evaluate(config, context_for(root, "classifier"))


def test_a_difference_of_language_models_says_which_is_worse_and_in_what_unit() -> None:
    assert sentence("a", "b", "nll", Difference(0.05, 0.03, 0.07, 300)) == (
        "a is worse than b by 0.050 nats per token (95 % interval 0.030 to 0.070, n = 300 "
        "passages)."
    )
    better = sentence("a", "b", "bits_per_byte", Difference(-0.003, -0.004, -0.002, 300))
    assert better == (
        "a is better than b by 0.0030 bits per byte (95 % interval 0.0020 to 0.0040, n = 300 "
        "passages)."
    )
    level = sentence("a", "b", "nll", Difference(0.003, -0.01, 0.016, 300))
    assert level == (
        "no difference was found between a and b (a minus b: 0.003 nats per token, 95 % interval "
        "\N{MINUS SIGN}0.010 to 0.016, n = 300 passages)."
    )
