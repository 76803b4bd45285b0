"""Draws are those of the exact distribution, and a row's text is its own."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor
from transformers.generation import logits_process as hf_logits

import tiny
from attar.errors import NonFiniteError
from attar.models.sampling import Drawn, Sampling, has_cache, row_uniforms, sample

WITH_STATE = ("mamba", "mamba2")
FAMILIES = ("gpt2", "llama", "qwen2", *WITH_STATE)
ENDS = tuple(range(3, 12))
"""Of 60 tokens: rows end at different times."""
EXACT: Any = {"rtol": 0.0, "atol": 1e-9}
"""Of float64 log-probabilities, summed in another order."""
NEAR: Any = {"rtol": 0.0, "atol": 1e-4}
"""Of models with a state, which transformers computes in float32 whatever the weights are."""


@cache
def decoder(family: str, seed: int = 0, vocabulary: int = tiny.VOCABULARY) -> Any:
    """A random decoder in float64, whose predictions depend on what it read."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": vocabulary}
    state = {"mamba": hf.MambaConfig, "mamba2": hf.Mamba2Config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family in state:
            heads = {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 4}
            more = {"state_size": 4, **(heads if family == "mamba2" else {})}
            model: Any = hf.AutoModelForCausalLM.from_config(state[family](**sizes, **more))
        else:
            model = tiny.tiny_language_model(family, seed=seed, vocab_size=vocabulary)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(8)
    return model.double().eval()


def prompts(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Random prompts, padded on the left."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(12, tiny.VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, -length:] = 1
    return ids * mask, mask


LENGTHS = (7, 3, 5, 7, 1)
NEW = 12


def drawn_of(family: str, rows: list[int] | None = None, **settings: Any) -> Drawn:
    """Up to 12 tokens behind prompts of different lengths."""
    ids, mask = prompts(LENGTHS)
    uniforms = row_uniforms(5, range(len(LENGTHS)), NEW)
    if rows is not None:
        width = max(LENGTHS[row] for row in rows)
        ids, mask, uniforms = ids[rows, -width:], mask[rows, -width:], uniforms[rows]
    how = Sampling(temperature=0.9, top_k=40, top_p=0.98, end_ids=ENDS)
    return sample(decoder(family), ids, mask, uniforms, how, **settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_alone_is_the_row_in_a_batch_with_and_without_a_cache(family: str) -> None:
    together = drawn_of(family)
    lengths = together.lengths.tolist()
    assert min(lengths) < NEW
    assert len(set(lengths)) > 2  # rows leave the batch one by one
    again = drawn_of(family, use_cache=False)
    near = NEAR if family in WITH_STATE else EXACT
    assert torch.equal(again.ids, together.ids)
    assert torch.allclose(again.log_p, together.log_p, **near)
    for row, length in enumerate(lengths):
        alone = drawn_of(family, [row])
        assert torch.equal(alone.ids[0], together.ids[row])
        assert torch.allclose(alone.log_p[0], together.log_p[row], **near)
        written = together.ids[row].tolist()
        is_end = [token in ENDS for token in written[:length]]
        assert is_end[:-1] == [False] * (length - 1)
        assert is_end[-1] or length == NEW
        assert written[length:] == [0] * (NEW - length)


HOW = {
    "plain": Sampling(),
    "cold": Sampling(temperature=0.4),
    "hot": Sampling(temperature=3.0),
    "top_k": Sampling(top_k=3),
    "top_p": Sampling(top_p=0.7),
    "all": Sampling(temperature=1.4, top_k=5, top_p=0.8),
    "unfinished": Sampling(end_ids=(0, 4), min_new_tokens=1),
}


def expected(logits: Tensor, how: Sampling) -> Tensor:
    """What transformers' processors of logits make of (1, V)."""
    if how.min_new_tokens:
        logits = logits.index_fill(1, torch.tensor(how.end_ids), -torch.inf)
    given: Any = torch.zeros(1, 1, dtype=torch.int64)
    logits = hf_logits.TemperatureLogitsWarper(how.temperature)(given, logits)  # pyright: ignore
    if how.top_k is not None:
        logits = hf_logits.TopKLogitsWarper(how.top_k)(given, logits)
    if how.top_p < 1:
        logits = hf_logits.TopPLogitsWarper(how.top_p)(given, logits)
    return torch.softmax(logits, dim=-1)[0]


@pytest.mark.parametrize("name", HOW)
def test_frequencies_are_the_probabilities(name: str) -> None:
    model, how, count = decoder("llama", vocabulary=8), HOW[name], 5000
    prompt = torch.tensor([[3, 1, 4]])
    p = expected(model(prompt).logits[:, -1], how)
    is_cut = name not in ("plain", "cold", "hot")
    assert 1 < (p > 0).sum() < (8 if is_cut else 9)
    ids = prompt.expand(count, -1)
    evenly = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) / count
    drawn = sample(model, ids, torch.ones_like(ids), evenly, how)
    tokens = drawn.ids[:, 0]
    frequencies = tokens.bincount(minlength=8) / count
    assert (frequencies - p).abs().max() <= 1 / count
    assert torch.allclose(drawn.log_p[:, 0], p[tokens].log(), **EXACT)


def test_a_mixture_is_drawn_from_both_models_at_each_step() -> None:
    model, teacher, mix = decoder("llama"), decoder("gpt2", seed=1), 0.3
    ids, mask = prompts(LENGTHS)
    uniforms = row_uniforms(5, range(len(LENGTHS)), NEW)
    drawn = sample(model, ids, mask, uniforms, Sampling(end_ids=ENDS), teacher=teacher, mix=mix)
    for row, (before, length) in enumerate(zip(LENGTHS, drawn.lengths.tolist(), strict=True)):
        tokens = drawn.ids[row, :length]
        whole = torch.cat([ids[row, -before:], tokens])[None]
        p_model, p_teacher = (
            torch.softmax(each(whole).logits[0, before - 1 : -1], dim=-1)
            for each in (model, teacher)
        )
        p = mix * p_teacher + (1 - mix) * p_model
        log_p = p.gather(1, tokens[:, None])[:, 0].log()
        assert torch.allclose(drawn.log_p[row, :length], log_p, **EXACT)
        below = p.cumsum(dim=1)  # the token's step of the distribution function holds u
        steps = torch.searchsorted(below, uniforms[row, :length, None].contiguous())[:, 0]
        assert torch.equal(steps, tokens)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_temperature_0_writes_what_transformers_writes(family: str) -> None:
    model = decoder(family)
    ids, mask = prompts(LENGTHS)
    how = Sampling(temperature=0, end_ids=ENDS, min_new_tokens=2)
    drawn = sample(model, ids, mask, torch.zeros(len(ids), NEW), how)
    settings = hf.GenerationConfig(
        **{"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": 2},
        **{"eos_token_id": list(ENDS), "pad_token_id": 0},
    )
    theirs = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    theirs = theirs[:, ids.shape[1] :]
    assert torch.equal(drawn.ids[:, : theirs.shape[1]], theirs)
    assert drawn.log_p.abs().max() == 0


def test_a_nucleus_wider_than_the_candidates_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    together = drawn_of("llama")
    monkeypatch.setattr("attar.models.sampling.CANDIDATES", 2)
    assert torch.equal(drawn_of("llama").ids, together.ids)


def test_a_row_needs_only_its_seed_and_number() -> None:
    some = row_uniforms(7, [4, 2**63 + 1], 5)
    assert torch.equal(some[:1], row_uniforms(7, [4], 9)[:, :5])
    assert not torch.equal(some[0], some[1])
    assert not torch.equal(some, row_uniforms(8, [4, 2**63 + 1], 5))


def test_a_model_without_a_cache_reads_again() -> None:
    config = hf.OpenAIGPTConfig(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=40)
    model: Any = hf.OpenAIGPTLMHeadModel(config).double().eval()
    assert not has_cache(model)
    assert all(has_cache(decoder(family)) for family in FAMILIES)
    ids, mask = prompts((4, 4))
    drawn = sample(model, ids, mask, torch.zeros(2, 3), Sampling(temperature=0))
    theirs = model.generate(input_ids=ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert torch.equal(drawn.ids, theirs[:, 4:])


def test_nothing_is_drawn_from_nan() -> None:
    model = tiny.tiny_language_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(torch.nan)
    ids, mask = prompts((3,))
    with pytest.raises(NonFiniteError, match="the model's logits are NaN or infinite"):
        sample(model, ids, mask, torch.zeros(1, 2), Sampling())
