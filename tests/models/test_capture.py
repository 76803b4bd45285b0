"""What capture shows is what the model computed, and the model computes the same with and without
it.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.models.capture import capture
from attar.models.structure.anatomy import anatomy_of


@pytest.fixture(scope="module", params=[(f, a) for f in tiny.FAMILIES for a in ("eager", "sdpa")])
def model(request: pytest.FixtureRequest) -> Any:
    family, attention = request.param
    return tiny.tiny_model(family, attention=attention)


def run(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny.tiny_batch()).logits


def test_watching_changes_no_bit(model: Any) -> None:
    before = run(model)
    with capture(model):
        during = run(model)
    assert torch.equal(before, during)
    assert torch.equal(before, run(model))


def test_softmax_of_the_scores_is_the_model_s_own_attention(model: Any) -> None:
    """The eager attention of transformers shows probabilities: the softmax of score + mask."""
    with capture(model) as seen:
        run(model)
    eager = copy.deepcopy(model)
    for module in eager.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"
    with torch.no_grad():
        theirs = eager(**tiny.tiny_batch(), output_attentions=True)
    mask = tiny.tiny_batch()["attention_mask"][:, None, None].bool()
    for stack in anatomy_of(model).stacks:
        is_decoder_of_two = stack.name == "decoder" and model.config.is_encoder_decoder
        is_pair = model.config.is_encoder_decoder
        own = theirs[f"{stack.name}_attentions" if is_pair else "attentions"]
        for block, scores, expected in zip(stack.blocks, seen.scores[stack.name], own, strict=True):
            visible = torch.ones_like(scores, dtype=torch.bool)
            window = getattr(block.attention.module, "sliding_window", None)
            if window is not None:  # local blocks of ModernBERT, Gemma 2 and 3
                place = torch.arange(scores.shape[-1])
                visible &= (place[:, None] - place).abs() < window
            if stack.row.is_causal:
                visible = visible.tril()
            if not is_decoder_of_two:
                visible = visible & mask
            compare(scores, visible, expected)
        for scores, expected in zip(
            seen.cross_scores.get(stack.name, []),
            theirs.get("cross_attentions") or [],
            strict=False,
        ):
            compare(scores, mask.expand_as(scores), expected)
    assert (len(seen.cross_scores) == 1) == bool(model.config.is_encoder_decoder)


def compare(scores: torch.Tensor, visible: torch.Tensor, expected: torch.Tensor) -> None:
    assert scores.dtype == torch.float32
    ours = scores.masked_fill(~visible, torch.finfo(torch.float32).min).softmax(-1)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_hidden_states_are_those_transformers_reports(model: Any) -> None:
    with capture(model, scores=False) as seen, torch.no_grad():
        theirs = model(**tiny.tiny_batch(), output_hidden_states=True)
    for stack in anatomy_of(model).stacks:
        key = f"{stack.name}_hidden_states" if model.config.is_encoder_decoder else "hidden_states"
        ours, reported = seen.hidden[stack.name], theirs[key]
        assert len(ours) == len(stack.blocks) + 1 == len(reported)
        for mine, other in zip(ours[:-1], reported[:-1], strict=True):
            assert torch.equal(mine, other)
        last = ours[-1] if stack.final_norm is None else stack.final_norm.module(ours[-1])
        torch.testing.assert_close(last, reported[-1], rtol=1e-6, atol=1e-6)
    assert seen.scores == {}


def test_a_new_pass_replaces_what_was_seen() -> None:
    model = tiny.tiny_model("bert")
    with capture(model) as seen, torch.no_grad():
        model(**tiny.tiny_batch(tokens=9))
        model(**tiny.tiny_batch(tokens=6))
    assert [len(states) for states in (seen.hidden["encoder"], seen.scores["encoder"])] == [3, 2]
    assert seen.scores["encoder"][0].shape == (3, 4, 6, 6)


def test_two_models_are_watched_at_once_and_apart() -> None:
    teacher, student = tiny.tiny_model("bert"), tiny.tiny_model("bert", blocks=1, seed=1)
    with capture(teacher) as big, capture(student) as small:
        run(teacher)
        run(student)
    assert len(big.scores["encoder"]) == 2
    assert len(small.scores["encoder"]) == 1
    assert not torch.equal(big.scores["encoder"][0], small.scores["encoder"][0])


def test_gradient_flows_through_captured_scores() -> None:
    model = tiny.tiny_model("llama", attention="sdpa")
    with capture(model) as seen:
        model(**tiny.tiny_batch())
    seen.scores["decoder"][1].square().mean().backward()
    query = anatomy_of(model).blocks[1].attention.q.module.weight.grad
    assert query is not None and query.abs().sum() > 0


def test_watching_twice_is_refused_and_everything_is_put_back() -> None:
    model = tiny.tiny_model("bert", attention="sdpa")
    twice = pytest.raises(ModelError, match="already being captured")
    with capture(model), twice, capture(model):
        pass
    assert model.config._attn_implementation == "sdpa"
    hooks = [h for m in model.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
    assert hooks == []
    with capture(model) as seen:
        run(model)
    assert len(seen.scores["encoder"]) == 2


def test_scores_of_a_model_in_float64_are_its_own_to_the_last_digits() -> None:
    model = tiny.tiny_model("bert").double()
    with capture(model) as seen, torch.no_grad():
        theirs = model(**tiny.tiny_batch(), output_attentions=True).attentions
    seen_by_queries = tiny.tiny_batch()["attention_mask"][:, None, None].bool()
    for scores, expected in zip(seen.scores["encoder"], theirs, strict=True):
        ours = scores.masked_fill(~seen_by_queries, -torch.inf).softmax(-1)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-15)


def test_scores_stay_float32_under_autocast() -> None:
    model = tiny.tiny_model("bert", attention="sdpa")
    with capture(model) as seen, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(**tiny.tiny_batch())
    assert seen.scores["encoder"][0].dtype == torch.float32
