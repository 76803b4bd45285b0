"""Language models' answers are one a labelled token, of one stack or of both."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import attar.numerics.logits
import tiny
from caching import run_cache
from language_runs import TEXT, model_config, write_random, write_running_text
from tensors_made import Largest
from training_runs import read_history, run_training, write_films

ROUNDING = 1e-4
LOSSES = [{"kind": "forward_kl"}, {"kind": "eofd"}]


def taught(place: Path, teacher: str, **settings: Any) -> list[float]:
    for name in ("out", "scratch"):
        shutil.rmtree(place / name, ignore_errors=True)
    run_training(
        place,
        model={"from": "made/model", "keep_blocks": [0]},
        teacher=teacher,
        inputs={"cached": place / "cached"},
        losses=LOSSES,
        max_steps=3,
        micro_batch_size=3,
        evaluations=1,
        **settings,
    )
    return [line["loss"] for line in read_history(place) if "loss" in line]


@pytest.fixture
def running(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    write_running_text(tmp_path / "text")
    gpt2 = model_config(tmp_path / "gpt2", "gpt2")
    config = TEXT.model_copy(update={"path": str(tmp_path / "text")})
    run_training(tmp_path, model=gpt2, data_config=config, max_steps=1)
    (tmp_path / "out").rename(tmp_path / "made")
    return tmp_path, {"data_config": config}


@pytest.fixture
def worded(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    write_films(tmp_path / "films")
    t5 = model_config(tmp_path / "t5", "t5")
    settings = {"objective": "text_to_text", "template": "film: {0}"}
    settings = {**settings, "label_words": ["poor", "great film"]}
    run_training(tmp_path, model=t5, max_steps=1, **settings)
    (tmp_path / "out").rename(tmp_path / "made")
    return tmp_path, settings


@pytest.mark.parametrize("case", ["running", "worded"])
def test_a_student_of_the_cache_learns_what_the_live_teacher_s_does(
    case: str, request: pytest.FixtureRequest
) -> None:
    place, settings = request.getfixturevalue(case)
    wanted = {"hidden_states": "uniform:1", "distribution": "dense"}
    run_cache(place, teacher="made/model", **wanted, **settings)
    live = taught(place, "made/model", **settings)
    assert taught(place, "cached", **settings) == pytest.approx(live, rel=ROUNDING)


def test_only_labelled_tokens_have_logits(running: tuple[Path, dict[str, Any]]) -> None:
    place, settings = running
    wanted = {"hidden_states": [0], "distribution": "dense"}
    metrics = run_cache(place, teacher="made/model", **wanted, **settings)
    tokens, rows = metrics["tokens"]["decoder"], metrics["rows"]
    assert metrics["predictions"] == tokens - rows
    logits = load_file(place / "cached" / "logits-00000.safetensors")["values"]
    assert logits.shape[0] == tokens - rows


def test_a_cache_is_written_without_all_logits_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, block = 3000, 8
    monkeypatch.setattr(attar.numerics.logits, "BLOCK_BYTES", block * 4 * vocabulary)
    write_running_text(tmp_path / "text")
    folder = write_random(tmp_path / "made" / "model", "gpt2", objective="causal_lm")
    wide = tiny.tiny_language_model("gpt2", vocab_size=vocabulary)
    wide.save_pretrained(folder)
    config = TEXT.model_copy(update={"path": str(tmp_path / "text")})
    with Largest() as seen:
        settings = {"batch_size": 8, "distribution": "dense"}
        run_cache(tmp_path, teacher="made/model", data_config=config, **settings)
    stored = load_file(tmp_path / "cached" / "logits-00000.safetensors")["values"]
    assert seen.num_bytes <= 4 * vocabulary * 32, "the head's weight"
    assert stored.shape[1] == vocabulary and stored.shape[0] > 8 * block


def test_each_stack_keeps_the_states_it_is_asked_for(worded: tuple[Path, dict[str, Any]]) -> None:
    place, settings = worded
    kept = {"decoder": [1, 2]}
    metrics = run_cache(place, teacher="made/model", hidden_states=kept, **settings)
    assert metrics["hidden_states"] == {"encoder": [], "decoder": [1, 2]}
    assert metrics["tokens"]["encoder"] != metrics["tokens"]["decoder"]
    files = sorted(file.name for file in (place / "cached").glob("hidden-*"))
    assert files == [f"hidden-decoder-00{state}-00000.safetensors" for state in (1, 2)]
