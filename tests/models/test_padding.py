"""Text encoder and model know the same padding, so an answer does not depend on its batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError
from attar.models.config import FromConfig
from attar.models.load import LoadedModel, build_model, load_model, save_model
from attar.tasks.task import Task

INPUTS = ("input_ids", "attention_mask")
TASK = Task(
    objective="classification", label_names=("a", "b", "c"), max_length=32, input_names=INPUTS
)
TEXTS = [("good film",), ("how do i open a socket and read the list of the file",)]
PAD, SEP, MASK = 0, 3, 4
SETTINGS: list[tuple[dict[str, Any], dict[str, Any], int]] = [
    ({"pad_token": "[PAD]"}, {"pad_token_id": None, "eos_token_id": SEP}, PAD),
    (
        {"pad_token": {"__type": "AddedToken", "content": "[PAD]"}},
        {"pad_token_id": SEP, "eos_token_id": SEP},
        PAD,
    ),
    ({"eos_token": "[SEP]"}, {"pad_token_id": MASK, "eos_token_id": SEP}, MASK),
    ({"eos_token": "[MASK]"}, {"pad_token_id": None, "eos_token_id": SEP}, MASK),
    ({}, {"pad_token_id": None, "eos_token_id": [SEP, MASK]}, SEP),
]
"""tokenizer_config.json, config.json, and what pads."""


def write_tokenizer(folder: Path, names: dict[str, Any]) -> int:
    """A tokenizer that names these special tokens and, as a decoder's, adds none to a text."""
    tiny.write_tokenizer(folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    plain = json.loads((folder / "tokenizer.json").read_text()) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(plain))
    return len(plain["model"]["vocab"])


def decoder(folder: Path, names: dict[str, Any], ids: dict[str, Any], family: str) -> LoadedModel:
    size = write_tokenizer(folder, names)
    tiny.tiny_model(family, bare=True, vocab_size=size, **ids).save_pretrained(folder)
    return load_model(folder, task=TASK)


def logits_of(loaded: LoadedModel, rows: list[int]) -> torch.Tensor:
    encoded = TextEncoder.from_folder(loaded.folder, 32, INPUTS).encode(TEXTS)
    inputs = {name: torch.from_numpy(x) for name, x in encoded.batch(rows).items()}
    with torch.no_grad():
        return loaded.model(**inputs).logits


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(("names", "ids", "pad"), SETTINGS)
def test_a_decoders_answer_is_the_same_alone_and_in_a_padded_batch(
    tmp_path: Path, names: dict[str, Any], ids: dict[str, Any], pad: int, family: str
) -> None:
    loaded = decoder(tmp_path / "model", names, ids, family)
    encoder = TextEncoder.from_folder(loaded.folder, 32, INPUTS)
    assert (loaded.model.config.pad_token_id, encoder.pad_id) == (pad, pad)
    together = logits_of(loaded, [0, 1])
    torch.testing.assert_close(together[:1], logits_of(loaded, [0]))
    save_model(loaded, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    torch.testing.assert_close(logits_of(again, [0, 1]), together)


@pytest.mark.parametrize(("names", "ids", "pad"), SETTINGS)
def test_a_random_decoder_pads_as_its_tokenizers_folder_does(
    tmp_path: Path, names: dict[str, Any], ids: dict[str, Any], pad: int
) -> None:
    size = write_tokenizer(tmp_path, names)
    (tmp_path / "config.json").write_text(json.dumps(ids))
    config = tiny.tiny_config("gpt2", vocab_size=size, pad_token_id=None).to_dict()
    reference = FromConfig(config=config, tokenizer=str(tmp_path))
    loaded = build_model(reference, {}, tmp_path, TASK, seed=0)
    assert loaded.model.config.pad_token_id == pad
    torch.testing.assert_close(logits_of(loaded, [0, 1])[:1], logits_of(loaded, [0]))


def test_an_encoder_keeps_the_padding_its_positions_count_from(tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path, {"pad_token": "[PAD]"})
    tiny.tiny_model("roberta", bare=True, vocab_size=size).save_pretrained(tmp_path)
    assert load_model(tmp_path, task=TASK).model.config.pad_token_id == 1


def test_padding_that_the_model_has_no_row_for_is_refused(tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path, {})
    tiny.tiny_model("bert", bare=True, vocab_size=size).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token_id": size}))
    with pytest.raises(ModelError, match=rf"pad_token_id is {size}, the model has {size} embedd"):
        load_model(tmp_path, task=TASK)
