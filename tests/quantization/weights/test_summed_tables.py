"""Tables that are summed: what one costs every token, the next makes good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from attar.models.load import load_model
from attar.models.simulated.qparams import Bits
from attar.progress import Progress
from attar.quantization.calibration.real_tokens import RealTokens
from attar.quantization.solve import simulated
from attar.quantization.weights.clipped import clipped
from attar.quantization.weights.nearest import (
    QuantizedWeights,
    quantize_weights,
    weight_grid,
)
from attar.quantization.weights.rules import WEIGHT_RULES, gptq_rule
from attar.quantization.weights.summed_tables import TableReads, errors_made_good
from attar.step import StepContext

HERE = Path()
CONTEXT = StepContext("int4", HERE, HERE, {}, {}, HERE, Progress(quiet=True))
BITS = Bits(weight=4, embedding=4, activation=8)
WORDS, POSITIONS, TYPES = (
    f"bert.embeddings.{of}_embeddings.weight" for of in ("word", "position", "token_type")
)


def reads_of(model: Any, batches: list[dict[str, Tensor]]) -> TableReads:
    real, reads = RealTokens(), TableReads()
    with reads.watching(model, real), torch.no_grad():
        for batch in batches:
            real.read(batch)
            model(**batch)
    return reads


def summed(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Sums of the tables at real tokens, before the norm."""
    seen: list[Tensor] = []
    norm = model.base_model.embeddings.LayerNorm
    handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return seen[0][batch["attention_mask"] > 0]


def one_by_one(model: Any, **settings: Any) -> QuantizedWeights:
    return quantize_weights(model, BITS, **settings)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_sums_of_texts_that_nothing_saw_are_nearer(family: str) -> None:
    model = tiny.tiny_model(family)
    seen = [tiny.tiny_batch(batch=8, tokens=20, seed=seed) for seed in range(8)]
    unseen = tiny.tiny_batch(batch=8, tokens=20, seed=99)
    alone = one_by_one(model)
    together = errors_made_good(model, alone, reads_of(model, seen))
    floats = summed(model, unseen)
    errors = [
        float((summed(simulated(model, weights), unseen) - floats).square().mean())
        for weights in (alone, together)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_what_all_tokens_share_is_gone() -> None:
    model = tiny.tiny_model("bert")
    batch = tiny.tiny_batch(batch=8, tokens=20)  # its token types are all 0
    alone = quantize_weights(model, lambda name, _: 3 if name == TYPES else 8)
    together = errors_made_good(model, alone, reads_of(model, [batch]))
    floats = summed(model, batch)
    shared = [
        (summed(simulated(model, weights), batch) - floats).mean(0).abs().max()
        for weights in (alone, together)
    ]
    assert torch.equal(together.integers[TYPES], alone.integers[TYPES])
    assert shared[1] < 0.05 * shared[0]


def in_two_types(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same texts, their second halves of type 1."""
    types = torch.zeros_like(batch["input_ids"])
    types[:, types.shape[1] // 2 :] = 1
    return batch | {"token_type_ids": types}


def by_hand(table: Tensor, rows: list[int], left: list[Tensor], prior: int = 8) -> Tensor:
    """The formula, row by row: where each row of a table is moved to."""
    mean = sum(left, torch.zeros(table.shape[1])) / len(left)
    moved = table.clone()
    for row in range(len(table)):
        owed = [error for read, error in zip(rows, left, strict=True) if read == row]
        moved[row] += (sum(owed, torch.zeros_like(mean)) + prior * mean) / (len(owed) + prior)
    return moved


@pytest.mark.parametrize("is_tied", [False, True])
def test_rows_move_by_the_formula(tmp_path: Path, is_tied: bool) -> None:
    model: Any = tiny.tiny_model("bert")
    if is_tied:
        model = load_model(tiny.write_tiny_masked_lm(tmp_path / "mlm")).model
    batch = in_two_types(tiny.tiny_batch(batch=4, tokens=12))
    alone = one_by_one(model)
    assert (WORDS in alone.tied.values()) == is_tied
    together = errors_made_good(model, alone, reads_of(model, [batch]))
    kept = batch["attention_mask"] > 0
    positions = torch.arange(12).expand_as(kept)
    reads = {TYPES: batch["token_type_ids"], POSITIONS: positions, WORDS: batch["input_ids"]}
    order = [WORDS, TYPES, POSITIONS] if is_tied else [TYPES, POSITIONS, WORDS]
    state, left = model.state_dict(), [torch.zeros(model.config.hidden_size)] * int(kept.sum())
    for name in order:
        rows, integers, scale = reads[name][kept].tolist(), alone.integers[name], alone.scales[name]
        if name != order[0]:
            moved = by_hand(state[name], rows, left)
            integers, scale = clipped(name, moved, weight_grid(name, moved, 4))
        differ = (together.integers[name] != integers).float().mean()
        assert differ < 0.02, name  # sums in another order may turn a value at a half
        error = state[name] - integers * scale[:, None]
        left = [before + error[row] for before, row in zip(left, rows, strict=True)]


def test_a_table_left_in_float_owes_nothing_and_takes_nothing() -> None:
    model = tiny.tiny_model("bert")
    reads = reads_of(model, [tiny.tiny_batch(batch=4, tokens=12)])
    alone = one_by_one(model, left_float=[TYPES, POSITIONS])
    together = errors_made_good(model, alone, reads)
    assert torch.equal(alone.integers[WORDS], together.integers[WORDS])
    assert together.integers.keys() == alone.integers.keys()
    of_types = errors_made_good(model, one_by_one(model, left_float=[POSITIONS]), reads)
    assert POSITIONS in of_types.floats
    assert not torch.equal(of_types.integers[WORDS], alone.integers[WORDS])


def test_padding_reads_nothing() -> None:
    model = tiny.tiny_model("bert")
    ids = torch.tensor([[2, 7, 8, 3]])
    short = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    padded = {
        "input_ids": torch.tensor([[2, 7, 8, 3, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]]),
    }
    once, again = (reads_of(model, [batch]).rows()[0] for batch in (short, padded))
    assert once.keys() == again.keys()
    assert all(torch.equal(rows, again[name]) for name, rows in once.items())


def test_a_model_that_is_given_embeddings_reads_no_rows() -> None:
    model = tiny.tiny_model("bert")
    batch = tiny.tiny_batch()
    batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids")).detach()
    assert reads_of(model, [batch]).rows() == []


def test_a_family_without_summed_tables_is_as_before() -> None:
    model = tiny.tiny_model("bart")
    rounder = gptq_rule(model, [tiny.tiny_batch()], CONTEXT)
    alone = quantize_weights(model, BITS, rounder.make_integers)
    together = rounder.quantize(model, BITS)
    assert all(torch.equal(x, together.integers[name]) for name, x in alone.integers.items())


@pytest.mark.parametrize("rule", ["nearest", "clipped", "gptq"])
def test_only_gptq_looks_beyond_one_tensor(rule: Any) -> None:
    model = tiny.tiny_model("bert")
    rounder = WEIGHT_RULES[rule](model, [tiny.tiny_batch(batch=4, tokens=12)], CONTEXT)
    alone = quantize_weights(model, BITS, rounder.make_integers)
    is_same = torch.equal(rounder.quantize(model, BITS).integers[WORDS], alone.integers[WORDS])
    assert is_same == (rule != "gptq")
