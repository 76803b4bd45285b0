"""Prompts end where the question ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import tiny
from attar.data.prompts import fitting_template, prompts
from attar.data.tables import Split, TextData
from attar.errors import DataError, UsageError


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


def rows_of(*texts: str) -> TextData:
    train = Split((texts,), np.array([0]))
    return TextData("films", "classification", ("a", "b"), ("accuracy",), {"train": train})


@pytest.mark.parametrize(
    ("template", "texts", "found"),
    [(None, ("x",), "{0}"), ("film: {0}", ("x",), "film: {0}"), ("{1} {0}", ("x", "y"), "{1} {0}")],
)
def test_a_template_that_fits_the_rows_is_kept(
    template: str | None, texts: tuple[str, ...], found: str
) -> None:
    assert fitting_template(template, rows_of(*texts), "train") == found


@pytest.mark.parametrize(
    ("template", "texts", "message"),
    [
        (None, ("x", "y"), r"has 2 texts; say how .* \"first: \{0\} second: \{1\}\""),
        ("{0} {1}", ("x",), r"names \{1\}; a row of data 'films' has \{0\}"),
        ("{text}", ("x",), r"names \{text\}"),
        ("the same for all", ("x",), "names no text"),
        ("{0", ("x",), "cannot be read"),
        ("{0:d}", ("x",), "cannot be read"),
        ("{0!z}", ("x",), "cannot be read"),
        ("{0:{1}}", ("x",), "cannot be read"),
    ],
)
def test_a_template_that_does_not_fit_the_rows_is_refused(
    template: str | None, texts: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        fitting_template(template, rows_of(*texts), "train")
