"""What the plan says of a quantize step is about what the step does, counted here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers.models.bert.modeling_bert import BertLayer

import simulated
import tiny
from attar.quantization.config import QuantizeStep
from attar.quantization.plan import mean_weight_bits, passes_of

TEXTS, ROWS, BLOCKS = 32, 48, 2
ABOUT = 1.6
"""A plan is no promise, but who waits wants to know minutes from hours."""


@pytest.fixture
def counted(monkeypatch) -> Callable[[], float]:
    """Passes over the texts so far, block by block; one that is learned from counts three times."""
    seen = [0]
    forward = BertLayer.forward

    def counting(self, x, *args, **kwargs):
        seen[0] += len(x) * (3 if torch.is_grad_enabled() else 1)
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(BertLayer, "forward", counting)
    return lambda: seen[0] / TEXTS / BLOCKS


def settings(**given: Any) -> dict[str, Any]:
    return {"calibration": {"data": "texts", "examples": TEXTS, "batch_size": 4}, **given}


def step_of(**given: Any) -> Any:
    return TypeAdapter(QuantizeStep).validate_python(
        {"model": "student", "method": "minmax", **settings(**given)}
    )


@pytest.mark.parametrize(
    "given",
    [
        {"method": "minmax"},
        {"method": "outlier_suppression"},
        {"method": "token_wise_clipping", "activation_bits": 4, "refine": False},
        {"method": "auto"},
        {"method": "step_size"},
        {"method": "lsq", "epochs": 2},
        {"weights": "gptq", "budget": {"average_bits": 4}},
    ],
    ids=json.dumps,
)
def test_passes_are_about_those_that_are_made(given, tmp_path, counted):
    simulated.run_quantize(tmp_path, **settings(**given))
    step, model = step_of(**given), tiny.tiny_model("bert")
    found = passes_of(step, model)
    planned = found.texts + found.training * ROWS / TEXTS
    assert counted() / ABOUT < planned < counted() * ABOUT


def test_the_size_counts_tables_and_the_rest_each_at_its_bits():
    model = tiny.tiny_model("bert")
    rest, tables = (
        mean_weight_bits(step_of(weight_bits=8, embedding_bits=e), model) for e in (8, 4)
    )
    assert rest == 8
    assert 4 < tables < 8
    assert mean_weight_bits(step_of(budget={"average_bits": 3}), model) == 3
