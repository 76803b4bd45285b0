"""Augmentation as one reads it in a paper: for each word of each copy, one forward pass."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertForMaskedLM

from attar.distillation.augmentation import choose


@cache
def _loaded(folder: Path) -> tuple[Tokenizer, BertForMaskedLM]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return tokenizer, BertForMaskedLM.from_pretrained(folder).eval()


def expected_words(folder: Path, text: str, position: int, top: int) -> list[str]:
    """The most probable words in the place of one token, by a forward pass of its own.

    Args:
        position: of the token in `[CLS] text [SEP]`.
    """
    tokenizer, model = _loaded(folder)
    ids = tokenizer.encode(text).ids
    own = ids[position]
    ids[position] = tokenizer.token_to_id("[MASK]")
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([ids])).logits[0, position]
    return _best(tokenizer, scores, own, top)


def nearest_words(folder: Path, word: str, top: int) -> list[str]:
    """The words whose embeddings are nearest to the mean of a word's pieces."""
    tokenizer, model = _loaded(folder)
    table = model.bert.embeddings.word_embeddings.weight.detach()
    pieces = tokenizer.encode(word, add_special_tokens=False).ids
    mean = table[pieces].mean(dim=0)
    scores = torch.tensor([float(torch.cosine_similarity(mean, row, dim=0)) for row in table])
    return _best(tokenizer, scores, pieces[0], top)


def _best(tokenizer: Tokenizer, scores: torch.Tensor, own: int, top: int) -> list[str]:
    order = torch.argsort(scores, descending=True).tolist()
    words = [tokenizer.id_to_token(i) for i in order if i != own]
    return [word for word in words if word.isalpha()][:top]


def copies_of(
    folder: Path,
    text: str,
    *,
    seed: int,
    row: int,
    which: int,
    copies: int,
    probability: float,
    top: int,
) -> list[str]:
    """Copies of a text whose words stand between single spaces."""
    tokenizer, _ = _loaded(folder)
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if word.isalpha()]
    choice = choose(seed, row, which, copies, len(places), probability, top)
    made = []
    for copy in range(copies):
        copied = list(words)
        for number, place in enumerate(places):
            if not choice.is_replaced[copy, number]:
                continue
            position = 1 + sum(
                len(tokenizer.encode(word, add_special_tokens=False).ids) for word in words[:place]
            )
            is_whole = len(tokenizer.encode(words[place], add_special_tokens=False).ids) == 1
            found = (
                expected_words(folder, text, position, top)
                if is_whole
                else nearest_words(folder, words[place], top)
            )
            copied[place] = found[choice.candidate[copy, number]]
        made.append(" ".join(copied))
    return made
