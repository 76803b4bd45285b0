"""Models that answer with words are calibrated reading their template and the words; what cannot
be done with them, and models that go on with a text, are refused before the model reads a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from torch import Tensor

import language_runs
import training_runs
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError
from attar.models.load import load_model
from attar.quantization import run
from attar.quantization.calibration.real_tokens import DECODER_MASK as MASK
from attar.quantization.calibration.texts import calibration_texts
from attar.quantization.config import QuantizeStep
from attar.scoring.forms import open_form

FAMILIES = {"words": "bart", "running": "gpt2"}
TASKS: dict[str, dict[str, Any]] = {
    "words": language_runs.WORDED,
    "running": {"objective": "causal_lm"},
}
DROP: dict[str, Any] = {"method": "minmax", "budget": {"max_accuracy_drop": 0.01}}
ON_DEV = {"method": "percentile", "choose_by": "validation"}
WORDS = r"names classes by words \(poor, great film\); use"
REFUSED = [
    ("words", ON_DEV, f'choose_by = "validation" is for models with a head .* {WORDS[:-5]}'),
    ("words", DROP, f"budget max_accuracy_drop .*{WORDS} average_bits"),
    ("running", DROP, "budget max_accuracy_drop .*is made for causal_lm; use average_bits"),
    ("running", ON_DEV, 'choose_by = "validation" is for models with a head .* causal_lm'),
]


def quantize(folder: Path, place: Path, **settings: Any) -> dict[str, Any]:
    """Quantize `folder`, with the films of `place`."""
    context = training_runs.context_for(place, inputs={"m": folder})
    plain = {"model": "m", "calibration": {"data": "films", "examples": 8}, **settings}
    step: Any = TypeAdapter(QuantizeStep).validate_python(plain)
    return run.quantize(step, context)


@pytest.mark.parametrize(("head", "settings", "reason"), REFUSED)
def test_what_cannot_be_done_with_a_language_head_is_refused_at_once(
    head: str,
    settings: dict[str, Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing_is_read(*given: Any, **more: Any) -> None:
        raise AssertionError("texts were read")

    monkeypatch.setattr(run, "calibration_texts", nothing_is_read)
    training_runs.write_films(tmp_path / "films")
    folder = language_runs.write_random(tmp_path / "model", FAMILIES[head], **TASKS[head])
    with pytest.raises(ModelError, match=reason):
        quantize(folder, tmp_path, **settings)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_calibration_reads_the_template_and_the_words_in_turn(family: str, tmp_path: Path) -> None:
    training_runs.write_films(tmp_path / "films")
    folder = language_runs.write_random(tmp_path / family, family, **language_runs.WORDED)
    loaded, context = load_model(folder), training_runs.context_for(tmp_path)
    data = load_data(context.data["films"], tmp_path, name="films", seed=0)
    encoder = TextEncoder.from_folder(folder, 32, ("input_ids", "attention_mask"))

    def tokens(text: str) -> list[int]:
        return encoder.encode([(text,)]).ids.tolist()

    made = calibration_texts(loaded, encoder, data, context, examples=4, batch_size=4, seed=0)
    (batch,) = made.batches
    chosen = data.split("train").rows(np.array(made.indices)).texts
    read = [ids[mask > 0].tolist() for ids, mask in rows_of(batch, "input_ids", "attention_mask")]
    assert sorted(read) == sorted(tokens(f"film: {text}") for (text,) in chosen)
    start, words = loaded.model.config.decoder_start_token_id, ("poor", "great film")
    written = [ids[mask > 0].tolist() for ids, mask in rows_of(batch, "decoder_input_ids", MASK)]
    assert written == [[start, *tokens(words[row % 2])[:-1]] for row in range(4)]


@pytest.mark.parametrize("method", ["outlier_suppression", "auto", "lsq_plus"])
def test_a_model_that_names_classes_goes_to_few_bits_and_still_answers(
    method: str, tmp_path: Path
) -> None:
    training_runs.write_films(tmp_path / "films")
    folder = language_runs.write_random(tmp_path / "bart", "bart", **language_runs.WORDED)
    quantize(folder, tmp_path, method=method)
    whole, few = open_form(folder), open_form(tmp_path / "out" / "model")
    ids = np.arange(3, 15).reshape(2, 6)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    expected, found = whole.logits(batch), few.logits(batch)
    assert few.form == "simulated" and found.shape == (2, 2)
    assert 0 < np.abs(found - expected).max() < 0.5


def rows_of(batch: Mapping[str, Tensor], ids: str, mask: str) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(batch[ids], batch[mask], strict=True)
