"""A GPT-2 that reads its class off the last token is distilled: padding behind a text is never that
token, nor a hidden state that counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import kl_div

import language_runs
import tiny
import training_runs
from attar.data.tokenize import TextEncoder

ROWS = 48
LOSSES = [{"kind": "forward_kl", "temperature": 2.0}, {"kind": "eofd", "power": 1.0}]
STUDENT = {"from": "teacher", "keep_blocks": [0]}
PADDING, END = 0, 3
ROUNDING = 1e-4
"""Relative; the order of float32 sums, through a few steps of Adam."""


@pytest.fixture(params=["[PAD]", None], ids=["padding token", "end token pads"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Films, and a random two-block classifier whose tokenizer has a padding token or none."""
    training_runs.write_films(tmp_path / "films", train=ROWS)
    folder = tmp_path / "teacher"
    size = language_runs.write_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": request.param}))
    calm = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    ids = {"pad_token_id": None, "eos_token_id": END, "bos_token_id": 2}
    tiny.tiny_model("gpt2", num_labels=2, vocab_size=size, **ids, **calm).save_pretrained(folder)
    return tmp_path


def distil(place: Path, out: Path, **settings: Any) -> list[dict[str, float]]:
    """The losses of every step."""
    training_runs.run_training(
        out, recipe_folder=place, model=STUDENT, teacher="teacher", losses=LOSSES, **settings
    )
    return [line["losses"] for line in training_runs.read_history(out) if "losses" in line]


def test_the_first_loss_is_that_of_texts_read_one_by_one(place: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    teacher, student = (
        AutoModelForSequenceClassification.from_pretrained(place / "teacher").eval() for _ in "ab"
    )
    student.transformer.h = student.transformer.h[:1]
    has_padding = json.loads((place / "teacher" / "tokenizer_config.json").read_text())["pad_token"]
    for model in (teacher, student):  # an end that pads is not read, alone or in a batch
        model.config.pad_token_id = PADDING if has_padding else END
    rows = [json.loads(line) for line in (place / "films" / "train.jsonl").read_text().splitlines()]
    encoded = TextEncoder.from_folder(place / "teacher", 24, ("input_ids",)).encode(
        [(row["text"],) for row in rows]
    )
    divergences = []
    for row in range(len(encoded)):
        ids = torch.from_numpy(encoded.batch([row])["input_ids"])
        with torch.no_grad():
            own, taught = ((model(ids).logits / 2).log_softmax(-1) for model in (student, teacher))
        divergences.append(4 * kl_div(own, taught, log_target=True, reduction="sum"))
    found = distil(place, tmp_path / "run", batch_size=ROWS, max_steps=1)
    expected = float(torch.stack(divergences).mean())
    assert expected > 0.01
    assert found[0]["forward_kl"] == pytest.approx(expected, rel=ROUNDING)


def test_padded_batches_teach_what_texts_without_padding_do(place: Path, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-3, "max_steps": 6}
    padded = distil(place, tmp_path / "padded", **settings)
    alone = distil(place, tmp_path / "alone", micro_batch_size=1, **settings)
    for one, other in zip(padded, alone, strict=True):
        assert one == pytest.approx(other, rel=ROUNDING)


def test_the_student_comes_nearer_in_its_answers_and_in_its_states(
    place: Path, tmp_path: Path
) -> None:
    losses = distil(place, tmp_path / "run", max_steps=40)
    for kind in ("forward_kl", "eofd"):
        begin, end = (sum(line[kind] for line in part) for part in (losses[:5], losses[-5:]))
        assert end < 0.7 * begin, kind
