from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from attar.data.tokenize import TextEncoder
from attar.errors import AttarError, ModelError
from attar.special_tokens import open_tokenizer
from attar.tokenizer_limits import MAX_TOKENIZER_BYTES, tokenizer_faults

Change = Callable[[dict[str, Any]], object]


def edit(folder: Path, change: Change) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_tokenizer(tmp_path)
    return tmp_path


def replaced(pattern: dict[str, str], content: str, times: int = 1) -> Change:
    step = {"type": "Replace", "pattern": pattern, "content": content}
    chain = {"type": "Sequence", "normalizers": [step] * times}
    return lambda tokenizer: tokenizer.update(normalizer=chain)


def split_by(pattern: str) -> Change:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return lambda tokenizer: tokenizer.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [step]}
    )


def charsmap(*texts: bytes) -> str:
    return base64.b64encode((0).to_bytes(4, "little") + b"\0".join(texts) + b"\0").decode()


def nested_chain(tokenizer: dict[str, Any]) -> None:
    """Chains within chains: 3 levels of 4 steps."""
    part: Any = {"type": "Lowercase"}
    for _ in range(3):
        part = {"type": "Sequence", "normalizers": [part] * 4}
    tokenizer["normalizer"] = part


BOMBS: dict[str, tuple[Change, str]] = {
    "multiplied": (replaced({"String": "a"}, "a" * 60, 6), r"4.67e\+10 times longer"),
    "regex between letters": (replaced({"Regex": ""}, "a" * 40, 2), "1.68e.03 times longer"),
    "prepended": (
        lambda t: t.update(normalizer={"type": "Prepend", "prepend": "a" * 2000}),
        "2e.03 times longer",
    ),
    "table of characters": (
        lambda t: t.update(
            normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap(b"a" * 1001)}
        ),
        "1e.03 times longer",
    ),
    "many steps": (nested_chain, "normalizer has 64 steps, at most 32"),
    "repeated repetition": (split_by("(a+)+$"), "exponential time"),
    "repeated alternative": (split_by("(?:a|aa)*$"), "exponential time"),
    "counted repetition": (split_by("((a{1000}){1000}){1000}"), "exponential time"),
    "recursion": (split_by(r"(?<x>a\g<x>?\g<x>?b?)c"), "exponential time"),
    "back reference": (split_by(r"(a*)\1\1b"), "exponential time"),
    "in a normalizer": (replaced({"Regex": "(a*)*b"}, "c"), "exponential time"),
    "id of 32 bits": (lambda t: t["model"]["vocab"].update(film=2**31), "such as 2147483648"),
    "id of 100 bits": (lambda t: t["model"]["vocab"].update(film=2**100), "1 of its ids"),
    "negative id": (lambda t: t["model"]["vocab"].update(film=-1), "such as -1"),
    "added id": (
        lambda t: t.update(added_tokens=[{"id": 2**31, "content": "x"}]),
        "such as 2147483648",
    ),
    "undefined special": (
        lambda t: t["post_processor"].update(special_tokens={}),
        r"template names '\[CLS\]', which its special_tokens do not define",
    ),
    "a table as a name": (
        lambda t: t["post_processor"]["single"][0].update(SpecialToken={"id": {"a": 1}}),
        "template names {'a': 1}",
    ),
    "long template": (
        lambda t: t["post_processor"].update(single=[{"Sequence": {"id": "A", "type_id": 0}}] * 33),
        "template has 33 pieces, the most is 32",
    ),
    "long words": (
        lambda t: t["model"].update(max_input_chars_per_word=10**9),
        "max_input_chars_per_word is 1000000000",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_could_take_endless_time_or_memory_is_refused_before_it_is_built(
    name: str, folder: Path
) -> None:
    change, words = BOMBS[name]
    edit(folder, change)
    with pytest.raises(ModelError, match=rf"tokenizer\.json is refused: .*{words}"):
        open_tokenizer(folder)


def test_a_tokenizer_file_beyond_the_limit_is_not_read(folder: Path) -> None:
    with (folder / "tokenizer.json").open("wb") as stream:
        stream.truncate(MAX_TOKENIZER_BYTES + 1)
    with pytest.raises(AttarError, match=r"has 67,108,865 bytes, at most 67,108,864"):
        open_tokenizer(folder)


PUBLISHED = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "GPT-4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    "DeepSeek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?"
    r"[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "cl100k": r"[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]",
    "digits from the right": r"(?=(\d{3})+(?!\d))",
    "SentencePiece": " {2,}",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_expressions_of_published_tokenizers_are_accepted(name: str) -> None:
    part = {"type": "Split", "pattern": {"Regex": PUBLISHED[name]}}
    assert list(tokenizer_faults({"pre_tokenizer": part})) == []


def test_the_longest_published_normalizer_is_accepted() -> None:
    """ALBERT's: quotes, NFKD, accents, lower case, SentencePiece's table and double spaces."""
    table = {"type": "Precompiled", "precompiled_charsmap": charsmap("ﷺ".encode() * 18, b"a")}
    quotes = {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}
    kinds = [{"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")]
    chain = {"type": "Sequence", "normalizers": [quotes, quotes, *kinds, table, spaces]}
    assert list(tokenizer_faults({"normalizer": chain})) == []


def test_an_untouched_tokenizer_has_no_faults(folder: Path) -> None:
    assert list(tokenizer_faults(json.loads((folder / "tokenizer.json").read_text()))) == []


FAILING: dict[str, tuple[Change, str]] = {
    "no unknown token": (lambda t: t["model"]["vocab"].pop("[UNK]"), "Missing .UNK. token"),
    "a panic on a text": (
        lambda t: t.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
        "must be non-zero",
    ),
    "an id of a template": (
        lambda t: t["post_processor"]["special_tokens"]["[CLS]"].update(ids=[2**31]),
        "2147483648 out of bounds",
    ),
    "a panic when it is built": (
        lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "precompiled_charsmap",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_the_library_raises_becomes_one_error(name: str, folder: Path) -> None:
    """A panic in Rust is raised as a BaseException that is no Exception."""
    change, words = FAILING[name]
    edit(folder, change)
    with pytest.raises(ModelError, match=words):
        TextEncoder.from_folder(folder, 16, ("input_ids",)).encode([("§§ film",)])
