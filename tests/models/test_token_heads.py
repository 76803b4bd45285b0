"""Heads that answer every token, in every family that has them: where they are quantized, what they
cost, and what a folder of another program is taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tiny
from attar.losses.term import Needs
from attar.models.cost import flops
from attar.models.foreign import task_of
from attar.models.heads import answers_tokens, logits_in
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.sites import sites_of
from attar.quantization.calibration.outputs import final_states
from attar.training.forward import forward

ENCODERS = ("bert", "roberta", "distilbert", "electra", "mpnet", "modernbert")
HEADS = (
    *(
        (family, head)
        for family in ENCODERS
        for head in ("TokenClassification", "QuestionAnswering")
    ),
    *(("bart", "QuestionAnswering"), ("gpt2", "TokenClassification")),
)


@pytest.fixture(scope="module", params=HEADS, ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    family, head = request.param
    return tiny.tiny_model(family, head=head, num_labels=2)


def test_a_head_that_answers_every_token_is_seen_sited_and_counted(model: Any) -> None:
    assert answers_tokens(model)
    assert anatomy_of(model).head is not None
    sites = sites_of(model)
    assert "pooler_input" not in {site.kind for site in sites}
    last = anatomy_of(model).stacks[-1]
    norm = last.final_norm or last.blocks[-1].norms[-1]
    assert norm.fqn in {site.fqn for site in sites}  # what the head reads
    ids = tiny.tiny_batch(batch=2, tokens=7)["input_ids"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert flops(model, 2, 7) == counter.get_total_flops()


def test_padding_is_no_answer_and_changes_none(model: Any) -> None:
    """Neither in what a loss looks at, nor in what calibration does."""
    batch = tiny.tiny_batch(batch=2, tokens=7)  # the second row has 6
    alone = {name: tensor[1:, :6] for name, tensor in batch.items()}
    with torch.no_grad():
        both, one = (forward(model, inputs, Needs()).logits for inputs in (batch, alone))
        states = final_states(model, batch)
        logits = logits_in(model(**batch))
    assert isinstance(both, torch.Tensor)
    assert isinstance(one, torch.Tensor)
    assert logits is not None
    if "start_logits" in model(**alone):  # places are classes
        assert both.shape == (2, 2, 7)
        torch.testing.assert_close(both[1:, :, :6], one, rtol=1e-4, atol=1e-4)
        assert (both[1].softmax(-1)[:, 6] == 0).all()
    else:
        torch.testing.assert_close(both[1:, :6], one, rtol=1e-4, atol=1e-4)
    assert states.shape == (13, logits.shape[-1])
    torch.testing.assert_close(states, logits[batch["attention_mask"] > 0])


@pytest.mark.parametrize("head", ["TokenClassification", "QuestionAnswering"])
def test_a_folder_of_another_program_is_known_by_its_head(tmp_path: Path, head: str) -> None:
    names = {0: "O", 1: "B-LOC", 2: "I-LOC"}
    labels = {"id2label": names} if head == "TokenClassification" else {"num_labels": 2}
    tiny.write_tokenizer(tmp_path)
    tiny.tiny_model("bert", head=head, **labels).save_pretrained(tmp_path)
    task = task_of(tmp_path)
    assert task.kind.heads == (f"For{head}",)
    assert task.label_names == (tuple(names.values()) if "id2label" in labels else ())
    assert task.num_labels == (3 if "id2label" in labels else 2)
    assert task.num_texts == (None if "id2label" in labels else 2)
