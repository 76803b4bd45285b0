"""Running text in blocks: nothing is cut, padded or miscounted on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import tiny
from attar.data.packing import token_blocks
from attar.errors import DataError, ModelError

DOCUMENTS = [("the file is good",), ("a bad film", "to read"), ("é",)]


@pytest.fixture(params=["trained", "exported"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A tokenizer whose file cuts texts at 2 tokens and pads them to 6, as a file may."""
    if request.param == "exported":
        (tmp_path / "deploy.json").write_text("{}")
    tiny.write_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "[SEP]"}))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=6, pad_token="[PAD]")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def plain_ids(folder: Path) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [" ".join(texts) for texts in DOCUMENTS]
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def test_settings_of_the_tokenizer_file_neither_cut_nor_pad_documents(folder: Path) -> None:
    end = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("[SEP]")
    stream = [id for ids in plain_ids(folder) for id in [*ids, end]]
    assert len(plain_ids(folder)[0]) == 4
    blocks = token_blocks(folder, DOCUMENTS, 5, "split 'train'")
    usable = len(stream) - (len(stream) % 5 == 1)
    assert blocks.encoded.ids.tolist() == stream[:usable]
    assert np.diff(blocks.encoded.starts).tolist() == [5] * (usable // 5) + (
        [usable % 5] if usable % 5 else []
    )


def test_bytes_are_those_of_the_text_in_utf8(folder: Path) -> None:
    blocks = token_blocks(folder, DOCUMENTS, 5, "split 'train'")
    assert blocks.num_bytes == len("the file is good" + "a bad film" + "to read") + 2


def test_too_little_text_and_a_missing_end_token_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="split 'train' has 0 tokens"):
        token_blocks(folder, [], 5, "split 'train'")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no end token is set"):
        token_blocks(folder, DOCUMENTS, 5, "split 'train'")
