"""A sample's diversity with its jackknife, by embeddings that batches and padding do not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import simulated
from attar.data.tokenize import TextEncoder
from attar.models.load import load_model
from attar.numerics.vendi import second_moments, vendi_score
from attar.progress import Progress
from attar.quantization.calibration.calibrate import to_tensors
from attar.scoring.config import Diversity
from attar.scoring.diversity import NORMAL_95, scored_with_interval, text_embeddings
from attar.step import StepContext


def test_the_interval_is_the_jackknife_that_leaves_out_each_tenth() -> None:
    sample = np.random.default_rng(0).normal(size=(43, 6)) + 0.3
    rest = (np.delete(sample, slice(group, None, 10), axis=0) for group in range(10))
    without = np.array([vendi_score(second_moments(each)) for each in rest])
    half = NORMAL_95 * np.sqrt(0.9 * np.square(without - without.mean()).sum())
    found, score = scored_with_interval(sample), vendi_score(second_moments(sample))
    assert found["ci95"] == pytest.approx([score - half, score + half], rel=1e-9)
    assert (found["vendi"], found["chunks"]) == (pytest.approx(score, rel=1e-9), 43)
    assert scored_with_interval(sample[:9])["ci95"] is None


def test_the_interval_says_how_far_other_samples_lie() -> None:
    draw = np.random.default_rng(0)
    scale = 1 / np.arange(1, 33)
    samples = [draw.normal(size=(400, 32)) * scale + 0.3 for _ in range(60)]
    found = [scored_with_interval(sample) for sample in samples]
    spread = np.std([each["vendi"] for each in found])
    widths = [(each["ci95"][1] - each["ci95"][0]) / 2 / NORMAL_95 for each in found]
    assert 0.7 < np.mean(widths) / spread < 1.4


def test_an_embedding_is_the_mean_of_a_texts_own_last_states(tmp_path: Path) -> None:
    """Of more texts than are read at a time, of all lengths, some of them cut."""
    simulated.write_float_model(tmp_path / "model")
    words = "the good film is not a bad movie to read".split()
    texts = [" ".join((words * 2)[at % 7 : at % 7 + 1 + at % 10]) for at in range(40)]
    context = StepContext("s", tmp_path, tmp_path, {}, {}, tmp_path, Progress(quiet=True))
    found = text_embeddings(Diversity(model="model", chunks=50, max_length=8), context, texts)
    loaded = load_model(tmp_path / "model")
    assert loaded.task is not None
    encoder = TextEncoder.from_folder(loaded.folder, 8, loaded.task.input_names)
    with torch.inference_mode():
        alone = [
            loaded.model.base_model(**to_tensors(encoder.encode([(text,)]).batch([0])))
            .last_hidden_state[0]
            .mean(0)
            for text in texts
        ]
    np.testing.assert_allclose(found, torch.stack(alone), rtol=1e-4, atol=1e-5)
