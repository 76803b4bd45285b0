"""A row's numbers are the model's and the row's alone: the form, the batch and the padding leave
them as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import language_runs
from attar.models.load import load_model
from attar.models.simulated.packing import write_tensors
from attar.models.simulated.qparams import ModelQParams
from attar.models.simulated.quantized import quantizing
from attar.models.structure.ports import use_attar_attention_
from attar.scoring.forms import Form, open_form
from attar.scoring.in_memory import evaluating, head_logits
from attar.scoring.rows import longest_first, score_rows
from deployments import Deployments

ROUNDING = 1e-5
"""Float32 sums in another order."""
WORDS = "a good film is bad and the list file socket read open close".split()
TEXTS = [(" ".join(WORDS[i : i + 1 + 5 * i % 9]),) for i in range(13)]


def scores_of(
    form: Form,
    batch_size: int = 4,
    texts: list[tuple[str, ...]] = TEXTS,
    padded: Callable[[int], int] = lambda tokens: tokens,
) -> np.ndarray:
    encoded = form.encode(texts)
    batches = longest_first(encoded.lengths, batch_size)
    return score_rows(form.logits, encoded, batches, "a model", padded=padded)


@pytest.fixture(scope="module", params=["head", "words"])
def form(
    request: pytest.FixtureRequest,
    deployments: Deployments,
    tmp_path_factory: pytest.TempPathFactory,
) -> Form:
    if request.param == "head":
        return open_form(deployments.float(), 1)
    task = {**language_runs.WORDED, "label_words": ("film", "read the list")}
    folder = tmp_path_factory.mktemp("words") / "gpt2"
    return open_form(language_runs.write_random(folder, "gpt2", **task), 1)


def test_a_float_model_scores_as_plain_transformers_does_row_by_row(
    deployments: Deployments,
) -> None:
    form = open_form(deployments.float(), 1)
    model = AutoModelForSequenceClassification.from_pretrained(form.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(form.folder)
    with torch.no_grad():
        rows = [model(**tokenizer(*text, return_tensors="pt")).logits[0] for text in TEXTS]
    expected = torch.stack(rows).numpy()
    assert np.ptp(expected, axis=0).min() > 0.1, "the test needs scores that vary"
    assert scores_of(form) == pytest.approx(expected, abs=ROUNDING)


def test_a_simulated_model_without_sites_is_the_float_one_bit_for_bit(
    deployments: Deployments, tmp_path: Path
) -> None:
    float_folder, quantized = deployments.float() / "model", deployments.int8() / "model"
    loaded = load_model(float_folder, attention="eager")  # as simulated models compute it
    use_attar_attention_(loaded.model)
    shutil.copytree(quantized, tmp_path / "bare")
    whole = ModelQParams.read(quantized)
    left = (*(site.name for site in whole.sites), *(entry.fqn for entry in whole.weights))
    nothing = {"sites": (), "weights": (), "float_tensors": left}
    qparams = whole.model_copy(update=nothing)
    qparams.write(tmp_path / "bare")
    write_tensors(tmp_path / "bare", qparams, {}, {}, dict(loaded.model.named_parameters()))
    bare = open_form(tmp_path / "bare", 1)
    encoded = bare.encode(TEXTS)
    batches = longest_first(encoded.lengths, 4)

    def in_memory() -> np.ndarray:
        return score_rows(head_logits(loaded.model), encoded, batches, "in memory")

    plain = in_memory()
    assert np.array_equal(scores_of(bare), plain)
    with quantizing(loaded.model, whole.sites):
        assert not np.array_equal(in_memory(), plain)
    assert np.array_equal(in_memory(), plain)


def test_a_model_exported_to_torch_is_the_one_in_memory(deployments: Deployments) -> None:
    packed = open_form(deployments.export("int8", "safetensors")[0], 1)
    assert np.array_equal(scores_of(packed), scores_of(open_form(deployments.int8(), 1)))


@pytest.mark.parametrize("batch_size", [1, 3, 13])
def test_the_batch_does_not_change_a_row(form: Form, batch_size: int) -> None:
    assert scores_of(form, batch_size) == pytest.approx(scores_of(form), abs=ROUNDING)


def test_the_order_of_rows_does_not_change_a_row(form: Form) -> None:
    order = np.random.default_rng(0).permutation(len(TEXTS))
    mixed = scores_of(form, texts=[TEXTS[i] for i in order])
    assert mixed == pytest.approx(scores_of(form)[order], abs=ROUNDING)


def test_padding_does_not_change_a_row(form: Form) -> None:
    assert scores_of(form, padded=lambda tokens: tokens + 7) == pytest.approx(
        scores_of(form), abs=ROUNDING
    )


def test_scoring_leaves_a_model_in_training_as_it_was_and_able_to_learn(tiny_bert: Path) -> None:
    model = load_model(tiny_bert).model.train()
    batch = {"input_ids": np.array([[2, 5, 3]]), "attention_mask": np.ones((1, 3), np.int64)}
    found = head_logits(model)(batch)
    assert model.training
    assert all(module.training for module in model.modules())
    assert np.array_equal(found, head_logits(model.eval())(batch)), "dropout"
    with evaluating(model.train()):
        made = model(**{name: torch.from_numpy(x) for name, x in batch.items()}).logits
    assert not made.is_inference(), "what it caches could not be part of a backward pass"
