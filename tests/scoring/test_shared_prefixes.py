"""Texts that begin alike are read as if each had been read alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from attar.scoring.continuations import Continuation
from attar.scoring.shared_prefixes import (
    PASS,
    _cheapest_split,
    likelihoods,
    shares_prefixes,
)


def mamba() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MambaForCausalLM(
            MambaConfig(
                vocab_size=tiny.VOCABULARY, hidden_size=16, num_hidden_layers=2, state_size=4
            )
        ).eval()


def model_of(family: str) -> Any:
    if family == "mamba":
        return mamba()
    model = tiny.tiny_language_model(family)
    with torch.no_grad():
        for parameter in model.parameters():  # at initial weights every token looks alike
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return model


def made_up() -> tuple[list[Continuation], list[list[int]]]:
    """Questions with one to five answers of one to six tokens; some answers begin alike, one is
    the beginning of another, and one group has no common beginning."""
    draw = random.Random(0)
    requests: list[Continuation] = []
    groups: list[list[int]] = []
    for answers in (4, 4, 2, 1, 3, 5, 1, 2, 4, 3):
        context = [draw.randrange(3, tiny.VOCABULARY) for _ in range(draw.randint(3, 20))]
        shared = [draw.randrange(3, tiny.VOCABULARY) for _ in range(draw.randint(0, 2))]
        group = []
        for answer in range(answers):
            own = [draw.randrange(3, tiny.VOCABULARY) for _ in range(draw.randint(1, 6))]
            group.append(len(requests))
            targets = shared + own if answer else (shared or own[:1])
            requests.append(Continuation(tuple([*context, *targets][:-1]), tuple(targets)))
        groups.append(group)
    whole = Continuation((9, 8, 7, 6), (7, 6, 5)), Continuation((5, 8, 7), (7, 6))
    requests += whole
    groups.append([len(requests) - 2, len(requests) - 1])
    return requests, groups


def one_by_one(model: Any, requests: list[Continuation]) -> tuple[np.ndarray, np.ndarray]:
    log_p, greedy = [], []
    with torch.no_grad():
        for request in requests:
            logits = model(input_ids=torch.tensor([request.fed])).logits[0, request.first :]
            targets = torch.tensor(request.targets)
            chosen = logits.double().log_softmax(-1).gather(1, targets[:, None])
            log_p.append(float(chosen.sum()))
            greedy.append(bool((logits.argmax(-1) == targets).all()))
    return np.array(log_p), np.array(greedy)


@pytest.mark.parametrize(
    ("family", "batch_tokens"),
    [("llama", 1), ("llama", 60), ("gpt2", 200), ("qwen3", 200), ("gemma", 4096), ("mamba", 4096)],
)
def test_likelihoods_are_those_of_texts_read_alone(family: str, batch_tokens: int) -> None:
    model = model_of(family)
    requests, groups = made_up()
    best = one_by_one(model, requests)[0].argmax()  # one continuation that is written greedily
    logits = model(input_ids=torch.tensor([requests[best].fed])).logits[0, requests[best].first :]
    requests.append(Continuation(requests[best].fed[: requests[best].first + 1], (0,)))
    requests[-1] = Continuation(requests[-1].fed, (int(logits[0].argmax()),))
    groups.append([len(requests) - 1])
    answered: list[int] = []
    found = likelihoods(
        model, requests, groups, batch_tokens=batch_tokens, after_batch=answered.append
    )
    log_p, greedy = one_by_one(model, requests)
    assert sum(answered) == len(requests)
    assert found.log_p == pytest.approx(log_p, abs=1e-5, rel=1e-6)
    assert found.is_greedy.tolist() == greedy.tolist() and greedy.any() and not greedy.all()


def test_models_that_keep_no_keys_and_values_read_whole_texts() -> None:
    assert shares_prefixes(model_of("llama"))
    assert not shares_prefixes(mamba())


def test_what_a_group_shares_is_read_once() -> None:
    model = model_of("llama")
    tokens: list[int] = []
    model.model.embed_tokens.register_forward_hook(
        lambda _, given, __: tokens.append(given[0].numel())
    )
    assert shares_prefixes(model)
    tokens.clear()
    context = tuple(range(3, 23))
    answers = [(30,), (31, 32), (33, 34)]
    requests = [Continuation((*context, *answer[:-1]), answer) for answer in answers]
    likelihoods(model, requests, [[0, 1, 2]], batch_tokens=4096)
    assert tokens[-2:] == [20, 2]  # before them, a trial of the head


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [
        ([20] * 8, [[20] * 8]),
        ([20, *[9] * 7], [[20], [9] * 7]),  # 77 tokens of padding cost more than a pass
        ([20, *[11] * 7], [[20, *[11] * 7]]),  # 63 do not
        ([1, 40, 2, 39], [[40, 39], [2, 1]]),
        ([], []),
    ],
)
def test_rests_are_split_where_padding_costs_more_than_another_pass(
    lengths: list[int], batches: list[list[int]]
) -> None:
    found = _cheapest_split(range(len(lengths)), lengths.__getitem__)
    assert [[lengths[i] for i in batch] for batch in found] == batches


def test_the_split_is_the_cheapest_of_all() -> None:
    draw = random.Random(0)
    for _ in range(50):
        lengths = sorted((draw.randint(1, 90) for _ in range(draw.randint(1, 7))), reverse=True)

        def cost(batches: list[list[int]]) -> int:
            return sum(len(batch) * max(batch) + PASS for batch in batches)

        def splits(left: list[int]) -> list[list[list[int]]]:
            return (
                [[]]
                if not left
                else [
                    [left[:k], *others]
                    for k in range(1, len(left) + 1)
                    for others in splits(left[k:])
                ]
            )

        found = _cheapest_split(range(len(lengths)), lengths.__getitem__)
        assert cost([[lengths[i] for i in b] for b in found]) == min(map(cost, splits(lengths)))
