"""Studies of a model that writes look at what it writes; those that judge classes refuse it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import summaries
from attar.analysis.run import analyze
from attar.data.config import FilesData
from attar.errors import ModelError
from attar.progress import Progress
from attar.quantization.run import quantize
from attar.step import StepContext

TEXTS = {"data": "texts", "examples": 8}
JUDGED = ("clipping", "leave_one_kind")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the random model `bart` and the data `texts`. Read-only by agreement."""
    folder = tmp_path_factory.mktemp("writers")
    summaries.write_untrained(folder / "bart")
    summaries.write_data(folder / "texts", train=12)
    return folder


def context_for(root: Path, folder: Path) -> StepContext:
    folder.mkdir(exist_ok=True)
    return StepContext(
        name=folder.name,
        folder=folder,
        scratch=folder / ".scratch",
        inputs={"teacher": root / "bart"},
        data={"texts": FilesData(path=str(root / "texts"), objective="text_to_text")},
        recipe_folder=root,
        progress=Progress(quiet=True),
    )


def settings(study: str, **more: Any) -> Any:
    from pydantic import TypeAdapter

    from attar.analysis.config import AnalyzeStep

    return TypeAdapter(AnalyzeStep).validate_python(
        {"model": "teacher", "study": study, "data": "texts", "calibration": {"examples": 8}} | more
    )


def test_a_study_looks_at_the_texts_that_the_quantize_step_is_calibrated_on(
    root: Path, tmp_path: Path
) -> None:
    from pydantic import TypeAdapter

    from attar.quantization.config import QuantizeStep

    step: Any = TypeAdapter(QuantizeStep).validate_python(
        {"model": "teacher", "method": "minmax", "activation_bits": 6, "calibration": TEXTS}
    )
    made = quantize(step, context_for(root, tmp_path / "int8"))
    found = analyze(settings("site_cosine"), context_for(root, tmp_path / "study"))
    assert found["tokens"] == made["calibration"]["tokens"]
    table = (tmp_path / "study" / "study.json").read_text()
    decibels = {row["site"]: row["sqnr_db"] for row in json.loads(table)["rows"]}
    assert decibels == pytest.approx({n: s["sqnr_db"] for n, s in made["sites"].items()})


def test_outliers_of_gamma_are_told_without_a_text(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.BartForConditionalGeneration.forward", None)
    found = analyze(settings("outliers", activations=False), context_for(root, tmp_path / "study"))
    assert "tokens" not in found
    assert set(found["outliers"]) == {"encoder", "decoder"}


def test_a_study_that_judges_classes_refuses_before_the_model_has_written_a_word(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_is_computed(*given: Any, **more: Any) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("transformers.BartForConditionalGeneration.forward", nothing_is_computed)
    for study in JUDGED:
        with pytest.raises(ModelError, match=rf"study {study} judges classes.*text_to_text"):
            analyze(settings(study), context_for(root, tmp_path / study))
