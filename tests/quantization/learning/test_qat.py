"""Quantization-aware training: it learns, it resumes exactly, and what it writes is what it
validated.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import forked
import qat_runs
import tiny
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError, StoppedError
from attar.models.simulated.packing import read_integers
from attar.models.simulated.qparams import ModelQParams
from attar.models.simulated.quantized import load_simulated
from attar.models.structure.ports import use_attar_attention_
from attar.quantization.learning import job, qat
from attar.quantization.learning.qat import LEARNERS
from attar.tasks.task import Task
from attar.training.objectives.examples import Validation
from attar.training.objectives.labelled import LabelledTexts
from qat_runs import history_of, prepare, result_of, run_qat

SAME = 1e-5
"""Between logits of the trained module and of the folder: sums of a batch in another order."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return prepare(tmp_path)


def validation_of(place: Path, model: torch.nn.Module, folder: Path) -> dict[str, float]:
    """What the loop's own validation says of a model."""
    task = Task.read(folder)
    data = load_data(FilesData(path=str(place / "texts")), place, name="texts", seed=0)
    split = data.split("validation")
    numbers = np.array([task.label_names.index(name) for name in data.label_names])
    encoder = TextEncoder.from_folder(folder, task.max_length, task.input_names)
    examples = LabelledTexts(encoder.encode(split.texts), numbers[split.labels])
    return examples.validate(Validation(model, ("accuracy",), 8))  # pyright: ignore


NOISY = {"method": "lsq_plus", "quant_noise": 0.5, "query_key_grids": "symmetric"}


@pytest.mark.parametrize("settings", [*({"method": name} for name in LEARNERS), NOISY])
def test_the_folder_says_what_the_trained_model_said(place: Path, settings, monkeypatch) -> None:
    """Recorded in training, from the float parameters; read back from integers and grids."""
    trained = []
    of = qat._Student.of.__func__
    monkeypatch.setattr(
        qat._Student, "of", classmethod(lambda *a: trained.append(of(*a)) or trained[0])
    )
    metrics = run_qat(place, **settings)
    grids = trained[0].weights.values()
    assert {grid.noise for grid in grids} == {settings.get("quant_noise", 1)}
    written = load_simulated(place / "out" / "model").model
    batch = tiny.tiny_batch(batch=6)
    with torch.no_grad():
        difference = written(**batch).logits - trained[0].model.eval()(**batch).logits
    assert float(difference.abs().max()) <= SAME
    found = validation_of(place, written, place / "out" / "model")
    assert found == pytest.approx(metrics["training"]["validation"], abs=SAME)


@pytest.mark.parametrize("method", list(LEARNERS))
def test_training_lowers_the_loss_and_moves_the_grids(place: Path, method) -> None:
    metrics = run_qat(place, method=method, epochs=6)
    lines = history_of(place)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    assert metrics["training"]["steps"] == len(losses) == 36
    assert [line["step"] for line in lines if "validation" in line] == [12, 24, 36]
    shutil.rmtree(place / "scratch")
    still = run_qat(place, method=method, epochs=0.2, learning_rate=1e-12)
    moved = [
        name
        for name, site in metrics["sites"].items()
        if abs(site["scale"] / still["sites"][name]["scale"] - 1) > 1e-4
    ]
    assert len(moved) > 0.9 * len(metrics["sites"])
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("bits", [(4, 4, 4), (2, 2, 4)])
def test_every_tensor_has_its_bits(place: Path, bits) -> None:
    weight, embedding, activation = bits
    run_qat(place, weight_bits=weight, embedding_bits=embedding, activation_bits=activation)
    qparams = ModelQParams.read(place / "out" / "model")
    assert {w.bits for w in qparams.weights if w.kind == "linear"} == {weight}
    assert {w.bits for w in qparams.weights if w.kind == "embedding"} == {embedding}
    assert {site.bits for site in qparams.sites} == {activation}


@pytest.mark.parametrize(("method", "levels"), [("lsq", 4), ("lsq_plus", 4), ("pact", 3)])
def test_two_bits_are_the_levels_of_the_method(place: Path, method, levels) -> None:
    """LSQ's Q_N = 2 and Q_P = 1; min-max weights reach equally far on both sides of zero."""
    run_qat(place, method=method, weight_bits=2, epochs=1)
    folder = place / "out" / "model"
    stored = read_integers(folder, ModelQParams.read(folder))
    found = {int(level) for integers, _ in stored.values() for level in integers.unique()}
    assert found == set(range(2 - levels, 2))


def test_the_float_model_teaches_and_stays_as_it_was(place: Path) -> None:
    before = (place / "float" / "model.safetensors").read_bytes()
    taught = run_qat(place)
    assert (place / "float" / "model.safetensors").read_bytes() == before
    assert taught["training"]["last_losses"].keys() == {"forward_kl", "cross_entropy"}
    alone = prepare(place / "alone")
    metrics = run_qat(alone, distil=False)
    assert metrics["training"]["last_losses"].keys() == {"cross_entropy"}
    first = [history_of(folder)[0]["losses"]["cross_entropy"] for folder in (place, alone)]
    assert first[0] == first[1], "both see the same rows with the same dropout"


def test_dropout_is_on_attention_probabilities_alone() -> None:
    for family in ("bert", "bart"):
        model, rates = tiny.tiny_model(family), set()
        qat._set_dropout_(model)
        for name, module in model.named_modules():
            rate = module.p if isinstance(module, torch.nn.Dropout) else None
            rate = getattr(module, "dropout", rate) if not isinstance(rate, float) else rate
            if isinstance(rate, float):
                is_attention = "self" in name if family == "bert" else "attn" in name
                assert rate == (0.1 if is_attention else 0.0), name
                rates.add(rate)
        assert rates == {0.0, 0.1}


@pytest.mark.parametrize("family", ["bert", "bart", "t5", "gpt2", "llama"])
def test_attentions_are_given_that_dropout_and_nothing_else_is(family, monkeypatch) -> None:
    model = tiny.tiny_model(family)
    use_attar_attention_(model)
    qat._set_dropout_(model)
    found = []
    dropout = torch.nn.functional.dropout

    def counted(x, p=0.5, training=True, inplace=False):
        found.append((x.ndim == 4, p))
        return dropout(x, p, training, inplace)

    monkeypatch.setattr(torch.nn.functional, "dropout", counted)
    model.train()(**tiny.tiny_batch())
    assert {p for is_of_probabilities, p in found if is_of_probabilities} == {0.1}
    assert {p for is_of_probabilities, p in found if not is_of_probabilities} <= {0.0}


@pytest.mark.parametrize(("poll", "settings"), [(9, {}), (14, NOISY)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    place: Path, tmp_path, poll, settings
) -> None:
    run_qat(place, **settings)
    stopped = prepare(tmp_path / "stopped")
    polls = iter(range(1000))
    with pytest.raises(StoppedError, match=r"of 12.*attar resume"):
        run_qat(stopped, should_stop=lambda: next(polls) == poll, **settings)
    assert list((stopped / "scratch").glob("checkpoint-*"))
    run_qat(stopped, **settings)
    assert result_of(stopped) == result_of(place)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(place: Path, tmp_path: Path) -> None:
    killed = prepare(tmp_path / "killed")
    process = forked.start(qat_runs.__file__, killed, "epochs=6")
    deadline = time.monotonic() + 120
    while not list((killed / "scratch").glob("checkpoint-*")) and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.001)
    time.sleep(random.Random().uniform(0, 0.05))  # really random: any moment must do
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(120) == -signal.SIGKILL, "the run ended before it could be killed"
    run_qat(killed, epochs=6)
    run_qat(place, epochs=6)
    assert result_of(killed) == result_of(place)


def test_data_of_other_classes_are_refused_by_name(place: Path) -> None:
    for name in ("train", "validation"):
        file = place / "texts" / f"{name}.jsonl"
        file.write_text(file.read_text().replace('"docs"', '"books"'))
    with pytest.raises(ModelError, match="'books'"):
        run_qat(place)


def test_classes_are_matched_by_name_not_by_order(place: Path) -> None:
    """The model's order is docs, films, files; the data's is sorted by name."""
    task = Task.read(place / "float")
    data = load_data(FilesData(path=str(place / "texts")), place, name="texts", seed=0)
    assert set(task.label_names) == set(data.label_names)
    assert task.label_names != data.label_names, "the test needs two orders"
    ours, theirs = (
        job.in_model_order(data, task, "float", pytest.fail).split("train"),
        data.split("train"),
    )
    assert [task.label_names[i] for i in ours.labels] == [
        data.label_names[i] for i in theirs.labels
    ]


def test_what_cannot_be_trained_is_refused_before_anything_is_calibrated(place, monkeypatch):
    from attar.quantization import run

    def refuse(*_):
        raise AssertionError("too late")

    monkeypatch.setattr(run, "_calibration_batches", refuse)
    with pytest.raises(ModelError, match="max_length is 4096"):
        run_qat(place, max_length=4096)
    for split in ("train", "validation"):
        file = place / "texts" / f"{split}.jsonl"
        file.write_text(file.read_text().replace('"docs"', '"books"'))
    with pytest.raises(
        ModelError, match=r"only the model has \['docs'\].*only the data have \['books'\]"
    ):
        run_qat(place)
