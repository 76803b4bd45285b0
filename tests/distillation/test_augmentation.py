"""Words replaced by a masked language model: which, by what, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from attar.distillation.augmentation import Augmenter, choose
from attar.distillation.masked_lm import MaskedLm, Request
from attar.distillation.words import WordReader
from attar.errors import ModelError
from attar.models.load import load_model
from reference.augmentation import copies_of, expected_words, nearest_words

TEXTS = [
    ("the film is good",),
    ("a movie and a test",),
    ("how do you open the list of files in it 17 !",),
    ("poor return value",),
    ("not great",),
]
COPIES, TOP, SEED = 3, 4, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tiny_masked_lm(tmp_path_factory.mktemp("masked") / "lm")


@pytest.fixture(scope="module")
def reader(folder: Path) -> WordReader:
    return WordReader(folder, 40)


def masked_lm(folder: Path, reader: WordReader, *, batch_tokens: int = 64, top: int = TOP):
    model = load_model(folder).model
    words, fits = reader.whole_words(model.config.vocab_size)
    ids = {"mask_id": reader.mask_id, "pad_id": reader.pad_id}
    return MaskedLm(model, fits, top=top, batch_tokens=batch_tokens, **ids), words


def augmenter(folder: Path, reader: WordReader, **changes) -> Augmenter:
    batch_tokens = changes.pop("batch_tokens", 64)
    lm, words = masked_lm(folder, reader, batch_tokens=batch_tokens)
    settings = {"seed": SEED, "copies": COPIES, "probability": 0.5, "top": TOP, **changes}
    return Augmenter(reader.read, lm, words, **settings)


def test_with_probability_0_every_copy_is_its_source(folder: Path, reader: WordReader) -> None:
    made = augmenter(folder, reader, probability=0.0).augment(TEXTS, 0)
    assert made.rows == [[texts] * COPIES for texts in TEXTS]
    assert (made.replaced, made.questions, made.forwards) == (0, 0, 0)


def test_every_candidate_may_stand_for_a_replaced_word() -> None:
    """Whether a word changes and what it becomes are two draws."""
    choice = choose(SEED, 3, 0, 200, 10, 0.4, 5)
    taken = np.bincount(choice.candidate[choice.is_replaced], minlength=5)
    assert len(taken) == 5
    assert taken.min() > 0.7 * taken.mean()
    assert choice.is_replaced.mean() == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("batch_tokens", [8, 64, 4096])
def test_batched_copies_are_those_of_one_forward_a_word(
    folder: Path, reader: WordReader, batch_tokens: int
) -> None:
    made = augmenter(folder, reader, batch_tokens=batch_tokens).augment(TEXTS, 7)
    for i, (text,) in enumerate(TEXTS):
        slow = copies_of(
            folder,
            text,
            seed=SEED,
            row=7 + i,
            which=0,
            copies=COPIES,
            probability=0.5,
            top=TOP,
        )
        assert [copied for (copied,) in made.rows[i]] == slow


def test_answers_are_the_most_probable_words_the_best_first(
    folder: Path, reader: WordReader
) -> None:
    lm, words = masked_lm(folder, reader)
    text = reader.read(["the film is good"])[0]
    answers = lm.answer([Request(text, number) for number in range(4)])
    for number, ids in enumerate(answers):
        expected = expected_words(folder, text.text, 1 + number, TOP)
        assert [words[i] for i in ids] == expected


def test_a_word_of_several_pieces_is_answered_by_its_neighbours(
    folder: Path, reader: WordReader
) -> None:
    lm, words = masked_lm(folder, reader)
    text = reader.read(["files returned"])[0]
    assert [len(word.pieces) for word in text.words] == [2, 2]
    for number in (0, 1):
        word = text.words[number]
        expected = nearest_words(folder, text.text[word.begin : word.end], TOP)
        assert [words[i] for i in lm.neighbours([Request(text, number)])[0]] == expected


def test_only_chosen_words_change_and_all_else_stays_to_the_last_space(
    folder: Path, reader: WordReader
) -> None:
    text = '  the "good"  film, 12 movies\t(and a\u00a0test) !? '
    made = augmenter(folder, reader, copies=40).augment([(text,)], 0)
    [read] = reader.read([text])
    chosen = choose(SEED, 0, 0, 40, len(read.words), 0.5, TOP).is_replaced
    assert [text[w.begin : w.end] for w in read.words] == "the good film movies and a test".split()
    for copy, (copied,) in enumerate(made.rows[0]):
        rest = copied
        for number, word in enumerate(read.words):
            before = text[0 if number == 0 else read.words[number - 1].end : word.begin]
            assert rest.startswith(before)
            rest = rest.removeprefix(before)
            written = rest[: next(i for i, c in enumerate(rest) if not c.isalpha())]
            assert (written != text[word.begin : word.end]) == chosen[copy, number]
            rest = rest.removeprefix(written)
        assert rest == text[read.words[-1].end :]


def test_the_share_of_words_that_change_is_the_probability(
    folder: Path, reader: WordReader
) -> None:
    made = augmenter(folder, reader, copies=100, probability=0.3).augment(TEXTS, 0)
    assert made.replaced / made.words == pytest.approx(0.3, abs=4 * (0.21 / made.words) ** 0.5)


def test_texts_of_a_pair_are_worked_on_by_themselves(folder: Path, reader: WordReader) -> None:
    def sides(pair: tuple[str, str]) -> tuple[list[str], list[str]]:
        made = augmenter(folder, reader).augment([pair], 3).rows[0]
        return [first for first, _ in made], [second for _, second in made]

    first, second = sides(("the film is good", "a great movie"))
    assert sides(("the film is good", "error in the list")) == (
        first,
        sides(("not it", "error in the list"))[1],
    )
    assert sides(("how do you read", "a great movie"))[1] == second
    same = sides(("the film is good", "the film is good"))
    assert same[0] == first
    assert same[1] != first  # equal texts, draws of their own


def test_rows_depend_on_seed_and_number_and_not_on_their_company(
    folder: Path, reader: WordReader
) -> None:
    whole = augmenter(folder, reader).augment(TEXTS, 10).rows
    assert augmenter(folder, reader).augment(TEXTS[2:], 12).rows == whole[2:]
    assert augmenter(folder, reader).augment(TEXTS[2:], 13).rows != whole[2:]
    assert augmenter(folder, reader, seed=6).augment(TEXTS, 10).rows != whole


def test_more_copies_begin_with_the_fewer(folder: Path, reader: WordReader) -> None:
    few = augmenter(folder, reader, copies=2).augment(TEXTS, 0).rows
    many = augmenter(folder, reader, copies=5).augment(TEXTS, 0).rows
    assert [copies[:2] for copies in many] == few


def test_one_question_serves_all_copies_and_all_equal_texts(
    folder: Path, reader: WordReader
) -> None:
    many = augmenter(folder, reader, copies=50).augment(TEXTS[:1] * 9, 0)
    assert many.questions == 4


def test_words_behind_the_cut_and_of_unknown_letters_stay(folder: Path) -> None:
    reader = WordReader(folder, 6)
    [read] = reader.read(["the film is good and great"])
    assert [read.text[w.begin : w.end] for w in read.words] == ["the", "film", "is", "good"]
    [unknown] = reader.read(["the \u0444\u0438\u043b\u044c\u043c"])
    assert len(unknown.words) == 1


def test_pieces_and_signs_can_stand_for_no_word(reader: WordReader) -> None:
    words, fits = reader.whole_words(200)
    could = {words[i] for i in np.flatnonzero(fits.all(axis=0))}
    assert {"film", "good", "q"} <= could
    assert not {"##s", "##ing", "[MASK]", "[PAD]", ""} & could


def test_more_candidates_than_words_are_refused(folder: Path, reader: WordReader) -> None:
    with pytest.raises(ModelError, match=r"top is 500, .* only \d+ whole-word tokens; .* or less"):
        masked_lm(folder, reader, top=500)
