"""Calibration texts: the same rows for whoever asks, and for a writer what it writes itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import simulated
import summaries
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.errors import DataError
from attar.models.generation import generate
from attar.models.load import LoadedModel, load_model
from attar.progress import Progress
from attar.quantization.calibration.calibrate import choose_examples
from attar.quantization.calibration.decoder_texts import decoder_inputs
from attar.quantization.calibration.texts import CalibrationTexts, calibration_texts
from attar.step import StepContext


def texts_of(loaded: LoadedModel, data: FilesData, folder: Path, **asked: int) -> CalibrationTexts:
    assert loaded.task is not None
    context = StepContext(
        name="step",
        folder=folder,
        scratch=folder,
        inputs={},
        data={},
        recipe_folder=folder,
        progress=Progress(quiet=True),
        seed=7,
    )
    encoder = TextEncoder.from_folder(
        loaded.folder, loaded.task.max_length, loaded.task.input_names
    )
    told = {"examples": 10, "batch_size": None, "seed": None} | asked
    return calibration_texts(loaded, encoder, load_data(data, folder), context, **told)  # pyright: ignore


def test_a_writer_reads_what_it_writes_to_the_texts_four_at_a_time(tmp_path: Path) -> None:
    summaries.write_untrained(tmp_path / "bart")
    summaries.write_data(tmp_path / "texts", train=12)
    loaded = load_model(tmp_path / "bart")
    assert loaded.task is not None
    found = texts_of(loaded, FilesData(path="texts", objective="text_to_text"), tmp_path)
    assert [len(batch["input_ids"]) for batch in found.batches] == [4, 4, 2]
    for batch in found.batches:
        written = generate(loaded.model, loaded.task, batch["input_ids"], batch["attention_mask"])
        for name, wanted in decoder_inputs(loaded, written).items():
            assert torch.equal(batch[name], wanted), name


def test_a_seed_of_its_own_counts_also_when_it_is_0(tmp_path: Path) -> None:
    simulated.write_float_model(tmp_path / "bert")
    simulated.write_texts(tmp_path / "texts")
    loaded, data = load_model(tmp_path / "bert"), FilesData(path="texts")
    for asked, seed in (({}, 7), ({"seed": 0}, 0), ({"seed": 3}, 3)):
        wanted = choose_examples(48, 10, seed, "texts").tolist()
        assert texts_of(loaded, data, tmp_path, **asked).indices == wanted


def test_a_classifier_reads_the_rows_alone_and_a_seed_says_which(tmp_path: Path) -> None:
    simulated.write_float_model(tmp_path / "bert")
    simulated.write_texts(tmp_path / "texts")
    loaded, data = load_model(tmp_path / "bert"), FilesData(path="texts")
    found = texts_of(loaded, data, tmp_path, examples=40)
    assert [len(batch["input_ids"]) for batch in found.batches] == [32, 8]
    assert not any(name.startswith("decoder") for batch in found.batches for name in batch)
    again, other = (texts_of(loaded, data, tmp_path, examples=40, seed=seed) for seed in (7, 1))
    assert (again.seed, other.seed) == (7, 1)
    assert again.indices == found.indices != other.indices
    assert len(set(found.indices)) == 40
    lengths = [int(row.sum()) for batch in found.batches for row in batch["attention_mask"]]
    assert lengths == sorted(lengths, reverse=True)
    with pytest.raises(DataError, match="calibration needs 60 examples, data"):
        texts_of(loaded, data, tmp_path, examples=60)
