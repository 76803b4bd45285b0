"""Running text: what a causal language model learns from, and how it is judged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from attar.data.packing import token_blocks
from attar.data.tables import Split
from attar.errors import DataError, ModelError
from attar.losses.targets import UNLABELLED
from attar.models.load import load_model
from attar.tasks.task import Task
from attar.training.objectives.next_tokens import Documents
from language_runs import TEXT, model_config, write_running_text, write_tokenizer
from training_runs import read_history, read_weights, run_training


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_running_text(tmp_path / "text")
    return tmp_path


def test_documents_lie_end_to_end_and_every_token_is_in_one_block(place: Path) -> None:
    write_tokenizer(place / "gpt2")
    texts = [("open the file",), ("close",), ("read a list",)]
    blocks = token_blocks(place / "gpt2", texts, 4, "here")
    found = blocks.encoded
    assert found.lengths.tolist() == [4, 4, 2]
    assert [i for i, id_ in enumerate(found.ids) if id_ == 3] == [3, 5, 9], "ends, nothing else"
    assert blocks.num_bytes == sum(len(text) for (text,) in texts)
    cut = token_blocks(place / "gpt2", texts, 9, "here").encoded
    assert cut.lengths.tolist() == [9], "a last block of one token predicts nothing"


def test_labels_are_the_next_tokens_and_padding_has_none(place: Path) -> None:
    write_tokenizer(place / "gpt2")
    split = Split((("open the file",), ("close the",)), np.array([-1, -1]))
    documents = Documents.of(split, place / "gpt2", 5, "here")
    inputs, targets = documents.batch(np.array([0, 1]), torch.device("cpu"))
    ids = inputs["input_ids"]
    assert targets.labels[0].tolist() == [*ids[0, 1:].tolist(), UNLABELLED]
    assert targets.labels[1].tolist() == [ids[1, 1].item(), *[UNLABELLED] * 4]
    counts = documents.counts(np.array([0, 1]))
    assert counts == {"prediction": 5, "labelled": 5, "decoder": 7}
    assert counts["labelled"] == int((targets.labels != UNLABELLED).sum())


def test_a_language_model_learns_to_foresee_and_knows_its_task(place: Path) -> None:
    metrics = run_training(
        place,
        model=model_config(place / "gpt2", "gpt2"),
        data_config=TEXT.model_copy(update={"path": str(place / "text")}),
        max_length=16,
        max_steps=60,
        learning_rate=1e-2,
    )
    looks = [line["validation"] for line in read_history(place) if "validation" in line]
    assert looks[-1]["nll"] < 0.5 * math.log(60), "better than half of guessing"
    assert metrics["validation"]["nll"] == min(look["nll"] for look in looks), "the lowest is best"
    assert looks[-1]["perplexity"] == pytest.approx(math.exp(looks[-1]["nll"]))
    lines = (place / "text" / "validation.jsonl").read_text().splitlines()
    texts = [(json.loads(line)["text"],) for line in lines]
    blocks = token_blocks(place / "gpt2", texts, 16, "here")
    bits_a_token = looks[-1]["nll"] / math.log(2)
    per_byte = bits_a_token * len(blocks.encoded.ids) / blocks.num_bytes
    assert looks[-1]["bits_per_byte"] == pytest.approx(per_byte), "first tokens have no bytes"
    model = place / "out" / "model"
    assert Task.read(model).objective == "causal_lm"
    assert type(load_model(model).model).__name__ == "GPT2LMHeadModel"


def test_a_language_model_is_distilled_and_resumes_bit_for_bit(place: Path, tmp_path: Path) -> None:
    losses = [{"kind": "forward_kl"}, {"kind": "hidden_mse", "weight": 0.1}]
    model = model_config(place / "gpt2", "gpt2")
    text = TEXT.model_copy(update={"path": str(place / "text")})
    shared = {"data_config": text, "max_length": 16, "max_steps": 8}
    run_training(place, model=model, **shared)
    (place / "out").rename(place / "teacher")
    settings = {**shared, "model": {"from": "teacher/model", "keep_blocks": [1]}}
    settings |= {"teacher": "teacher/model", "losses": losses, "checkpoint_every": 3}
    scratch = place / "scratch"
    scratch.rename(place / "first")
    run_training(place, **settings)
    whole = read_weights(place)
    for leftover in sorted(scratch.glob("checkpoint-*"))[-1:]:
        assert leftover.name == "checkpoint-00000006"
    run_training(place, **settings)  # goes on from step 6 and repeats the rest
    again = read_weights(place)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    terms = [line["losses"] for line in read_history(place) if "losses" in line]
    assert terms and all(set(term) == {"forward_kl", "hidden_mse"} for term in terms)


def test_a_model_that_reads_both_ways_is_refused(place: Path) -> None:
    with pytest.raises(ModelError, match=r"reads in both directions.*gpt2"):
        run_training(
            place,
            model=model_config(place / "bert", "bert"),
            data_config=TEXT.model_copy(update={"path": str(place / "text")}),
        )


def test_too_little_text_and_no_end_token_are_refused(place: Path) -> None:
    write_tokenizer(place / "gpt2")
    with pytest.raises(DataError, match="has 1 tokens"):
        token_blocks(place / "gpt2", [("",)], 8, "split 'train'")
    tiny.write_tokenizer(place / "endless")
    with pytest.raises(ModelError, match="no end token"):
        token_blocks(place / "endless", [("a",)], 8, "here")


def test_a_head_of_an_unknown_kind_learns_the_same_and_is_told_to_hold_all_logits(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = model_config(place / "gpt2", "gpt2")
    odd = {**known, "config": {**known["config"], "logit_scale": 0.5}}  # GPT-2 does not scale
    made: list[dict[str, torch.Tensor]] = []
    for model in (known, odd):
        run_training(
            place,
            model=model,
            data_config=TEXT.model_copy(update={"path": str(place / "text")}),
            max_steps=2,
            evaluations=1,
        )
        made.append(read_weights(place))
        assert ("all logits of a micro-batch" in capsys.readouterr().err) == (model is odd)
    for name, weight in made[0].items():
        torch.testing.assert_close(made[1][name], weight, rtol=1e-5, atol=1e-6)
