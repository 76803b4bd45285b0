"""MiniLLM over shards: continuations are sampled within the one training loop, and learned from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

import corpora
import tiny
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.errors import ModelError, NonFiniteError, StoppedError
from attar.losses.config import PolicyGradient
from attar.losses.predictions import reverse_kl
from attar.losses.targets import UNLABELLED
from attar.losses.total import TotalLoss
from attar.models.load import load_model
from attar.numerics.logits import log_probabilities
from attar.step import MadeRows
from attar.training.config import TrainStep
from attar.training.objectives.shards import Shards
from attar.training.rollouts import Rollouts
from attar.training.run import train
from attar.training.teaching.cached import load_cached
from attar.training.teaching.live import LiveTeacher

CPU = torch.device("cpu")
PASSES = 1e-4
"""Between one pass over a text, and one token after the other: float32 sums in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("minillm")
    corpora.write_documents(folder / "texts")
    corpora.write_model(folder / "model", initializer_range=0.1)
    corpora.write_model(folder / "teacher", initializer_range=0.1)
    teacher: Any = load_model(folder / "teacher").model
    with torch.no_grad():  # surer than the student of the same words
        teacher.get_output_embeddings().weight.mul_(3)
    teacher.save_pretrained(folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> MadeRows:
    made, _ = corpora.tokenized(folder)
    return MadeRows("attar.selection.rows:corpus_rows", made.folder, made.step, 0)


SETTINGS: dict[str, Any] = {
    "model": "model",
    "teacher": "teacher",
    "data": "corpus",
    "part": "scored",
    "max_length": 24,
    "batch_size": 6,
    "max_steps": 4,
    "evaluations": 1,
    "learning_rate": 3e-3,
    "schedule": "constant",
    "warmup_steps": 0,
    "precision": "fp32",
    "losses": [{"kind": "policy_gradient", "new_tokens": 5}, {"kind": "cross_entropy"}],
}


def _train(folder: Path, made: MadeRows, name: str, **settings: Any) -> dict[str, Any]:
    from attar.data.config import FilesData

    texts = FilesData(path="texts", text="text", objective="causal_lm", label_names=None)
    should_stop = settings.pop("should_stop", lambda: False)
    data = {"texts": texts, "corpus": made}
    context = corpora.context(folder, name, data, should_stop=should_stop)
    return dict(train(TrainStep(**{**SETTINGS, **settings}), context))


def _history(folder: Path, name: str) -> list[dict[str, Any]]:
    import json

    lines = (folder / name / "history.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def _weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(folder: Path, made: MadeRows) -> str:
    _train(folder, made, "whole")
    return "whole"


def test_a_step_learns_from_its_texts_and_from_their_continuations(
    folder: Path, whole: str
) -> None:
    history = _history(folder, whole)
    assert len(history) == 4
    for line in history:
        losses, facts = line["losses"], line["facts"]
        assert line["loss"] == pytest.approx(losses["policy_gradient"] + losses["cross_entropy"])
        assert losses["policy_gradient"] > 0  # a KL
        assert 0 < facts["policy_gradient.new_tokens"] <= 5
        assert 0 <= facts["policy_gradient.ended"] <= 1
        low, high = (facts[f"policy_gradient.{which}_ratio"] for which in ("lowest", "highest"))
        assert 0 < low < 1 < high < 1 / 0.8  # q / (0.2 p + 0.8 q)


def test_a_killed_run_goes_on_bit_for_bit(folder: Path, made: MadeRows, whole: str) -> None:
    asked: list[int] = []

    def die() -> bool:
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt  # nothing is saved, as by a kill
        return False

    with pytest.raises(KeyboardInterrupt):
        _train(folder, made, "killed", checkpoint_every=2, should_stop=die)
    _train(folder, made, "killed", checkpoint_every=2)
    assert _history(folder, "killed") == _history(folder, whole)
    ours, theirs = _weights(folder, "killed"), _weights(folder, whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_micro_batches_sample_the_same_and_have_the_gradient_of_the_whole_batch(
    folder: Path, made: MadeRows, whole: str
) -> None:
    _train(folder, made, "cut", micro_batch_size=4, max_steps=1)
    cut, first = _history(folder, "cut")[0], _history(folder, whole)[0]
    assert cut["facts"] == pytest.approx(first["facts"])
    assert cut["losses"] == pytest.approx(first["losses"], rel=1e-5)
    assert cut["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)


def test_vanilla_distillation_over_shards_is_cut_and_goes_on_bit_for_bit(
    folder: Path, made: MadeRows
) -> None:
    kd: dict[str, Any] = {"losses": [], "micro_batch_size": 4}
    _train(folder, made, "kd", **kd)
    for line in _history(folder, "kd"):
        halves = line["losses"]
        assert halves.keys() == {"forward_kl", "cross_entropy"}
        assert line["loss"] == pytest.approx(sum(halves.values()) / 2)
    _train(folder, made, "kd_whole", losses=[], max_steps=1)
    first = _history(folder, "kd_whole")[0]
    assert _history(folder, "kd")[0]["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)
    answers = iter([False] * 3)
    with pytest.raises(StoppedError):
        _train(folder, made, "kd_cut", should_stop=lambda: next(answers, True), **kd)
    _train(folder, made, "kd_cut", **kd)
    assert _history(folder, "kd_cut") == _history(folder, "kd")
    ours, theirs = _weights(folder, "kd_cut"), _weights(folder, "kd")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_without_a_loss_on_texts_only_continuations_are_learned_from(
    folder: Path, made: MadeRows
) -> None:
    losses = SETTINGS["losses"][:1]
    steps: Any = {"max_steps": 20, "batch_size": 24, "learning_rate": 2e-3, "keep": "last"}
    _train(folder, made, "alone", losses=losses, **steps)
    assert all(line["losses"].keys() == {"policy_gradient"} for line in _history(folder, "alone"))
    before, after = (_reverse_kl(folder, made, where) for where in ("model", "alone/model"))
    assert after < 0.9 * before


def _reverse_kl(folder: Path, made: MadeRows, model: str) -> float:
    """Of the next token, on texts of the corpus."""
    shards = Shards.of(CorpusView(Corpus.open(made.folder), "scored"), folder / "model", 24)
    inputs, targets = shards.batch(np.arange(12), CPU)
    with torch.no_grad():
        student, teacher = (
            load_model(folder / name).model(**inputs).logits[targets.predicted]
            for name in (model, "teacher")
        )
    return float(reverse_kl(student, teacher).mean())


@pytest.fixture(scope="module")
def rollouts(folder: Path, made: MadeRows) -> Rollouts:
    config = PolicyGradient(prompt_tokens=7, new_tokens=5)
    loss = TotalLoss([config], "causal_lm")
    view = CorpusView(Corpus.open(made.folder), "scored")
    teacher = LiveTeacher(load_model(folder / "teacher"), loss.needs)
    shards = Shards.of(view, folder / "model", 24)
    return Rollouts(config, loss, shards, teacher, max_length=24, end_id=0, seed=3)


@pytest.fixture(scope="module")
def student(folder: Path) -> Any:
    return load_model(folder / "model").model


ROWS = np.array([8, 2, 30, 5])


def test_the_tokens_behind_the_prompts_are_learned_with_their_sampling_probabilities(
    rollouts: Rollouts, student: Any
) -> None:
    sampled = rollouts.sample(student, ROWS, 3, step=0)
    inputs, targets = sampled.batch(ROWS, CPU)
    read, _ = rollouts.examples.batch(ROWS, CPU)
    new = (targets.labels != UNLABELLED).sum(dim=1)
    for row, count in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
        prompt = min(7, int(read["attention_mask"][row].sum()))
        assert count == prompt + new[row] - 1
        assert torch.equal(inputs["input_ids"][row, :prompt], read["input_ids"][row, :prompt])
        labels = targets.labels[row, prompt - 1 : count]
        assert (labels != UNLABELLED).all() and labels[-1] != UNLABELLED
        assert torch.equal(inputs["input_ids"][row, prompt:count], labels[:-1])
        assert 0 not in labels[:-1]  # an end token is the last
    counts = sampled.counts(ROWS)
    assert counts["prediction"] == counts["labelled"] == new.sum()
    assert counts["decoder"] == inputs["attention_mask"].sum()
    assert targets.sampled is not None
    index = torch.nonzero(targets.predicted, as_tuple=True)
    log_q, log_p = (
        log_probabilities(model(**inputs).logits, index, targets.labels[index]).double()
        for model in (student, rollouts.teacher.model)
    )
    mixed = (0.2 * log_p.exp() + 0.8 * log_q.exp()).log()
    torch.testing.assert_close(targets.sampled.log_sampled[index], mixed, atol=PASSES, rtol=0)
    first = index[0] == 0
    rest = [float((log_p - log_q)[first][t + 1 :].mean()) for t in range(int(new[0]) - 1)]
    assert targets.sampled.advantages[0][targets.predicted[0]].tolist() == pytest.approx(
        [*rest, 0.0], abs=PASSES
    )


def test_a_continuation_is_a_function_of_weights_seed_step_and_row(
    rollouts: Rollouts, student: Any
) -> None:
    def texts(rows: np.ndarray, step: int) -> dict[int, list[int]]:
        student.train()
        sampled = rollouts.sample(student, rows, 2, step)
        assert student.training
        return {row: sampled.texts[place].tolist() for row, place in sampled.places.items()}

    whole = texts(ROWS, 5)
    assert texts(ROWS[[3, 1]], 5) == {row: whole[row] for row in ROWS[[3, 1]].tolist()}
    assert texts(ROWS, 6) != whole


@pytest.mark.parametrize("broken", ["student", "teacher"])
def test_a_model_whose_logits_are_no_numbers_is_named_with_its_rows(
    broken: str, rollouts: Rollouts, student: Any, folder: Path
) -> None:
    loaded = load_model(folder / "model")
    damaged: Any = loaded.model
    with torch.no_grad():
        damaged.get_output_embeddings().weight[3] = math.nan
    if broken == "teacher":
        rollouts = replace(rollouts, teacher=LiveTeacher(loaded, rollouts.loss.needs))
    said = rf"step 7: train rows 8, 2, 30 cannot be continued: the {broken}'s logits are NaN"
    with pytest.raises(NonFiniteError, match=said):
        rollouts.sample(damaged if broken == "student" else student, ROWS, 3, step=7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"teacher": None}, "no teacher is named"),
        ({"losses": [{"kind": "policy_gradient"}] * 2}, "more than once"),
        (
            {"losses": [{"kind": "policy_gradient", "prompt_tokens": 20, "new_tokens": 8}]},
            "prompts of up to 20 tokens by up to 8, and max_length is 24; .* max_length = 28",
        ),
        ({"losses": [{"kind": "policy_gradient", "prompt_tokens": 24}]}, "max_length = 25"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainStep(**{**SETTINGS, **settings})


def test_labelled_texts_and_hidden_spans_are_refused() -> None:
    from attar.tasks.table import CAUSAL_LM, CLASSIFICATION, SPAN_CORRUPTION

    step = TrainStep(**SETTINGS)
    hiding = step.model_copy(update={"objective": SPAN_CORRUPTION.name})
    assert step.misfit(CAUSAL_LM, "films") is None
    for each, kind in ((step, CLASSIFICATION), (hiding, CAUSAL_LM)):
        problem = each.misfit(kind, "films")
        assert problem is not None
        assert "policy_gradient continues running text, and the objective on data 'f" in problem


@pytest.mark.parametrize("word", ["model", "teacher"])
@pytest.mark.parametrize(("family", "reads"), [("bert", "reads"), ("t5", "has an encoder")])
def test_models_that_cannot_be_asked_for_the_next_token_are_refused(
    folder: Path, made: MadeRows, word: str, family: str, reads: str
) -> None:
    import transformers

    if not (folder / family).exists():
        corpora.write_tokenizer(folder / family)
        config: Any = tiny.tiny_config(family, vocab_size=320, pad_token_id=0)
        head = {"bert": "BertForMaskedLM", "t5": "T5ForConditionalGeneration"}[family]
        getattr(transformers, head)(config).save_pretrained(folder / family)
    with pytest.raises(ModelError, match=rf"model_type '{family}' {reads}.* in both directions"):
        _train(folder, made, "refused", **{word: family})


def test_a_cache_is_refused(rollouts: Rollouts, tmp_path: Path) -> None:
    task: Any = load_model(rollouts.teacher.loaded.folder).task
    with pytest.raises(ModelError, match="needs the teacher on continuations"):
        load_cached(tmp_path, task, needs=rollouts.loss.needs, seed=0)
