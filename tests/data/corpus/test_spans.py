"""Span corruption hides exactly as much as is published, each choice equally often, and loses
nothing."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import corpora
from attar.data.corpus.config import LearnedTokenizer
from attar.data.corpus.learned_tokenizer import learn_tokenizer, write_learned
from attar.data.corpus.spans import Corruption, corrupted, noise_mask, segment_lengths
from attar.errors import ModelError
from attar.tasks.denoising import PUBLISHED, Denoiser, raw_tokens

SENTINELS = np.arange(1000, 900, -1)
END = 1
DENOISERS = [
    Denoiser(),
    Denoiser(noise_density=0.5),
    Denoiser(noise_density=0.5, mean_span=64),
    Denoiser(noise_density=0.25, mean_span="suffix"),
    Denoiser(noise_density=0.95, mean_span=1),
]


def _reference(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int]]:
    """As the paper describes it: token by token, a sentinel for each run of hidden tokens."""
    inputs, targets, spans = [], [], 0
    for place, (token, is_hidden) in enumerate(zip(ids, mask, strict=True)):
        if not is_hidden:
            inputs.append(token)
            continue
        if place == 0 or not mask[place - 1]:
            inputs.append(SENTINELS[spans])
            targets.append(SENTINELS[spans])
            spans += 1
        targets.append(token)
    return [*inputs, END], [*targets, END]


def _published_lengths(tokens: int, density: float, mean_span: float) -> tuple[int, int]:
    hidden = round(tokens * density)
    spans = round(hidden / mean_span)
    return tokens - hidden + spans + 1, hidden + spans + 1


@pytest.mark.parametrize(
    ("length", "tokens", "targets"), [(128, 141, 29), (256, 284, 58), (512, 568, 114)]
)
def test_texts_fill_the_inputs_with_the_published_numbers(
    length: int, tokens: int, targets: int
) -> None:
    assert raw_tokens(PUBLISHED, length) == tokens
    (one,) = PUBLISHED
    assert (one.inputs(tokens), one.targets(tokens)) == (length, targets)
    assert (length, targets) == _published_lengths(tokens, 0.15, 3)
    assert _published_lengths(tokens + 1, 0.15, 3)[0] > length
    assert one.hidden(568).spans == 28


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 30, 568])
def test_counts_are_exact_and_nothing_is_lost(denoiser: Denoiser, tokens: int) -> None:
    random = np.random.default_rng(tokens)
    for _ in range(20):
        ids = random.integers(2, 800, tokens)
        mask = noise_mask(tokens, denoiser, random)
        hidden = denoiser.hidden(tokens)
        assert mask.sum() == hidden.tokens
        assert (np.diff(mask.astype(int), prepend=0) == 1).sum() == hidden.spans
        assert mask[-1] and (tokens == 1 or not mask[0])
        inputs, targets = corrupted(ids, mask, SENTINELS, END)
        assert (len(inputs), len(targets)) == (denoiser.inputs(tokens), denoiser.targets(tokens))
        assert (inputs.tolist(), targets.tolist()) == _reference(ids.tolist(), mask.tolist())
        assert _restored(inputs, targets) == ids.tolist()


def _restored(inputs: np.ndarray, targets: np.ndarray) -> list[int]:
    """The text, from what was read and what was written."""
    spans: dict[int, list[int]] = {}
    for token in targets[:-1].tolist():
        if token in SENTINELS:
            spans[token] = current = []
        else:
            current.append(token)
    return [t for token in inputs[:-1].tolist() for t in spans.get(token, [token])]


def test_every_segmentation_is_equally_likely() -> None:
    """Of 7 items in 3 segments there are C(6, 2) = 15."""
    random, draws = np.random.default_rng(0), 15_000
    seen = Counter(tuple(segment_lengths(7, 3, random).tolist()) for _ in range(draws))
    every = {(a, b - a, 7 - b) for a, b in combinations(range(1, 7), 2)}
    assert set(seen) == every
    chi_square = sum((count - draws / 15) ** 2 / (draws / 15) for count in seen.values())
    assert chi_square < 36.1  # 99.9 % of 14 degrees of freedom


def test_a_suffix_is_hidden_whole() -> None:
    mask = noise_mask(40, Denoiser(noise_density=0.25, mean_span="suffix"), np.random.default_rng())
    assert mask.tolist() == [False] * 30 + [True] * 10


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokenizer]:
    """A learned tokenizer with sentinels and the tokens of three modes."""
    folder = tmp_path_factory.mktemp("words")
    settings = LearnedTokenizer(
        train_on="texts", vocab_size=300, sentinels=20, special_tokens=("[R]", "[S]", "[X]")
    )
    tokenizer = learn_tokenizer(corpora.texts(50), settings)
    write_learned(tokenizer, folder)
    return folder, tokenizer


def test_a_learned_tokenizer_has_the_sentinels(words: tuple[Path, Tokenizer]) -> None:
    folder, tokenizer = words
    made = Corruption.of(PUBLISHED, 64, folder, seed=0)
    assert made.sentinels.tolist() == [299 - number for number in range(20)]
    assert tokenizer.decode([299, 280], skip_special_tokens=False) == "<extra_id_0><extra_id_19>"
    read = tokenizer.encode("the sea").ids
    assert read[-1] == tokenizer.token_to_id(corpora.END), "so that what is written ends"
    with pytest.raises(ModelError, match=r"has 20 sentinels .* max_length = 512 needs 28"):
        Corruption.of(PUBLISHED, 512, folder, seed=0)


def test_what_is_hidden_depends_on_seed_epoch_and_number_alone(
    words: tuple[Path, Tokenizer],
) -> None:
    folder, _ = words
    ids = np.arange(60)
    draws = {
        (seed, epoch, number): tuple(
            Corruption.of(PUBLISHED, 64, folder, seed=seed).of_text(ids, number, epoch)[0].tolist()
        )
        for seed in (0, 1)
        for epoch in (0, 1)
        for number in (0, 1)
    }
    assert len(set(draws.values())) == len(draws)
    again = Corruption.of(PUBLISHED, 64, folder, seed=1).of_text(ids, 1, 0)[0]
    assert draws[1, 0, 1] == tuple(again.tolist())


def test_a_mixture_has_its_shares_and_tells_the_model_which(words: tuple[Path, Tokenizer]) -> None:
    folder, tokenizer = words
    mixture = (
        Denoiser(share=2, prefix="[R]"),
        Denoiser(share=1, noise_density=0.25, mean_span="suffix", prefix="[S]"),
        Denoiser(share=1, noise_density=0.5, mean_span=8, prefix="[X]"),
    )
    made = Corruption.of(mixture, 64, folder, seed=0)
    assert made.raw_tokens == raw_tokens(mixture, 64) == raw_tokens(mixture[:1], 64)
    seen: Counter[str] = Counter()
    for number in range(800):
        inputs, targets = made.of_text(np.full(made.raw_tokens, 70), number, 0)
        assert (len(inputs), len(targets)) == made.lengths(made.raw_tokens, number, 0)
        assert len(inputs) <= 64
        seen[tokenizer.id_to_token(int(inputs[0]))] += 1
    assert set(seen) == {"[R]", "[S]", "[X]"}
    assert abs(seen["[R]"] - 400) < 4 * 14.2  # four standard deviations
    with pytest.raises(ModelError, match=r"no token '\[Y\]'"):
        Corruption.of((Denoiser(prefix="[Y]"),), 64, folder, seed=0)
