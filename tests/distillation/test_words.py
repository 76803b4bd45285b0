"""Words of tokenizers that count the space before a word as part of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import tiny
from attar.distillation.words import WordReader
from attar.errors import ModelError

SENTENCES = ["the film is good", "film and movie", "a good movie and the film"] * 9
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def write_byte_level(folder: Path, *, trims: bool, mask: bool = True) -> Path:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = SPECIAL if mask else SPECIAL[:-1]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=trims, add_prefix_space=False
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        **({"mask_token": "<mask>"} if mask else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.mark.parametrize("trims", [True, False])
def test_a_word_is_its_letters_whatever_the_tokenizer_counts_to_it(
    tmp_path: Path, trims: bool
) -> None:
    reader = WordReader(write_byte_level(tmp_path / "lm", trims=trims), 32)
    text = "film is  good"
    [read] = reader.read([text])
    assert [text[w.begin : w.end] for w in read.words] == ["film", "is", "good"]
    assert [w.after_space for w in read.words] == [False, True, True]
    assert read.with_words({0: "a", 2: "x"}) == "a is  x"
    [read] = reader.read(["film (good"])
    assert [w.after_space for w in read.words] == [False, False]


def test_which_tokens_are_words_depends_on_the_space_before_them(tmp_path: Path) -> None:
    reader = WordReader(write_byte_level(tmp_path / "lm", trims=True), 32)
    words, fits = reader.whole_words(500)
    assert len(words) == fits.shape[1] == 500
    tokens = Tokenizer.from_file(str(tmp_path / "lm" / "tokenizer.json"))
    spaced, bare = tokens.token_to_id("Ġfilm"), tokens.token_to_id("film")
    assert (words[spaced], words[bare]) == ("film", "film")
    assert fits[:, spaced].tolist() == [False, True]
    assert fits[:, bare].tolist() == [True, False]
    assert not fits[:, 400:].any()
    assert not {words[i] for i in np.flatnonzero(fits.any(axis=0))} & {*SPECIAL, ""}


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path / "lm", trims=True, mask=False)
    with pytest.raises(ModelError, match=r"has no mask_token.*such as bert-base-uncased"):
        WordReader(folder, 32)


def test_special_words_that_the_settings_do_not_name_are_found_in_the_tokenizer(
    tmp_path: Path,
) -> None:
    roberta = write_byte_level(tmp_path / "roberta", trims=True)
    bert = tmp_path / "bert"
    tiny.write_tokenizer(bert)
    tokenizer = Tokenizer.from_file(str(bert / "tokenizer.json"))
    tokenizer.add_special_tokens(tiny.SPECIAL)  # as every published tokenizer.json has them
    tokenizer.save(str(bert / "tokenizer.json"))
    for folder, names in ((roberta, {"pad_token": "<pad>"}), (bert, {"pad_token": "[PAD]"})):
        (folder / "tokenizer_config.json").write_text(json.dumps(names))
    assert WordReader(roberta, 32).mask_id == SPECIAL.index("<mask>")
    reader = WordReader(bert, 32)
    assert reader.mask_id == tiny.SPECIAL.index("[MASK]")
    text = "good \u6771 film"  # a letter that the vocabulary lacks
    [read] = reader.read([text])
    assert [text[w.begin : w.end] for w in read.words] == ["good", "film"]


def test_the_settings_word_for_a_mask_goes_first(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path / "lm", trims=True)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"pad_token": "<pad>", "mask_token": "<unk>"})
    )
    assert WordReader(folder, 32).mask_id == SPECIAL.index("<unk>")


def test_a_word_behind_ids_that_are_left_out_is_known(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path / "tokens", trims=False)
    content = json.loads((folder / "tokenizer.json").read_text())
    assert "Ġfilm" in content["model"]["vocab"]
    content["model"]["vocab"]["Ġfilm"] = 499
    (folder / "tokenizer.json").write_text(json.dumps(content))
    words, fits = WordReader(folder, 32).whole_words(500)
    assert (words[499], fits[1, 499]) == ("film", True)
