"""A learned tokenizer reads every text, depends on the documents alone, and holds what was asked
for."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer

import corpora
import forked
from attar.data.corpus.config import LearnedTokenizer
from attar.data.corpus.learned_tokenizer import (
    learn_tokenizer,
    require_size,
    sampled,
    write_learned,
)
from attar.data.documents import Document
from attar.errors import DataError

SETTINGS = LearnedTokenizer(
    train_on="texts", vocab_size=320, special_tokens=("<pad>",), sentinels=3
)
TEXTS = corpora.texts(60)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learn_tokenizer(TEXTS, SETTINGS)


def test_special_tokens_come_first_and_sentinels_last_as_in_t5(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == 320
    ids = {token: tokenizer.token_to_id(token) for token in ("<|endoftext|>", "<pad>")}
    assert ids == {"<|endoftext|>": 0, "<pad>": 1}
    assert [tokenizer.token_to_id(f"<extra_id_{n}>") for n in range(3)] == [319, 318, 317]
    assert tokenizer.encode("calm <extra_id_0> sea").ids.count(319) == 1


@given(text=st.text())
def test_no_text_is_unknown_and_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_files_depend_on_the_documents_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Not on their order, nor on the number of threads, nor on the process."""
    write_learned(tokenizer, tmp_path / "here")
    code = """
import random, sys
from pathlib import Path
import corpora
from attar.data.corpus.config import LearnedTokenizer
from attar.data.corpus.learned_tokenizer import learn_tokenizer, write_learned
texts = corpora.texts(60)
random.Random(int(sys.argv[1])).shuffle(texts)
settings = LearnedTokenizer.model_validate_json(sys.argv[2])
write_learned(learn_tokenizer(texts, settings), Path(sys.argv[3]))
"""
    for threads in ("1", "4"):
        folder = tmp_path / threads
        forked.said(
            *("-c", code, threads, SETTINGS.model_dump_json(), folder),
            env=os.environ | {"RAYON_NUM_THREADS": threads},
        )
        for file in (tmp_path / "here").iterdir():
            assert (folder / file.name).read_bytes() == file.read_bytes()


def _documents(texts: list[str]) -> list[Document]:
    return [Document(row, "", (text,)) for row, text in enumerate(texts)]


def _size(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("giant", [(), *((f"{n} " + "giant " * 4000,) for n in range(6))])
@pytest.mark.parametrize("max_bytes", [16, 100, 1000, 5000, 10**6])
def test_the_sample_depends_on_the_texts_and_fills_its_limit(
    max_bytes: int, giant: tuple[str, ...]
) -> None:
    texts = [*TEXTS[:30], *giant, *TEXTS[30:]]
    documents = _documents(texts)
    found = list(sampled(lambda: documents, max_bytes))
    most, cut_letters = max_bytes / 16 + 1, 3 * len(found)
    filled = min(_size(text[: int(most)] for text in TEXTS), max_bytes - most)
    assert filled - cut_letters <= _size(found) <= max_bytes
    if _size(texts) <= max_bytes:
        assert found == texts
    else:
        assert _size(text for text in found if "giant" in text) <= most
    in_order = iter(texts)
    assert all(any(text.startswith(part) for text in in_order) for part in found)
    turned = random.Random(1).sample(documents, len(documents))
    assert sorted(sampled(lambda: turned, max_bytes)) == sorted(found)


def test_a_larger_sample_contains_a_smaller_one() -> None:
    small, large = (list(sampled(lambda: _documents(TEXTS), n)) for n in (1000, 4000))
    assert len(small) < len(large) < len(TEXTS)
    assert all(any(text.startswith(part) for text in large) for part in small)


def test_text_that_gives_too_few_tokens_is_refused_with_their_number() -> None:
    settings = LearnedTokenizer(train_on="texts", vocab_size=4096)
    found = learn_tokenizer(TEXTS, settings)
    size = found.get_vocab_size()
    assert 257 < size < 4096
    with pytest.raises(DataError, match=rf"gives only {size} tokens .*vocab_size = {size} or"):
        require_size(found, settings, "corpus")
    fitting = settings.model_copy(update={"vocab_size": size})
    require_size(learn_tokenizer(TEXTS, fitting), fitting, "corpus")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 256}, "at least 257 .*got 256"),
        ({"vocab_size": 300, "sentinels": 100}, "at least 357"),
        ({"special_tokens": ["<a>", "<a>"]}, "'<a>' more than once"),
        ({"special_tokens": ["<|endoftext|>"]}, "exists already"),
        ({"special_tokens": ["<extra_id_0>"], "sentinels": 1}, "exists already"),
    ],
)
def test_settings_that_no_tokenizer_can_have_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        LearnedTokenizer.model_validate({"train_on": "texts", "vocab_size": 4096, **settings})
