"""A cached teacher teaches what a live one teaches, or says why it does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import caching
import tiny
from attar.artifacts import Result, seal
from attar.data.config import FilesData
from attar.errors import (
    ArtifactError,
    DataError,
    ModelError,
    NonFiniteError,
    ResourceError,
    StoppedError,
)
from attar.losses.targets import Outputs
from attar.models.sources.references import model_fingerprint
from attar.training.cache_config import CacheStep
from attar.training.teaching.live import LiveTeacher
from caching import LOSSES, contents, run_cache
from training_runs import read_history, read_weights, run_training

ROUNDING = 1e-5
"""Of sums in float32 that another padding takes in another order, after a few steps."""

SHORT: dict[str, Any] = {"max_steps": 6, "evaluations": 1, "losses": LOSSES}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return caching.prepare(tmp_path)


def cache_of(place: Path) -> dict[str, Any]:
    """The cache as the earlier step it is in a recipe."""
    return {"inputs": {"cached": place / "cached"}}


def learn(place: Path, teacher: str, **settings: Any) -> tuple[list[dict[str, Any]], Any]:
    """History and weights of a student; what an earlier one left is removed."""
    for name in ("out", "scratch"):
        shutil.rmtree(place / name, ignore_errors=True)
    run_training(place, teacher=teacher, **{**SHORT, **cache_of(place), **settings})
    return read_history(place), read_weights(place)


def row_by_row(ask: Any, teacher: LiveTeacher, inputs: Mapping[str, Tensor], rows: Any) -> Outputs:
    """A live teacher whose answer about a row does not depend on the rows beside it."""
    found = []
    for b, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        found.append(ask(teacher, {n: x[b : b + 1, :length] for n, x in inputs.items()}, rows))
    width = inputs["input_ids"].shape[1]

    def padded(state: Tensor) -> Tensor:
        return torch.nn.functional.pad(state, (0, 0, 0, width - state.shape[1]))

    states = [[padded(s) for s in one.hidden.get("encoder", ())] for one in found]
    hidden = {"encoder": tuple(map(torch.cat, zip(*states, strict=True)))} if states[0] else {}
    return Outputs(torch.cat([one.logits for one in found]), hidden=hidden)


@pytest.fixture
def answers_depend_on_the_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = LiveTeacher.__call__

    def alone(teacher: LiveTeacher, inputs: Mapping[str, Tensor], rows: Any = None) -> Outputs:
        return row_by_row(ask, teacher, inputs, rows)

    monkeypatch.setattr(LiveTeacher, "__call__", alone)


@pytest.mark.usefixtures("answers_depend_on_the_row_alone")
def test_a_student_of_the_cache_is_the_live_teacher_s_bit_for_bit(place: Path) -> None:
    """In float32, where a teacher's answer does not depend on the padding beside it."""
    run_cache(place)
    history, weights = learn(place, "teacher", micro_batch_size=3)
    again, ours = learn(place, "cached", micro_batch_size=3)
    assert again == history
    assert all(torch.equal(ours[name], weights[name]) for name in weights)


@pytest.mark.parametrize(("dtype", "allowed"), [("fp32", ROUNDING), ("bf16", 2**-8)])
def test_a_student_of_the_cache_differs_by_rounding_only(
    place: Path, dtype: str, allowed: float
) -> None:
    run_cache(place, dtype=dtype)
    losses = [line["loss"] for line in learn(place, "teacher")[0] if "loss" in line]
    ours = [line["loss"] for line in learn(place, "cached")[0] if "loss" in line]
    assert ours == pytest.approx(losses, rel=allowed)
    if dtype == "bf16":
        assert ours != losses


def test_logits_alone_need_no_hidden_states(place: Path) -> None:
    metrics = run_cache(place, hidden_states=[])
    assert metrics["hidden_states"] == {"encoder": []}
    alone = [{"kind": "forward_kl"}]
    history, _ = learn(place, "teacher", losses=alone)
    again, _ = learn(place, "cached", losses=alone)
    losses, ours = ([line["loss"] for line in h if "loss" in line] for h in (history, again))
    assert ours == pytest.approx(losses, rel=ROUNDING)


def test_a_stopped_student_of_the_cache_goes_on_as_if_it_had_not_been(place: Path) -> None:
    run_cache(place)
    history, weights = learn(place, "cached")
    polls = iter(range(1000))
    with pytest.raises(StoppedError):
        learn(place, "cached", should_stop=lambda: next(polls) == 3)
    run_training(place, teacher="cached", **SHORT, **cache_of(place))
    assert read_history(place) == history
    ours = read_weights(place)
    assert all(torch.equal(ours[name], weights[name]) for name in weights)


def test_the_files_hold_every_real_token_once_in_the_teacher_s_words(place: Path) -> None:
    metrics = run_cache(place)
    rows = load_file(place / "cached" / "rows-00000.safetensors")
    counts, starts = rows["tokens.encoder.counts"], rows["tokens.encoder.starts"]
    taken = sorted(
        place for s, n in zip(starts, counts, strict=True) for place in range(int(s), int(s + n))
    )
    assert taken == list(range(metrics["tokens"]["encoder"]))
    first = load_file(place / "cached" / "hidden-encoder-000-00000.safetensors")["values"]
    assert first.shape == (len(taken), 32) and first.dtype == torch.float32
    assert load_file(place / "cached" / "logits-00000.safetensors")["values"].shape == (48, 2)


@pytest.mark.parametrize(
    ("precision", "advice"),
    [("bf16", 'or set precision = "fp32"'), ("fp32", "or use another teacher")],
)
def test_answers_that_are_nan_are_refused_with_a_next_step_that_can_help(
    precision: str, advice: str, place: Path
) -> None:
    weights = load_file(place / "teacher" / "model.safetensors")
    weights["classifier.bias"][0] = torch.nan
    save_file(weights, place / "teacher" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match="the teacher's logits of 8 rows .*" + advice):
        run_cache(place, precision=precision)


def test_the_teacher_in_the_cache_costs_no_bytes(place: Path) -> None:
    run_cache(place)
    original, linked = (
        (place / folder / "model.safetensors").stat() for folder in ("teacher", "cached/model")
    )
    assert original.st_ino == linked.st_ino


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_a_stopped_cache_goes_on_where_it_left_off(place: Path, tmp_path: Path, batch: int) -> None:
    run_cache(place)
    whole = contents(place / "cached")
    stopped = caching.prepare(tmp_path / "stopped")
    polls = iter(range(1000))
    with pytest.raises(StoppedError, match=rf"after batch {batch} of 6.*attar resume"):
        run_cache(stopped, should_stop=lambda: next(polls) == batch)
    for file in (stopped / "scratch-cached").glob("*.safetensors"):
        with file.open("ab") as stream:
            stream.write(b"what was written after the last save")
    asked = []
    run_cache(stopped, should_stop=lambda: bool(asked.append(1)))
    assert len(asked) == 6 - batch
    assert contents(stopped / "cached") == whole
    shutil.rmtree(stopped / "cached")  # killed when all was written, and before it was published
    run_cache(stopped, should_stop=lambda: True)
    assert contents(stopped / "cached") == whole


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_cache_goes_on_from_nothing_where_what_was_written_is_damaged(
    place: Path, damage: str
) -> None:
    run_cache(place)
    whole = contents(place / "cached")
    shutil.rmtree(place / "cached")
    file = place / "scratch-cached" / "hidden-encoder-001-00000.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    asked = []
    run_cache(place, should_stop=lambda: bool(asked.append(1)))
    assert len(asked) == 6
    assert contents(place / "cached") == whole


def test_another_seed_with_other_rows_is_refused_with_what_to_set(place: Path) -> None:
    few = FilesData(path="films", text="text", train_rows=20)
    run_cache(place, data_config=few)
    with pytest.raises(DataError) as refused:
        run_training(
            place, teacher="cached", losses=LOSSES, **cache_of(place), data_config=few, seed=1
        )
    assert "was made of 20 rows" in str(refused.value)
    assert "of the 20 rows that this step reads are not among them" in str(refused.value)
    assert "set data.films.rows_seed = 0" in str(refused.value)
    fixed = few.model_copy(update={"rows_seed": 0})
    run_training(
        place,
        teacher="cached",
        losses=LOSSES,
        **cache_of(place),
        data_config=fixed,
        seed=1,
        max_steps=1,
    )


def test_changed_rows_are_refused_with_their_numbers(place: Path) -> None:
    run_cache(place)
    file = place / "films" / "train.jsonl"
    lines = file.read_text().splitlines()
    lines[7] = json.dumps({**json.loads(lines[7]), "text": "not a good movie 7"})
    file.write_text("\n".join(lines) + "\n")
    said = r"made of 48 rows.* 1 of the 48 rows that this step reads are not among them \(rows 7\)"
    with pytest.raises(DataError, match=said):
        learn(place, "cached")


def test_rows_are_found_by_what_they_are_whatever_their_order(place: Path) -> None:
    run_cache(place)
    file = place / "films" / "train.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[40:10:-1]) + "\n")
    live, cached = (learn(place, teacher)[0] for teacher in ("teacher", "cached"))
    losses, ours = ([line["loss"] for line in h if "loss" in line] for h in (live, cached))
    assert ours == pytest.approx(losses, rel=ROUNDING)


def test_another_cut_is_refused_with_both_lengths(place: Path) -> None:
    run_cache(place)
    with pytest.raises(DataError, match="max_length = 24, this step at 16"):
        learn(place, "cached", max_length=16)


def test_other_weights_in_the_cache_are_refused(place: Path) -> None:
    run_cache(place)
    other = tiny.write_tiny_bert(place / "other", seed=2)
    weights = place / "cached" / "model" / "model.safetensors"
    weights.unlink()
    shutil.copyfile(other / "model.safetensors", weights)
    with pytest.raises(ArtifactError, match="is not the teacher of the cache"):
        learn(place, "cached")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("logits-00000", "the logits"),
        ("hidden-encoder-001-00000", "hidden state 1 of the encoder"),
    ],
)
def test_answers_that_are_not_the_teacher_s_are_refused_with_row_state_and_size(
    place: Path, name: str, said: str
) -> None:
    run_cache(place)
    file = place / "cached" / f"{name}.safetensors"
    values = load_file(file)["values"].flip(0).contiguous()
    file.unlink()
    save_file({"values": values}, file)
    with pytest.raises(ArtifactError, match=rf"train row \d+, {said}: .* by [\d.]+ of its length"):
        learn(place, "cached", losses=[*LOSSES, {"kind": "hidden_mse", "layer_map": {1: 1}}])


def never(*_: object, **__: object) -> None:
    raise AssertionError("a forward pass was made")


@pytest.mark.parametrize(
    ("kept", "losses", "said"),
    [
        ({"hidden_states": [0, 2]}, LOSSES, r"need hidden state 1 of the encoder, .* has logits "
         r"and hidden states \[0, 2\].*hidden_states = \[0, 1, 2\] and logits = true"),
        ({"logits": False}, LOSSES, r"need logits, .* has hidden states \[0, 1, 2\]"),
        ({}, [{"kind": "eofd", "count_padding": True}], "eofd counts padding"),
        ({}, [{"kind": "attention_mse"}], "attention scores, which the cache .* square"),
        ({}, [{"kind": "relation_kl"}], "relations, which the cache .* does not store"),
    ],
)  # fmt: skip
def test_what_the_cache_does_not_keep_is_refused_before_any_compute(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: dict[str, Any],
    losses: list[dict[str, Any]],
    said: str,
) -> None:
    run_cache(place, **kept)
    monkeypatch.setattr(torch.nn.Embedding, "forward", never)
    with pytest.raises(ModelError, match=said):
        learn(place, "cached", losses=losses)


def test_states_that_the_teacher_has_not_are_refused(place: Path) -> None:
    with pytest.raises(ModelError, match=r"hidden_states has 3, .* 0 \(embedding output\) to 2"):
        run_cache(place, hidden_states=[0, 3])
    with pytest.raises(ModelError, match="names the decoder, the teacher has encoder"):
        run_cache(place, hidden_states={"decoder": [0]})


@pytest.mark.parametrize("name", ["attention_scores", "relations"])
def test_scores_and_relations_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=r"square of the text length.*name the teacher itself"):
        CacheStep(teacher="t", data="d", **{name: True})  # type: ignore[arg-type]


def test_a_disk_too_small_is_refused_with_both_numbers_before_any_compute(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Embedding, "forward", never)
    usage = shutil.disk_usage(place)._replace(free=2**16)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"needs 0\.2 MiB .*logits 0\.0.* 0\.1 MiB are free"):
        run_cache(place)
    assert not list((place / "scratch-cached").iterdir())


def test_a_cache_of_another_run_is_verified_byte_by_byte(place: Path) -> None:
    run_cache(place)
    seal(place / "cached", Result(step="cached", run="cache", key="k"))
    before = model_fingerprint("cached", place)
    run_training(place, teacher="cached", losses=LOSSES, max_steps=1)
    file = place / "cached" / "hidden-encoder-001-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"hidden-encoder-001.* was changed"):
        run_training(place, teacher="cached", losses=LOSSES, max_steps=1)
    shutil.rmtree(place / "cached")
    run_cache(place, hidden_states=[0])
    assert model_fingerprint("cached", place) != before
