"""Windows are those of transformers, all of a text is in one, and tokens know their characters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import tiny
from attar.data.windows import NOWHERE, WindowEncoder, own_windows, window_cuts
from attar.errors import UsageError
from attar.tasks.tagging import words_of
from attar.tasks.task import Task

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
QUESTION = "where is the test of the file?"
TEXT = "the tests of reading files and the listing of a good socket. " * 4


def encoder(folder: Path, *, is_pair: bool = False, **settings: int) -> WindowEncoder:
    objective = "question_answering" if is_pair else "token_classification"
    names = () if is_pair else ("O", "B-X", "I-X")
    settings = {"max_length": 30, "window_overlap": 6, **settings}
    task = Task(objective=objective, label_names=names, input_names=INPUTS, **settings)
    return WindowEncoder(folder, task)


@pytest.mark.parametrize("texts", [(TEXT,), (QUESTION, TEXT), ("short",), (QUESTION, "a b")])
def test_windows_are_those_of_transformers(tmp_path: Path, texts: tuple[str, ...]) -> None:
    tiny.write_tokenizer(tmp_path)
    is_pair = len(texts) == 2
    found = encoder(tmp_path, is_pair=is_pair).encode([texts])
    theirs = AutoTokenizer.from_pretrained(tmp_path)(
        *texts,
        max_length=30,
        stride=6,
        truncation="only_second" if is_pair else True,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert len(found) == len(theirs["input_ids"])
    for window, ids in enumerate(theirs["input_ids"]):
        batch = found.encoded.batch([window])
        assert batch["input_ids"][0].tolist() == ids
        assert batch["token_type_ids"][0].tolist() == theirs["token_type_ids"][window]
        whole = slice(*found.encoded.starts[window : window + 2])
        for place, offset, number in zip(
            found.begins[whole],
            theirs["offset_mapping"][window],
            theirs.sequence_ids(window),
            strict=True,
        ):
            assert place == (offset[0] if number == len(texts) - 1 else NOWHERE)


def test_every_token_of_a_text_has_one_window_and_the_right_characters(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    found = encoder(tmp_path).encode([(TEXT,), ("",), ("a file",)])
    assert found.rows.tolist() == [*[0] * (len(found) - 2), 1, 2]
    assert found.first.tolist() == [0, len(found) - 2, len(found) - 1, len(found)]
    own = found.own[found.starts[0] : found.starts[1]]
    assert len(set(own.tolist())) == len(own)
    covered = "".join(TEXT[found.begins[i] : found.ends[i]] for i in own)
    assert covered == TEXT.replace(" ", "")
    assert (np.diff(found.begins[own]) >= 0).all()
    assert found.starts[1] == found.starts[2]  # the empty text has none


def test_the_window_of_a_token_is_the_one_in_which_it_is_farthest_from_an_end() -> None:
    cuts = list(window_cuts(20, 8, 4))
    window_of, at = own_windows(cuts, 20)
    for token, (window, place) in enumerate(zip(window_of, at, strict=True)):
        depths = [min(token - a, b - 1 - token) if a <= token < b else -1 for a, b in cuts]
        assert depths[window] == max(depths)
        assert cuts[window][0] + place == token


def test_a_long_question_keeps_a_third_and_the_text_is_still_read(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    found = encoder(tmp_path, is_pair=True).encode([("the file " * 20, TEXT)])
    assert found.encoded.is_cut.all()
    assert int(found.encoded.lengths.max()) == 30
    last = found.encoded.starts[-1] - 2
    assert found.ends[last] == len(TEXT.rstrip())


def test_windows_without_room_to_go_on_are_refused(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    with pytest.raises(UsageError, match=r"raise max_length or lower window_overlap"):
        encoder(tmp_path, is_pair=True, max_length=30, window_overlap=17)


def test_words_of_a_byte_level_tokenizer_begin_at_their_own_characters(tmp_path: Path) -> None:
    """Its tokens begin with the space before a word, and a character may be several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    text = " ".join(["New York, naïve 東京 café (New York)"] * 3)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text] * 4, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    words = words_of(text)
    found = encoder(tmp_path, max_length=12, window_overlap=3).encode([(text,)])
    assert len(found) > 1
    pieces = found.first_pieces(0, words)
    for (begin, end), piece in zip(words, pieces, strict=True):
        assert found.begins[piece] < end
        assert found.ends[piece] > begin
        assert begin - found.begins[piece] in (0, 1)  # the space before it
    pairs = encoder(tmp_path, is_pair=True, max_length=24).encode([("where?", text)])
    first = pairs.encoded.batch([0])["input_ids"][0].tolist()
    asked = tokenizer.encode("where?", add_special_tokens=False).ids
    assert first[: len(asked) + 3] == [0, *asked, 2, 2]
