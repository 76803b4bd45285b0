"""A tokenizer is what transformers makes of all its files, and what attar writes means the same to
transformers and to readers of `tokenizer.json` alone.

Every setting here changes token ids of some family, or might be thought to.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from attar.data.tokenize import TextEncoder
from attar.errors import ModelError
from attar.special_tokens import padding_id, write_tokenizer

MAX_LENGTH = 12
TEXTS: list[tuple[str, ...]] = [
    ("Good FILM",),
    ("  good  <URL> café 电影",),
    ("[MASK] <mask> </s> <URL>film ",),
    ("",),
    ("good film " * 10,),
    ("good", "Film é"),
    ("good film " * 10, "Film " * 3),
]
INPUTS = ("input_ids", "token_type_ids", "attention_mask")

MERGES = [("g", "o"), ("go", "o"), ("goo", "d"), ("f", "i"), ("fi", "l"), ("fil", "m")]
LETTERS = "abcdefghijklmnopqrstuvwxyzGFILM"


def word_pieces() -> dict[str, int]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["good", "film", "Good", "FILM", "Film", "cafe", "café", "电", "影", "##d", "##o"]
    pieces = [*special, *words, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


def bytes_and_merges(space: str, special: tuple[str, ...]) -> dict[str, Any]:
    """A BPE whose spaces are written as `space`."""
    merges = [*MERGES, (space, "good"), (space, "film")]
    merged = ["".join(pair) for pair in merges]
    tokens = [*special, *LETTERS, space, "Ã", "©", "é", *merged]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return {"vocab": vocab, "merges": merges}


def unigram() -> dict[str, Any]:
    tokens = ["<pad>", "</s>", "<unk>", "▁good", "▁film", "▁", *LETTERS, "é"]
    return {"vocab": [(token, -float(i)) for i, token in enumerate(tokens)]}


ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "bert": lambda: {"vocab": word_pieces()},
    "roberta": lambda: bytes_and_merges("Ġ", ROBERTA),
    "bart": lambda: bytes_and_merges("Ġ", ROBERTA),
    "gpt2": lambda: bytes_and_merges("Ġ", ("<|endoftext|>",)),
    "qwen2": lambda: bytes_and_merges("Ġ", ("<|endoftext|>",)),
    "llama": lambda: bytes_and_merges("▁", ("<unk>", "<s>", "</s>")),
    "t5": lambda: unigram() | {"extra_ids": 2},
    "distilbert": lambda: {"vocab": word_pieces()},
    "electra": lambda: {"vocab": word_pieces()},
    "mpnet": lambda: {"vocab": word_pieces() | {t: 90 + i for i, t in enumerate(ROBERTA)}},
    "xlm-roberta": lambda: {"vocab": [*((t, 0.0) for t in ROBERTA), *unigram()["vocab"][3:]]},
    "qwen3": lambda: bytes_and_merges("Ġ", ("<|endoftext|>",)),
    "gemma": lambda: bytes_and_merges("▁", ("<pad>", "<eos>", "<bos>", "<unk>")),
}
CLASSES = {
    **{"bert": "Bert", "gpt2": "GPT2", "qwen2": "Qwen2", "t5": "T5", "distilbert": "Bert"},
    **{"electra": "Bert", "mpnet": "MPNet", "xlm-roberta": "XLMRoberta", "qwen3": "Qwen2"},
}


def write_family(folder: Path, family: str) -> Path:
    """A family's tokenizer as transformers saves it."""
    import transformers

    name = CLASSES.get(family, family.capitalize())
    tokenizer = getattr(transformers, f"{name}Tokenizer")(**ARGUMENTS[family]())
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return folder


def edit(folder: Path, **settings: Any) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def by_transformers(folder: Path) -> list[dict[str, list[int]]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = [tokenizer(*text, truncation=True, max_length=MAX_LENGTH) for text in TEXTS]
    return [{name: list(row[name]) for name in row} for row in found]


def by_attar(folder: Path) -> list[list[int]]:
    encoded = TextEncoder.from_folder(folder, MAX_LENGTH, INPUTS).encode(TEXTS)
    return [encoded.batch([row])["input_ids"][0].tolist() for row in range(len(encoded))]


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in ARGUMENTS),
    ("bert", {"do_lower_case": False}),
    ("bert", {"strip_accents": False}),
    ("bert", {"do_lower_case": False, "strip_accents": True}),
    ("bert", {"tokenize_chinese_chars": False}),
    ("bert", {"cls_token": "[MASK]"}),
    ("bert", {"unk_token": "[PAD]"}),
    ("bert", {"model_input_names": ["input_ids", "attention_mask"]}),
    ("roberta", {"add_prefix_space": True}),
    ("roberta", {"trim_offsets": False}),
    ("roberta", {"sep_token": "<mask>"}),
    ("bart", {"add_prefix_space": True}),
    ("gpt2", {"add_prefix_space": True}),
    ("gpt2", {"add_bos_token": True}),
    ("gpt2", {"bos_token": "good"}),
    ("llama", {"add_bos_token": True, "add_eos_token": True}),
    ("llama", {"legacy": True}),
    ("llama", {"legacy": False, "add_prefix_space": False}),
    ("t5", {"legacy": False}),
    ("t5", {"eos_token": "<unk>"}),
    *((family, {"truncation_side": "left"}) for family in ARGUMENTS),
    *((family, {"padding_side": "left"}) for family in ("bert", "llama")),
    *((family, {"clean_up_tokenization_spaces": True}) for family in ("bert", "gpt2")),
    *((family, {"extra_special_tokens": ["<URL>"]}) for family in ARGUMENTS),
    ("bert", {"additional_special_tokens": ["<URL>"]}),
    ("bert", {"added_tokens_decoder": {"200": {"content": "<URL>", "lstrip": True}}}),
    ("bert", {"mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True}}),
    ("bert", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ("bert", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}),
    ("bert", {"tokenizer_class": None}),
    ("roberta", {"tokenizer_class": "GPT2Tokenizer"}),
    ("llama", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ("qwen2", {"tokenizer_class": "PreTrainedTokenizerFast"}),
]


@pytest.mark.parametrize(("family", "settings"), SETTINGS, ids=str)
def test_every_reader_of_what_attar_reads_and_writes_sees_the_same_tokens(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    source, written = write_family(tmp_path / "source", family), tmp_path / "written"
    edit(source, **settings)
    expected = by_transformers(source)
    ids = [row["input_ids"] for row in expected]
    assert by_attar(source) == ids

    written.mkdir()
    (written / "config.json").write_text((source / "config.json").read_text())
    names = tuple(name for name in INPUTS if name in expected[0])
    write_tokenizer(source, written, MAX_LENGTH, names)
    assert by_transformers(written) == expected
    alone = Tokenizer.from_file(str(written / "tokenizer.json"))
    assert [alone.encode(*text).ids for text in TEXTS] == ids
    (written / "deploy.json").write_text("{}")  # as an exported folder is read
    assert by_attar(written) == ids


@pytest.mark.parametrize("file", ["special_tokens_map.json", "added_tokens.json"])
def test_older_files_beside_a_tokenizer_are_read_too(tmp_path: Path, file: str) -> None:
    source, written = write_family(tmp_path / "source", "bert"), tmp_path / "written"
    content = {"cls_token": "[MASK]"} if file.startswith("special") else {"<URL>": 200}
    before = by_transformers(source)
    (source / file).write_text(json.dumps(content))
    expected = by_transformers(source)
    assert expected != before
    assert by_attar(source) == [row["input_ids"] for row in expected]
    write_tokenizer(source, written, MAX_LENGTH, INPUTS)
    (written / "config.json").write_text((source / "config.json").read_text())
    assert by_transformers(written) == expected


def test_settings_that_change_tokens_are_not_overlooked(tmp_path: Path) -> None:
    """These are known to: else the test above compares equal things."""
    plain = by_transformers(write_family(tmp_path / "bert", "bert"))
    for setting in ({"do_lower_case": False}, {"strip_accents": False}, {"cls_token": "[MASK]"}):
        edit(write_family(tmp_path / "other", "bert"), **setting)
        assert by_transformers(tmp_path / "other") != plain, setting


def test_a_written_folder_tells_where_to_cut_what_pads_and_what_to_feed(tmp_path: Path) -> None:
    source = write_family(tmp_path / "source", "gpt2")
    edit(source, padding_side="left")
    padded = Tokenizer.from_file(str(source / "tokenizer.json"))
    padded.enable_padding(length=128, pad_id=0, pad_token="<|endoftext|>")
    padded.save(str(source / "tokenizer.json"))
    (source / "config.json").write_text('{"model_type": "gpt2", "eos_token_id": 0}')
    written = tmp_path / "written"
    write_tokenizer(source, written, MAX_LENGTH, INPUTS)  # by itself GPT-2 gives no segments
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(written)
    assert tokenizer.model_max_length == MAX_LENGTH
    assert tokenizer.model_input_names == list(INPUTS)
    assert (tokenizer.padding_side, tokenizer.truncation_side) == ("right", "right")
    assert tokenizer.pad_token_id == 0
    plain = Tokenizer.from_file(str(written / "tokenizer.json"))
    assert plain.padding is None
    assert plain.truncation is not None
    assert (plain.truncation["max_length"], plain.truncation["direction"]) == (MAX_LENGTH, "right")
    (written / "deploy.json").write_text("{}")
    assert padding_id(written, plain) == 0


@pytest.mark.parametrize(
    "setting",
    [
        {"auto_map": {"AutoTokenizer": ["evil.py", None]}},
        {"gguf_file": "/etc/passwd"},
        {"split_special_tokens": True},
    ],
)
def test_settings_that_attar_cannot_follow_are_refused_by_name(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    source = write_family(tmp_path, "bert")
    edit(source, **setting)
    with pytest.raises(ModelError, match=rf"tokenizer_config\.json sets {next(iter(setting))}"):
        TextEncoder.from_folder(source, MAX_LENGTH, INPUTS)


def test_files_that_do_not_belong_together_are_refused_and_named(tmp_path: Path) -> None:
    source = write_family(tmp_path, "bert")
    edit(source, pad_token={"not": "a token"})
    with pytest.raises(ModelError, match=r"cannot build the tokenizer.*tokenizer_config\.json"):
        TextEncoder.from_folder(source, MAX_LENGTH, INPUTS)
