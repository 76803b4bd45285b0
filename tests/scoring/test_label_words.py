"""A candidate's score is what the model says of it alone, computed one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, normalizers

import tiny
from attar.errors import ModelError
from attar.scoring.label_words import (
    Candidates,
    following_candidates,
    target_candidates,
    word_scores,
)

ROUNDING = 2e-5
"""Float32 in batches of other shapes."""
WORDS = Candidates(((7,), (9, 12), (9, 12, 4), (11, 5), (7,)))
"""Of one, two and three tokens; one begins another, two are equal."""


def language_model(family: str) -> Any:
    """A random two-block model with a language head."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = tiny.tiny_config(family)
    builder = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = builder.from_config(config)
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def one_by_one(model: Any, word: tuple[int, ...], row: dict[str, torch.Tensor]) -> float:
    """log p of one candidate after one row without padding, token after token."""
    total, real = 0.0, row["attention_mask"] > 0
    ids = row["input_ids"][real][None]
    for place, token in enumerate(word):
        before = torch.tensor([word[:place]], dtype=torch.int64)
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            logits = model(input_ids=ids, decoder_input_ids=torch.cat([start, before], 1)).logits
        else:
            logits = model(input_ids=torch.cat([ids, before], 1)).logits
        total += float(logits[0, -1].log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "t5_gated", "bart"])
@torch.no_grad()
def test_scores_of_a_batch_are_those_of_each_candidate_by_itself(family: str) -> None:
    model, batch = language_model(family), tiny.tiny_batch()
    scores = word_scores(model, WORDS, **batch)
    for b in range(len(scores)):
        row = {name: tensor[b] for name, tensor in batch.items()}
        expected = [one_by_one(model, word, row) for word in WORDS.ids]
        torch.testing.assert_close(scores[b], torch.tensor(expected), atol=ROUNDING, rtol=0)
    per_token = word_scores(model, WORDS, **batch, per_token=True)
    lengths = torch.tensor([len(word) for word in WORDS.ids])
    torch.testing.assert_close(per_token, scores / lengths)


@torch.no_grad()
def test_equal_words_tie_and_the_first_wins() -> None:
    scores = word_scores(language_model("gpt2"), Candidates(((7,), (7,))), **tiny.tiny_batch())
    assert (scores[:, 0] == scores[:, 1]).all()
    assert scores.numpy().argmax(axis=1).tolist() == [0, 0, 0]


@torch.no_grad()
def test_words_of_one_token_are_the_next_tokens_distribution() -> None:
    every = Candidates(tuple((token,) for token in range(tiny.VOCABULARY)))
    scores = word_scores(language_model("llama"), every, **tiny.tiny_batch())
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(3))
    assert every.inputs == ((),), "one pass of the prompt serves all"


def test_what_begins_another_candidate_is_not_run_again() -> None:
    assert set(WORDS.inputs) == {(9, 12), (11,)}
    for ids, row in zip(WORDS.ids, WORDS.input_of, strict=True):
        assert WORDS.inputs[row][: len(ids) - 1] == ids[:-1]


def test_an_encoder_runs_once_a_batch() -> None:
    model, calls = language_model("t5"), []
    model.encoder.block[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        word_scores(model, WORDS, **tiny.tiny_batch())
    assert len(calls) == 1


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    tiny.write_tokenizer(tmp_path)
    return Tokenizer.from_file(str(tmp_path / "tokenizer.json"))


def test_words_of_an_encoder_decoder_are_targets_and_of_a_decoder_go_on(
    tokenizer: Tokenizer,
) -> None:
    good, bad = (tokenizer.token_to_id(word) for word in ("good", "bad"))
    cls, sep = (tokenizer.token_to_id(word) for word in ("[CLS]", "[SEP]"))
    words = ["good", "bad"]
    tokenizer.enable_padding(length=9)  # as some files have it stored
    assert target_candidates(tokenizer, words).ids == ((cls, good, sep), (cls, bad, sep))
    following = following_candidates(tokenizer, ["good", "bad film"], "film {0}:")
    assert following.ids == ((good,), (bad, tokenizer.token_to_id("film")))


def test_a_template_that_ends_in_a_space_and_a_word_without_tokens_are_refused(
    tokenizer: Tokenizer,
) -> None:
    with pytest.raises(ModelError, match="ends in a space"):
        following_candidates(tokenizer, ["good"], "film {0}: ")
    with pytest.raises(ModelError, match=r"\[''\] have no token"):
        following_candidates(tokenizer, ["good", ""])
    tokenizer.normalizer = normalizers.Replace(" ", "")  # words grow together
    tokenizer.add_tokens(["xs"])
    for template in ("film {0}", "film {1}"):
        with pytest.raises(ModelError, match="joins 's'"):
            following_candidates(tokenizer, ["s"], template)
