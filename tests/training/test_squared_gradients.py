"""What a teacher's answer depends on, measured."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertForSequenceClassification,
    T5ForSequenceClassification,
)

import tiny
from attar.errors import ModelError
from attar.losses.targets import UNLABELLED, Targets
from attar.losses.term import Needs
from attar.tasks.task import Generation
from attar.training.forward import forward
from attar.training.squared_gradients import squared_gradients_of
from language_runs import write_random, write_tokenizer
from training_runs import prepare, read_history, run_training

LENGTHS = (6, 4)


def teacher_and_batch() -> tuple[Any, dict[str, torch.Tensor], Targets]:
    model = tiny.tiny_model("bert").double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    ids = torch.randint(3, 60, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(6) < torch.tensor(LENGTHS)[:, None]).long()
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    teacher = SimpleNamespace(model=model, input_names=tuple(inputs))
    return teacher, inputs, Targets(torch.tensor([0, 1]), {"encoder": mask})


def test_it_is_the_squared_jacobian_of_the_centred_logits_on_average() -> None:
    teacher, inputs, targets = teacher_and_batch()
    model, mask = teacher.model, inputs["attention_mask"]
    embedded = model.bert.embeddings(inputs["input_ids"]).detach().requires_grad_()
    hooked = model.bert.embeddings.register_forward_hook(lambda *_: embedded)
    outputs = forward(model, inputs, Needs(hidden=True))
    logits = outputs.logits - outputs.logits.mean(dim=-1, keepdim=True)
    expected = torch.zeros(2, 32).double()
    count = torch.tensor([2.0, sum(LENGTHS) - 2.0]).double()
    for column in range(logits.shape[1]):
        (jacobian,) = torch.autograd.grad(logits[:, column].sum(), embedded, retain_graph=True)
        squares = jacobian.square() * mask.unsqueeze(-1)
        expected[0] += squares[:, 0].sum(dim=0)
        expected[1] += squares[:, 1:].sum(dim=(0, 1))
    hooked.remove()
    draws = [squared_gradients_of(teacher, [(inputs, targets)], seed) for seed in range(400)]
    mean = torch.stack([draw["encoder"][0].squares for draw in draws]).mean(dim=0)
    relative = (mean - expected / count[:, None]).norm() / (expected / count[:, None]).norm()
    assert relative < 0.1, "400 draws of signs leave about 1/√400 of noise"


def test_an_encoder_answers_from_its_first_token() -> None:
    teacher, inputs, targets = teacher_and_batch()
    states = squared_gradients_of(teacher, [(inputs, targets)], 0)["encoder"]
    assert states[-1].squares[0].min() >= 0 < states[-1].squares[0].max()
    assert states[-1].squares[1].max() == 0, "nothing reads the other tokens of the last state"
    assert states[0].squares[1].max() > 0
    assert states[0].first_share == 2 / sum(LENGTHS)
    assert not any(p.requires_grad or p.grad is not None for p in teacher.model.parameters())


def test_batches_add_up() -> None:
    teacher, inputs, targets = teacher_and_batch()
    parts = []
    for row in range(2):
        one = {name: values[row : row + 1] for name, values in inputs.items()}
        mask = {"encoder": one["attention_mask"]}
        parts.append((one, Targets(targets.labels[row : row + 1], mask)))
    whole = squared_gradients_of(teacher, [(inputs, targets)], 0)
    cut = squared_gradients_of(teacher, parts, 0)
    for one, other in product(whole, cut):
        for left, right in zip(whole[one], cut[other], strict=True):
            torch.testing.assert_close(left.squares, right.squares)
            assert left.first_share == right.first_share


@pytest.mark.parametrize("family", ["t5", "t5_gated", "bart", "gpt2", "llama"])
@pytest.mark.parametrize("writes", [True, False])
def test_every_hidden_state_of_every_stack_is_reached(family: str, writes: bool) -> None:
    """A state that the answer does not depend on at all would be a gradient cut on the way."""
    config = tiny.tiny_config(family)
    model = tiny.tiny_model(family)
    inputs = tiny.tiny_batch()
    mask, labels = inputs["attention_mask"], torch.tensor([0, 1, 2])
    stacks = ("encoder", "decoder") if config.is_encoder_decoder else ("decoder",)
    if writes:
        made = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = made.from_config(config).eval()
        labels = torch.where(mask.bool(), inputs["input_ids"], UNLABELLED)
    if writes and config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    teacher: Any = SimpleNamespace(model=model, input_names=("input_ids", "attention_mask"))
    targets = Targets(labels, dict.fromkeys(stacks, mask))
    found = squared_gradients_of(teacher, [(inputs, targets)], 0)
    assert tuple(found) == stacks
    for stack, states in found.items():
        assert len(states) == config.num_hidden_layers + 1
        for state in states:
            assert bool((state.squares.sum(dim=0) > 0).all()), stack


def bare(folder: Path, *, architecture: str | None = None) -> Path:
    """A BERT without its classifier."""
    model: Any = BertForSequenceClassification.from_pretrained(folder)
    model.base_model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [architecture] if architecture else None
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("architecture", ["BertModel", None])
def test_a_teacher_without_a_head_is_refused(tmp_path: Path, architecture: str | None) -> None:
    place = prepare(tmp_path)
    bare(tiny.write_tiny_bert(place / "teacher", seed=1), architecture=architecture)
    losses = [{"kind": "cross_entropy"}, {"kind": "sensitivity_mse"}]
    with pytest.raises(ModelError, match=r"has no head.*use hidden_mse instead"):
        run_training(place, teacher="teacher", losses=losses)
    losses[1] = {"kind": "hidden_mse"}
    assert run_training(place, teacher="teacher", losses=losses, max_steps=1)["steps"] == 1


def test_a_masked_language_model_has_an_answer(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    tiny.write_tiny_masked_lm(place / "teacher")
    made = {"from": "teacher", "keep_blocks": [1], "new_head": True}
    losses = [{"kind": "sensitivity_mse"}]
    assert (
        run_training(place, model=made, teacher="teacher", losses=losses, max_steps=1)["steps"] == 1
    )


def test_a_classifier_does_not_say_what_each_token_s_answer_depends_on(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    words = {"objective": "text_to_text", "template": "film: {0}", "label_words": ["bad", "good"]}
    task = {"objective": "text_to_text", "generation": Generation()}
    write_random(place / "t5", "t5", **task)
    classes = T5ForSequenceClassification.from_pretrained(place / "t5", num_labels=2)
    write_tokenizer(place / "teacher")
    classes.save_pretrained(place / "teacher")
    losses = [{"kind": "sensitivity_mse"}]
    with pytest.raises(
        ModelError, match=r"predicts once per text, the student once per token.*hidden_mse"
    ):
        run_training(place, model="t5", teacher="teacher", losses=losses, **words)


@pytest.mark.parametrize("with_it", [True, False])
def test_a_student_learns_from_it_in_the_real_loop(tmp_path: Path, with_it: bool) -> None:
    place = prepare(tmp_path)
    tiny.write_tiny_bert(place / "teacher", seed=1)
    kind = {"kind": "sensitivity_mse", "power": 1.0} if with_it else {"kind": "hidden_mse"}
    run_training(place, teacher="teacher", losses=[kind], max_steps=3)
    values = [line["losses"][kind["kind"]] for line in read_history(place) if "losses" in line]
    assert len(values) == 3 and all(value > 0 for value in values)
