"""The training step from its settings to its files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import RobertaConfig, RobertaForSequenceClassification

import tiny
from attar.data.config import FilesData
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError, StoppedError, UsageError
from attar.models.config import ChangedModel
from attar.models.load import build_model, check_length, input_names_of, load_model
from attar.progress import Progress
from attar.tasks.task import Task
from attar.training.config import TrainStep
from attar.training.job import evenly_spread
from attar.training.run import train
from training_runs import SETTINGS, context_for, prepare, read_history, read_weights, run_training

FLOAT32_STEPS = 1e-5
"""Relative: some steps in float32, whose epsilon is 1.2e-7, summed in another order."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return prepare(tmp_path)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_a_model_learns_and_becomes_a_folder_with_its_task(place: Path) -> None:
    metrics = run_training(place, max_steps=60, learning_rate=5e-3, keep="last")
    history = read_history(place)
    losses = [line["loss"] for line in history if "loss" in line]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert len(losses) == metrics["steps"] == 60
    assert metrics["num_params"] == sum(t.numel() for t in read_weights(place).values())
    assert [line["step"] for line in history if "validation" in line] == [20, 40, 60]
    task = Task.read(place / "out" / "model")
    assert task.label_names == ("bad", "good") and task.max_length == 24
    assert metrics["validation"] == history[-1]["validation"]
    json.dumps(metrics, allow_nan=False)


def test_the_best_state_is_kept_not_the_last(place: Path, tmp_path: Path) -> None:
    steady = {"schedule": "constant", "warmup_ratio": 0, "learning_rate": 0.02}
    metrics = run_training(place, max_steps=9, evaluations=9, **steady)
    values = [line["validation"] for line in read_history(place) if "validation" in line]
    best = max(range(9), key=lambda i: (values[i]["accuracy"], -values[i]["loss"])) + 1
    assert best < 9, "the test needs a best state before the last one"
    assert metrics["best_step"] == metrics["kept_step"] == best
    assert metrics["validation"] == values[best - 1]
    shorter = prepare(tmp_path / "shorter")
    run_training(shorter, max_steps=best, evaluations=1, keep="last", **steady)
    assert same(read_weights(place), read_weights(shorter))


@pytest.mark.parametrize("poll", [0, 5, 9])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    place: Path, tmp_path: Path, poll: int
) -> None:  # polls come before each step and after each batch of an evaluation
    run_training(place)
    stopped = prepare(tmp_path / "stopped")
    polls = iter(range(1000))
    with pytest.raises(StoppedError, match=r"of 12.*attar resume"):
        run_training(stopped, should_stop=lambda: next(polls) == poll)
    assert list((stopped / "scratch").glob("checkpoint-*"))
    run_training(stopped)
    assert read_history(stopped) == read_history(place)
    assert same(read_weights(stopped), read_weights(place))


def test_equal_runs_write_equal_files(place: Path, tmp_path: Path) -> None:
    again = prepare(tmp_path / "again")
    for folder in (place, again):
        run_training(folder)
    for file in ("history.jsonl", "model/model.safetensors"):
        assert (place / "out" / file).read_bytes() == (again / "out" / file).read_bytes()


def test_training_time_is_the_sum_over_sessions(place: Path) -> None:
    polls = iter(range(1000))
    with pytest.raises(StoppedError):
        run_training(place, should_stop=lambda: next(polls) == 5)
    (state,) = (place / "scratch").glob("checkpoint-*/state.json")
    content = json.loads(state.read_text())
    assert content["place"]["seconds"] > 0
    content["place"]["seconds"] += 1000
    state.write_text(json.dumps(content))
    metrics = run_training(place)
    assert 1000 < metrics["train_seconds"] < 1100
    assert metrics["examples_per_s"] < 12 * 8 / 1000 + 0.01


def test_micro_batches_learn_what_the_whole_batch_learns(place: Path, tmp_path: Path) -> None:
    config = json.loads((place / "bert" / "config.json").read_text())
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        config[name] = 0.0  # dropout masks do depend on the shape of a micro-batch
    for folder in (place, prepare(tmp_path / "cut")):
        (folder / "bert" / "config.json").write_text(json.dumps(config))
    run_training(place, learning_rate=1e-3)
    run_training(tmp_path / "cut", learning_rate=1e-3, micro_batch_size=3)
    for whole, cut in zip(read_history(place), read_history(tmp_path / "cut"), strict=True):
        if "loss" in whole:
            assert cut["loss"] == pytest.approx(whole["loss"], rel=FLOAT32_STEPS)
            assert cut["grad_norm"] == pytest.approx(whole["grad_norm"], rel=FLOAT32_STEPS)


def test_a_student_learns_from_its_teacher_and_the_teacher_stays_as_it_was(place: Path) -> None:
    run_training(place, max_steps=30)
    teacher = (place / "out" / "model" / "model.safetensors").read_bytes()
    student = prepare(place / "student")
    metrics = run_training(
        student,
        model={"from": "teacher", "keep_blocks": [1]},
        teacher="teacher",
        inputs={"teacher": place / "out"},
        max_steps=30,
        losses=[{"kind": "forward_kl", "temperature": 2.0}, {"kind": "hidden_mse"}],
    )
    first, *_, last = [line for line in read_history(student) if "losses" in line]
    assert first["losses"].keys() == {"forward_kl", "hidden_mse"}
    assert last["loss"] < first["loss"]
    assert (place / "out" / "model" / "model.safetensors").read_bytes() == teacher
    assert metrics["num_params"] < sum(t.numel() for t in read_weights(place).values())


def test_a_copy_of_the_teacher_without_dropout_has_nothing_to_learn(place: Path) -> None:
    config = json.loads((place / "bert" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (place / "bert" / "config.json").write_text(json.dumps(config))
    losses = [{"kind": "forward_kl"}, {"kind": "hidden_mse"}]
    run_training(place, teacher="bert", losses=losses, max_steps=2)
    for line in read_history(place):  # the learning rate is 0 in the first step of a warm-up
        if "loss" in line:
            assert line["loss"] <= 1e-7, line  # float32 rounding of a log-softmax
            assert line["grad_norm"] <= 1e-6, line


def test_the_hidden_loss_is_the_mean_over_the_real_tokens_of_a_batch(place: Path) -> None:
    config = json.loads((place / "bert" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (place / "bert" / "config.json").write_text(json.dumps(config))
    tiny.write_tiny_bert(place / "teacher", seed=1)
    losses = [{"kind": "hidden_mse", "layer_map": "last"}]
    run_training(place, teacher="teacher", losses=losses, batch_size=48, max_steps=1)

    models = [load_model(place / name).model for name in ("bert", "teacher")]
    encoder = TextEncoder.from_folder(place / "bert", 24, input_names_of(models[0].config))
    rows = (place / "films" / "train.jsonl").read_text().splitlines()
    encoded = encoder.encode([(json.loads(row)["text"],) for row in rows])
    squares: list[torch.Tensor] = []
    for row in range(len(encoded)):  # one at a time: no padding anywhere
        inputs = {name: torch.from_numpy(array) for name, array in encoded.batch([row]).items()}
        with torch.no_grad():
            last = [m(**inputs, output_hidden_states=True).hidden_states[-1] for m in models]
        squares.append((last[0] - last[1])[0].square().mean(-1))
    expected = torch.cat(squares).mean().item()
    assert read_history(place)[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_bf16_autocast_keeps_weights_in_float32_and_says_so(place: Path) -> None:
    metrics = run_training(place, max_steps=2, precision="bf16")
    assert metrics["precision"] == "bf16"
    assert {tensor.dtype for tensor in read_weights(place).values()} == {torch.float32}


def test_a_score_is_learned_by_regression(place: Path) -> None:
    for split, count in (("train", 24), ("validation", 12)):
        words = ("bad", "poor", "good", "great")
        rows = [{"text": f"{words[i % 4]} film {i}", "label": i % 4 + 0.5} for i in range(count)]
        text = "\n".join(json.dumps(row) for row in rows)
        (place / "films" / f"{split}.jsonl").write_text(text + "\n")
    tiny.write_tiny_bert(place / "bert", num_labels=1)
    scores = FilesData(path="films", text="text", objective="regression")
    metrics = run_training(place, data_config=scores, max_steps=40, keep="last")
    losses = [line["loss"] for line in read_history(place) if "loss" in line]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert metrics["objective"] == "regression" and "pearson" in metrics["validation"]


def test_texts_longer_than_the_positions_are_refused_with_both_numbers(place: Path) -> None:
    with pytest.raises(ModelError, match=r"64 positions, max_length is 65"):
        run_training(place, max_length=65)


def test_texts_that_are_cut_are_counted_in_each_split_and_said(place: Path) -> None:
    tokenizer = Tokenizer.from_file(str(place / "bert" / "tokenizer.json"))
    counts: list[tuple[str, int, int]] = []
    for split in ("train", "validation"):
        lines = (place / "films" / f"{split}.jsonl").read_text().splitlines()
        lengths = [len(tokenizer.encode(json.loads(line)["text"]).ids) for line in lines]
        counts.append((split, sum(length > 10 for length in lengths), len(lengths)))
    for max_length, is_cut in ((10, True), (24, False)):
        stream = io.StringIO()
        context = replace(context_for(place), progress=Progress(stream))
        train(TrainStep(**{**SETTINGS, "max_length": max_length, "max_steps": 1}), context)
        told = [line for line in stream.getvalue().splitlines() if "max_length" in line]
        assert len(told) == (2 if is_cut else 0)
        for line, (split, count, rows) in zip(told, counts, strict=False):
            assert 0 < count < rows
            assert f"{rows} {split} rows, {count} are longer than max_length" in line


def test_positions_that_a_family_numbers_from_the_padding_id_on_are_not_counted() -> None:
    config = RobertaConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=34,
        pad_token_id=1,
    )
    model = RobertaForSequenceClassification(config)
    check_length(model.config, 32, "the model", made_for=True)
    with pytest.raises(ModelError, match="32 positions, max_length is 33"):
        check_length(model.config, 33, "the model", made_for=True)


def test_token_ids_without_an_embedding_are_refused_with_both_numbers(place: Path) -> None:
    plain = json.loads((place / "bert" / "config.json").read_text()) | {"vocab_size": 30}
    with pytest.raises(ModelError, match=r"token ids up to \d+ .* 30 embeddings"):
        run_training(place, model={"config": plain, "tokenizer": "bert"})


def test_another_objective_than_the_data_has_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match=r"'regression'.*classification"):
        run_training(place, objective="regression")


def test_a_teacher_that_no_loss_asks_is_not_silently_dropped(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_training(place, teacher="bert", losses=[{"kind": "cross_entropy"}], max_steps=1)
    assert "no loss uses" in capsys.readouterr().err


def test_hidden_states_of_other_depth_are_refused_before_training(place: Path) -> None:
    tiny.write_tiny_bert(place / "deep", blocks=3)
    with pytest.raises(ModelError, match="3 and 2 blocks"):
        run_training(place, teacher="deep", losses=[{"kind": "hidden_mse"}])


@pytest.mark.parametrize("two_stacks", ["student", "teacher"])
def test_a_pair_of_other_stacks_is_refused_before_training(place: Path, two_stacks: str) -> None:
    tiny.write_tokenizer(place / "bart")
    words = len(json.loads((place / "bart" / "tokenizer.json").read_text())["model"]["vocab"])
    bart = tiny.tiny_model("bart", num_labels=2, vocab_size=words)
    bart.save_pretrained(place / "bart")
    models = {"model": "bert", "teacher": "bert"}
    models["model" if two_stacks == "student" else "teacher"] = "bart"
    with pytest.raises(ModelError, match="hidden_mse: the student has the stacks"):
        run_training(place, **models, losses=[{"kind": "hidden_mse"}])
    assert not (place / "scratch").exists(), "training had begun"


def test_a_teacher_without_a_head_is_refused_where_its_predictions_are_needed(place: Path) -> None:
    config = json.loads((place / "bert" / "config.json").read_text())
    tiny.write_tiny_bert(place / "bare")
    (place / "bare" / "config.json").write_text(
        json.dumps(config | {"architectures": ["BertModel"]})
    )
    with pytest.raises(ModelError, match="no classification head"):
        run_training(place, teacher="bare")


def test_evaluations_are_evenly_spread_and_the_last_is_at_the_end() -> None:
    assert sorted(evenly_spread(2, 5)) == [1, 2]
    assert sorted(evenly_spread(100, 4)) == [25, 50, 75, 100]


def test_a_student_is_narrowed_by_what_its_texts_say(place: Path) -> None:
    narrow = {"from": "bert", "hidden_size": 24, "intermediate_size": 20, "num_attention_heads": 3}
    run_training(place, model=narrow, max_steps=1, learning_rate=1e-30)
    config = json.loads((place / "out" / "model" / "config.json").read_text())
    assert (config["hidden_size"], config["intermediate_size"]) == (24, 20)
    by_texts = read_weights(place)["bert.embeddings.word_embeddings.weight"]
    by_weights = build_model(ChangedModel.model_validate(narrow), {}, place, None, seed=0)
    table = by_weights.model.get_input_embeddings().weight
    assert by_texts.shape == table.shape
    assert not torch.equal(by_texts, table)


def test_a_model_of_other_classes_starts_with_a_new_head(place: Path) -> None:
    tiny.write_tiny_bert(place / "mnli", num_labels=3)
    with pytest.raises(ModelError, match="classifier of 3 classes"):
        run_training(place, model="mnli", max_steps=1)
    new = {"from": "mnli", "new_head": True}
    run_training(place, model=new, max_steps=1)
    assert read_weights(place)["classifier.weight"].shape == (2, 32)
