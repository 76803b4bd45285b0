"""Studies watch a model that names classes by words as it reads when it is used; those that cannot
judge a language head refuse it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers.models.bart.modeling_bart import BartDecoder, BartEncoder

import language_runs
import training_runs
from attar.analysis.config import AnalyzeStep
from attar.analysis.run import analyze
from attar.data.prompts import prompts
from attar.errors import ModelError
from attar.models.load import load_model
from attar.quantization.calibration.decoder_texts import with_label_words
from attar.quantization.calibration.real_tokens import DECODER_MASK
from attar.scoring.label_words import LabelWords

WATCHING = ("outliers", "outlier_tokens", "site_cosine", "gamma_cosine", "histograms")
JUDGING = ("clipping", "leave_one_kind")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models `bart` (words) and `gpt2` (running text), and films. Read-only by agreement."""
    folder = tmp_path_factory.mktemp("heads")
    training_runs.write_films(folder / "films")
    language_runs.write_random(folder / "bart", "bart", **language_runs.WORDED)
    language_runs.write_random(folder / "gpt2", "gpt2", objective="causal_lm")
    return folder


def run_study(place: Path, out: Path, study: str, model: str, **more: Any) -> dict[str, Any]:
    context = training_runs.context_for(
        out, recipe_folder=place, inputs={name: place / name for name in ("bart", "gpt2")}
    )
    texts = {"data": "films", "calibration": {"examples": 8, "batch_size": 4}}
    plain = {"model": model, "study": study, **texts, **more}
    step: Any = TypeAdapter(AnalyzeStep).validate_python(plain)
    return analyze(step, context)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_is_computed(*given: Any, **more: Any) -> None:
        raise AssertionError("the model was run")

    for name in ("BartForConditionalGeneration", "GPT2LMHeadModel"):
        monkeypatch.setattr(f"transformers.{name}.forward", nothing_is_computed)


@pytest.mark.parametrize("study", WATCHING)
def test_classes_named_by_words_are_watched_in_the_template_with_the_words(
    study: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[type, set[tuple[int, ...]]] = {BartEncoder: set(), BartDecoder: set()}

    def watch(side: type) -> None:
        forward = side.forward

        def seen(self: Any, *given: Any, **inputs: Any) -> Any:
            read[side].update(tuple(row) for row in inputs["input_ids"].tolist())
            return forward(self, *given, **inputs)

        monkeypatch.setattr(side, "forward", seen)

    watch(BartEncoder)
    watch(BartDecoder)
    run_study(place, tmp_path, study, "bart")
    loaded = load_model(place / "bart")
    named = LabelWords.of_task(loaded.model, loaded.folder, loaded.task)
    assert named is not None
    (batch,) = with_label_words(named, loaded.model, [{"input_ids": torch.zeros(2, 1)}])
    assert read[BartDecoder] == set(map(tuple, batch["decoder_input_ids"].tolist()))
    before = prompts(place / "bart", ["film:"], 8).ids.tolist()
    assert read[BartEncoder]
    assert all(list(row[: len(before)]) == before for row in read[BartEncoder])


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1, 2], [4, 1]])
def test_a_decoder_reads_all_words_in_turn_and_no_padding_counts(
    sizes: list[int], place: Path
) -> None:
    loaded = load_model(place / "bart")
    named = LabelWords.of(loaded.model, loaded.folder, "{0}", ("poor", "great film", "great"))
    batches = with_label_words(
        named, loaded.model, [{"input_ids": torch.zeros(size, 1)} for size in sizes]
    )
    rows = [
        ids[mask > 0].tolist()
        for batch in batches
        for ids, mask in zip(batch["decoder_input_ids"], batch[DECODER_MASK], strict=True)
    ]
    start = loaded.model.config.decoder_start_token_id
    words = named.candidates.ids
    assert rows == [[start, *words[text % 3][:-1]] for text in range(5)]


@pytest.mark.parametrize("study", JUDGING)
@pytest.mark.parametrize(
    ("model", "reason"), [("bart", "names classes by words"), ("gpt2", "is made for causal_lm")]
)
def test_what_judges_a_head_refuses_a_language_head(
    study: str, model: str, reason: str, place: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    forbid_reading(monkeypatch)
    match = rf"study {study} judges .*'{model}' {reason}.*study disabling"
    with pytest.raises(ModelError, match=match):
        run_study(place, tmp_path, study, model)


def test_what_reads_no_text_or_reads_it_in_the_template_takes_words(
    place: Path, tmp_path: Path
) -> None:
    found = run_study(place, tmp_path / "weights", "outliers", "bart", activations=False)
    assert "tokens" not in found
    few = {"num_rows": 8, "bootstrap": 100, "null_seeds": 1, "count": 1}
    settings = {"criterion": "activation_std", "replacement": ["mean"], **few}
    run_study(place, tmp_path / "judged", "disabling", "bart", **settings)


def test_a_causal_language_model_is_watched_reading_plain_texts(
    place: Path, tmp_path: Path
) -> None:
    assert run_study(place, tmp_path, "outliers", "gpt2")["tokens"] > 8
