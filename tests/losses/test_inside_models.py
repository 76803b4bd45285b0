"""Laws of the losses that look inside, on tiny models of the families: zero for equal models,
positive otherwise, in every stack, and blind to what the padding says.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.losses.attentions import relation_scores
from attar.losses.config import AttentionMse, EmbeddingMse, Eofd, HiddenCosine, LossConfig
from attar.losses.config import RelationKl as Relations
from attar.losses.targets import Targets, count_units
from attar.losses.term import Needs, Pair
from attar.losses.total import TotalLoss
from attar.training.forward import forward, shape_of

FLOAT32 = 1e-6
"""Scores of a few units, computed with other neighbours in a batch."""
V2 = Relations(relations=("query", "key", "value"), heads=2)
KINDS: tuple[LossConfig, ...] = (AttentionMse(), Relations(), V2, Eofd(), HiddenCosine())
every_kind = pytest.mark.parametrize("config", KINDS, ids=lambda c: getattr(c, "kind", str(c)))
families = pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])


def value(config: LossConfig, student: Any, teacher: Any, inputs: Any = None) -> torch.Tensor:
    """The loss of a batch with padding, with gradient."""
    inputs = inputs or tiny.tiny_batch()
    pair = Pair(shape_of(student), shape_of(teacher))
    loss = TotalLoss([config], "classification", pair)
    masks = dict.fromkeys(pair.student, inputs["attention_mask"])
    targets = Targets(torch.zeros(len(inputs["input_ids"]), dtype=torch.int64), masks)
    with torch.no_grad():
        taught = forward(teacher, inputs, loss.needs)
    given = forward(student, inputs, loss.needs)
    loss.look_at([taught], [targets])
    counts = count_units(targets.labels, {s: int(mask.sum()) for s, mask in masks.items()})
    return loss(given, taught, targets, counts).total


@families
@every_kind
def test_it_is_zero_for_equal_models_and_positive_for_others(
    family: str, config: LossConfig
) -> None:
    one, same, other = (tiny.tiny_model(family, seed=seed) for seed in (0, 0, 1))
    assert 0 <= float(value(config, one, same).detach()) <= FLOAT32
    assert float(value(config, one, other).detach()) > 1e-4


@families
@every_kind
def test_what_the_padding_says_does_not_matter(family: str, config: LossConfig) -> None:
    student, teacher = (tiny.tiny_model(family, seed=seed) for seed in (0, 1))
    inputs = tiny.tiny_batch()
    padding = inputs["attention_mask"] == 0
    # The classifiers of some families look for the end of a text by its id: none is put there.
    changed = inputs | {"input_ids": torch.where(padding, 7, inputs["input_ids"])}
    assert not torch.equal(changed["input_ids"], inputs["input_ids"])
    found = [float(value(config, student, teacher, i).detach()) for i in (inputs, changed)]
    assert found[1] == pytest.approx(found[0], rel=FLOAT32)


@families
@pytest.mark.parametrize("config", [AttentionMse(), Relations(), V2], ids=("att", "v1", "v2"))
def test_gradient_reaches_queries_keys_and_values_of_the_student(
    family: str, config: LossConfig
) -> None:
    student, teacher = (tiny.tiny_model(family, seed=seed) for seed in (0, 1))
    value(config, student, teacher).backward()
    touched = {
        name
        for name, parameter in student.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }
    stacks = {"bert": ["encoder"], "gpt2": ["h.1"], "t5": ["encoder", "decoder"]}[family]
    assert all(any(stack in name for name in touched) for stack in stacks), touched
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("config", [AttentionMse(), Relations(), V2], ids=("att", "v1", "v2"))
def test_fewer_key_heads_than_query_heads_are_no_hindrance(family: str, config: Any) -> None:
    one, other = (tiny.tiny_model(family, seed=seed) for seed in (0, 1))
    assert float(value(config, one, one).detach()) <= FLOAT32
    assert float(value(config, one, other).detach()) > 1e-4


def test_both_stacks_of_an_encoder_decoder_are_compared() -> None:
    one, changed = (tiny.tiny_model("t5") for _ in range(2))
    with torch.no_grad():  # of the last block of the decoder only
        for parameter in changed.transformer.decoder.block[-1].layer[0].parameters():
            parameter.mul_(1.5)
    inputs = tiny.tiny_batch()
    for config in KINDS:
        assert float(value(config, one, changed, inputs).detach()) > 1e-6, config.kind


def test_a_student_of_another_width_and_head_count_learns_from_relations_alone() -> None:
    student = tiny.tiny_model("bert", hidden_size=24, num_attention_heads=3)
    teacher = tiny.tiny_model("bert", seed=1)
    config = Relations(relations=("query", "key", "value"), heads=4, teacher_block=0)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    values: list[float] = []
    for _ in range(25):
        found = value(config, student, teacher)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        values.append(float(found.detach()))
    assert values[-1] < 0.5 * values[0]
    with pytest.raises(ModelError, match=r"^relation_kl: .*3 heads.*4"):
        value(Relations(), student, teacher)


def test_embeddings_alone_are_what_embedding_mse_sees() -> None:
    one, other = (tiny.tiny_model("bert") for _ in range(2))
    with torch.no_grad():
        for parameter in other.bert.encoder.parameters():
            parameter.add_(1.0)
    assert float(value(EmbeddingMse(), one, other).detach()) == 0
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight.add_(torch.randn(tiny.VOCABULARY, 32))
    assert float(value(EmbeddingMse(), one, other).detach()) > 0.01


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_query_is_judged_by_the_keys_that_its_model_lets_it_see(family: str) -> None:
    """The expected value is taken from the models' scores, token by token."""
    student, teacher = (tiny.tiny_model(family, seed=seed) for seed in (0, 1))
    inputs, needs = tiny.tiny_batch(), Needs(scores=True)
    (stack,) = shape_of(student)
    given, taught = (forward(m, inputs, needs).scores[stack] for m in (student, teacher))
    errors: list[torch.Tensor] = []
    for own, other in zip(given, taught, strict=True):
        for b, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
            for t in range(length):
                keys = slice(0, t + 1 if family == "gpt2" else length)
                errors.append((own - other)[b, :, t, keys].square().mean())
    expected = torch.stack(errors).mean().item()
    found = value(AttentionMse(), student, teacher, inputs).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_relations_of_a_causal_stack_end_at_the_query() -> None:
    """The first token sees itself alone, in both models: there is nothing to differ in."""
    student, teacher = (tiny.tiny_model("gpt2", seed=seed) for seed in (0, 1))
    inputs = {name: ids[:, :1] for name, ids in tiny.tiny_batch().items()}
    assert value(Relations(), student, teacher, inputs).item() == 0
    longer = {name: ids[:1, :2] for name, ids in tiny.tiny_batch().items()}
    only_second = value(V2, student, teacher, longer).item()
    given, taught = (
        forward(m, longer, Needs(qkv=True)).qkv["decoder"][-1] for m in (student, teacher)
    )
    expected = []
    for own, other in zip(given, taught, strict=True):
        scores = (relation_scores(of, 2)[0, :, 1] for of in (own, other))
        log_q, log_p = (of.log_softmax(dim=-1) for of in scores)
        expected.append((log_p.exp() * (log_p - log_q)).sum(dim=-1).mean() / 2)
    assert only_second == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


def test_key_heads_that_differ_are_refused_with_their_numbers() -> None:
    student = tiny.tiny_model("llama")
    teacher = tiny.tiny_model("llama", num_key_value_heads=4)
    with pytest.raises(ModelError, match=r"^relation_kl: .*2 value heads.* 4; .*16 and 32"):
        value(Relations(relations=("value",)), student, teacher)
    assert value(V2, student, teacher).item() > 0
