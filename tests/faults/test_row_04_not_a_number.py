"""Row 4: NaN or infinity in loss or gradient stops the run before the update."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from attar.data.config import FilesData
from attar.errors import NonFiniteError
from attar.models.load import load_model
from training_runs import prepare, run_training

SCORES = FilesData(path="films", text="text", objective="regression")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return prepare(tmp_path)


def write_scores(place: Path, bad_row: int, value: float) -> None:
    """Scores of about 1, except one."""
    for split in ("train", "validation"):
        rows = [{"text": f"a good film {i}", "label": 1.0 + i / 100} for i in range(24)]
        if split == "train":
            rows[bad_row]["label"] = value
        text = "\n".join(json.dumps(row) for row in rows)
        (place / "films" / f"{split}.jsonl").write_text(text + "\n")
    tiny.write_tiny_bert(place / "bert", num_labels=1)


def edit_weights(place: Path, values: dict[str, float]) -> None:
    file = place / "bert" / "model.safetensors"
    weights = load_file(file)
    for name, value in values.items():
        weights[name].fill_(value)
    save_file(weights, file, metadata={"format": "pt"})


def last_good(place: Path) -> dict[str, torch.Tensor]:
    newest = sorted((place / "scratch").glob("checkpoint-*"))[-1]
    return load_file(newest / "weights.safetensors")


def test_an_infinite_loss_names_the_step_and_exactly_the_row(place: Path) -> None:
    write_scores(place, bad_row=17, value=1e30)  # its square is beyond float32
    with pytest.raises(
        NonFiniteError, match=r"step \d+: .* 1 of 8 .* train rows 17 \(inf\)"
    ) as stop:
        run_training(place, data_config=SCORES)
    assert stop.value.exit_code == 5
    assert not (place / "out" / "model").exists()


def test_an_infinite_gradient_under_a_finite_loss_names_the_tensors_and_the_rows(
    place: Path,
) -> None:
    write_scores(place, bad_row=17, value=1.0)
    edit_weights(place, {"bert.pooler.dense.weight": 0.0, "bert.pooler.dense.bias": 0.0})
    edit_weights(place, {"classifier.weight": 3e38})  # times a pooled output of 0: the loss is fine
    with pytest.raises(NonFiniteError, match=r"gradient's norm .*pooler\.dense\.bias.* rows \d+, "):
        run_training(place, data_config=SCORES)
    assert not list((place / "scratch").glob("checkpoint-*"))


def test_the_last_good_state_is_kept_and_is_the_one_before_the_step(tmp_path: Path) -> None:
    steps: list[int] = []
    for seed in range(4):  # the bad row comes at another step in each
        place = prepare(tmp_path / str(seed))
        write_scores(place, bad_row=17, value=1e30)
        with pytest.raises(NonFiniteError) as stop:
            run_training(place, data_config=SCORES, seed=seed)
        steps.append(int(re.findall(r"^step (\d+)", str(stop.value))[0]))
        kept = [path.name for path in (place / "scratch").glob("checkpoint-*")]
        if steps[-1] > 0:
            assert kept == [f"checkpoint-{steps[-1]:08d}"]
            assert all(bool(tensor.isfinite().all()) for tensor in last_good(place).values())
        else:
            assert kept == []
    assert max(steps) > 0, "the test needs a good step before the bad one"


def test_a_run_that_diverges_stops_and_running_again_stops_at_the_same_step(place: Path) -> None:
    settings = {"learning_rate": 1e30, "warmup_ratio": 0.0, "max_grad_norm": None}
    messages: list[str] = []
    for _ in range(2):
        with pytest.raises(NonFiniteError, match="lower learning_rate") as stop:
            run_training(place, **settings)
        messages.append(str(stop.value).split(";")[0])
    assert messages[0] == messages[1]


def test_a_nan_in_the_weights_is_found_before_any_update(place: Path) -> None:
    edit_weights(place, {"classifier.bias": float("nan")})
    before = load_model(place / "bert").model.get_parameter("classifier.weight").clone()
    with pytest.raises(NonFiniteError, match=r"step 0: .* 8 of 8 .* no step was finished"):
        run_training(place)
    assert not list((place / "scratch").glob("checkpoint-*"))
    assert torch.equal(load_model(place / "bert").model.get_parameter("classifier.weight"), before)


def test_weights_broken_by_the_last_update_do_not_become_a_model(place: Path) -> None:
    settings = {"learning_rate": 1e38, "warmup_ratio": 0.0, "max_steps": 1, "evaluations": 1}
    with pytest.raises(NonFiniteError, match=r"after step 1: .* 24 of 24 rows .* earlier check"):
        run_training(place, **settings)
    assert not (place / "out" / "model").exists()
