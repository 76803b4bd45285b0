"""Prompts end where the question ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import tiny
from attar.data.prompts import prompts
from attar.errors import DataError


def test_a_prompt_keeps_its_end_and_what_stands_before_a_text_and_nothing_behind(
    tmp_path: Path,
) -> None:
    tiny.write_tokenizer(tmp_path)
    encode = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode
    whole = encode("the film is not good").ids  # [CLS] … [SEP]
    encoded = prompts(tmp_path, ["the film is not good", "film"], 32)
    assert encoded.ids.tolist() == [*whole[:-1], *encode("film").ids[:-1]]
    cut = prompts(tmp_path, ["the film is not good"], 4)
    assert cut.ids.tolist() == [whole[0], *whole[-4:-1]]


def test_a_prompt_without_a_token_is_refused(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text()) | {"post_processor": None}
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="1 of 2 prompts have no token"):
        prompts(tmp_path, ["film", ""], 8)
