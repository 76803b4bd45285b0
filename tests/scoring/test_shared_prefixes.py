"""Texts that begin alike are read as if each had been read alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from attar.scoring.continuations import Continuation
from attar.scoring.shared_prefixes import PASS, _batches, _Row, likelihoods, shares_prefixes


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


def test_a_model_that_keeps_a_state_reads_whole_texts() -> None:
    requests = [Continuation((3, 4), (4,)), Continuation((3, 4, 5), (5,))]
    assert shares_prefixes(model_of("llama"), requests)
    assert not shares_prefixes(mamba(), requests)


def test_a_text_longer_than_a_window_is_read_alone() -> None:
    """A row has one mask for all layers, also for those that see a window only."""
    model = model_of("gemma2")
    window = model.config.sliding_window = 16
    context = tuple(3 + i % 40 for i in range(window))
    for length, shares in ((window - 1, True), (window, False)):
        answers = [Continuation((*context[:length], last), (7,)) for last in (5, 6)]
        assert shares_prefixes(model, answers) is shares
        found = likelihoods(model, answers, [[0, 1]], batch_tokens=4096)
        assert found.log_p == pytest.approx(one_by_one(model, answers)[0], abs=1e-5, rel=1e-6)


def test_what_a_group_shares_is_read_once() -> None:
    model = model_of("llama")
    context = tuple(range(3, 23))
    answers = [(30,), (31, 32), (33, 34)]
    requests = [Continuation((*context, *answer[:-1]), answer) for answer in answers]
    groups = [[0, 1, 2]]
    likelihoods(model, requests, groups, batch_tokens=4096)  # tries head and rows
    tokens: list[int] = []
    model.model.embed_tokens.register_forward_hook(
        lambda _, given, __: tokens.append(given[0].numel())
    )
    likelihoods(model, requests, groups, batch_tokens=4096)
    assert tokens == [20 + 2]
    tokens.clear()
    likelihoods(model, requests, groups, batch_tokens=21)
    assert sorted(tokens) == [21, 21], "a longer group is divided"


def batched(lengths: list[int], batch_tokens: int) -> list[list[int]]:
    rows = [_Row((i,), length, (), length) for i, length in enumerate(lengths)]
    return [[row.length for row in batch] for batch in _batches(rows, batch_tokens)]


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [
        ([20] * 8, [[20] * 5, [20] * 3]),
        ([20, *[9] * 3], [[20], [9] * 3]),  # 33 tokens of padding cost more than a pass
        ([20, *[10] * 3], [[20, *[10] * 3]]),  # 30 do not
        ([200, 1], [[200], [1]]),
        ([], []),
    ],
)
def test_rows_are_divided_where_padding_costs_more_than_another_pass(
    lengths: list[int], batches: list[list[int]]
) -> None:
    assert PASS == 32
    assert sorted(batched(lengths, 100), reverse=True) == sorted(batches, reverse=True)


def test_the_division_is_the_cheapest_of_all() -> None:
    draw = random.Random(0)
    for _ in range(50):
        lengths = sorted((draw.randint(1, 90) for _ in range(draw.randint(1, 7))), reverse=True)
        most = draw.randint(90, 400)

        def cost(batches: list[list[int]], most: int = most) -> float:
            tokens = [len(batch) * max(batch) for batch in batches]
            return sum(tokens) + PASS * len(tokens) if max(tokens) <= most else float("inf")

        def divisions(left: list[int]) -> list[list[list[int]]]:
            return (
                [[]]
                if not left
                else [
                    [left[:k], *others]
                    for k in range(1, len(left) + 1)
                    for others in divisions(left[k:])
                ]
            )

        assert cost(batched(lengths, most)) == min(map(cost, divisions(lengths)))
