"""A proxy learns the scores of a sample, says how well on chunks it never saw, and predicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from safetensors.numpy import load_file

import corpora
from attar.artifacts import RESULT_FILE
from attar.data.corpus.token_store import Corpus
from attar.errors import ArtifactError, DataError, ModelError, StoppedError, UsageError
from attar.models.cost import forward_flops
from attar.models.load import load_model
from attar.numerics.metrics import METRICS
from attar.selection.config import ProxyStep, ScoreStep, SelectStep
from attar.selection.proxy import proxy, split_of
from attar.selection.proxy_model import Proxy, Scale, load_proxy, mean_over_tokens
from attar.selection.score import score
from attar.selection.scores import read_scored, read_scores, score_file
from attar.selection.select import select
from attar.step import MadeRows

SAMPLE = 60
SETTINGS: dict[str, Any] = {
    "model": "other",
    "data": "corpus",
    "teacher": "few_teacher",
    "reference": "few_reference",
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "precision": "fp32",
    "evaluations": 3,
}


@pytest.fixture(scope="module")
def made(folder: Path) -> MadeRows:
    made, _ = corpora.tokenized(folder)
    for name, model in (("few_teacher", "model"), ("few_reference", "other")):
        metrics = corpora.scored(folder, made, name, model, settings={"chunks": SAMPLE})
        _publish(folder / name, metrics)
    return made


def _publish(folder: Path, metrics: dict[str, Any]) -> None:
    """The result that a run writes beside what the step makes."""
    about = {"step": folder.name, "run": "", "key": "", "metrics": metrics}
    (folder / RESULT_FILE).write_text(json.dumps(about))


def _trained(folder: Path, made: MadeRows, name: str, **settings: Any) -> dict[str, Any]:
    extra = settings.pop("extra", {})
    step = ProxyStep(**{**SETTINGS, **settings})
    inputs = {each: folder / each for each in step.scored_by.values()}
    return dict(
        proxy(step, corpora.context(folder, name, {"corpus": made}, inputs=inputs, **extra))
    )


@pytest.fixture(scope="module")
def trained(folder: Path, made: MadeRows) -> dict[str, Any]:
    metrics = _trained(folder, made, "proxy")
    _publish(folder / "proxy", metrics)
    return metrics


@pytest.fixture(scope="module")
def predicted(folder: Path, made: MadeRows, trained: dict[str, Any]) -> dict[str, Any]:
    step = ScoreStep(model="proxy", data="corpus", batch_tokens=128)
    inputs = {"proxy": folder / "proxy"}
    return score(step, corpora.context(folder, "predicted", {"corpus": made}, inputs=inputs))


def test_the_mean_over_tokens_ignores_padding() -> None:
    states = torch.randn(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    found = mean_over_tokens(states, mask)
    for row, length in enumerate((5, 2, 1)):
        assert torch.allclose(found[row], states[row, :length].mean(0), atol=1e-6)
    states[mask == 0] = float("nan")
    assert torch.equal(found, mean_over_tokens(states, mask))


def test_predictions_stay_within_the_bound(folder: Path) -> None:
    scale = Scale.of(np.array([0.0, 1.0, 2.0, 9.0], np.float32))
    model = Proxy(load_model(folder / "other").model.base_model, scale, seed=0)
    torch.nn.init.constant_(model.head.weight, 1e6)
    ids = torch.arange(1, 33).reshape(4, 8)
    z = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert float(z.detach().abs().max()) == pytest.approx(scale.bound)
    highest = scale.standardised(np.array([9.0], np.float32))[0]
    assert highest == pytest.approx(scale.bound / 2)


def test_the_correlation_is_scipys_on_chunks_that_taught_nothing(
    folder: Path, made: MadeRows, trained: dict[str, Any]
) -> None:
    held_out = load_file(folder / "proxy" / "held_out.safetensors")
    found = trained["spearman"]
    wanted = scipy.stats.spearmanr(held_out["predicted"], held_out["score"]).statistic
    assert found["value"] == pytest.approx(wanted, abs=1e-9)
    assert found["n"] == len(held_out["row"]) == 6
    assert found["low"] <= found["value"] <= found["high"]
    errors = held_out["predicted"] - held_out["score"]
    assert trained["rmse"] == pytest.approx(float(np.sqrt((errors**2).mean())), rel=1e-5)
    folders = {name: folder / f"few_{name}" for name in ("teacher", "reference")}
    sample = read_scored(Corpus.open(made.folder), folders, "proxy", may_be_sample=True)
    score_of = dict(zip(sample.rows().tolist(), sample.score.tolist(), strict=True))
    assert held_out["score"].tolist() == [score_of[row] for row in held_out["row"].tolist()]
    judging = split_of(SAMPLE, 0.2, 0)[2]
    assert held_out["row"].tolist() == sample.rows()[judging].tolist()


def test_the_loss_is_the_mean_squared_error_of_standardised_scores(
    folder: Path, trained: dict[str, Any]
) -> None:
    lines = [json.loads(x) for x in (folder / "proxy" / "history.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(1.0, abs=0.5)  # a new head predicts about the mean
    losses = {line["step"]: line["validation"]["loss"] for line in lines if "validation" in line}
    assert min(losses, key=losses.__getitem__) == trained["kept_step"]


def test_a_proxy_overfits_a_few_chunks(folder: Path, made: MadeRows) -> None:
    _trained(
        folder,
        made,
        "long",
        max_steps=60,
        batch_size=64,
        learning_rate=1e-2,
        held_out=0.05,
        evaluations=1,
    )
    scorer = load_proxy(folder / "long" / "model")
    folders = {name: folder / f"few_{name}" for name in ("teacher", "reference")}
    corpus = Corpus.open(made.folder)
    sample = read_scored(corpus, folders, "proxy", may_be_sample=True)
    _predicted(folder, made, "by_long", "long")
    everything = read_scored(corpus, {"predicted": folder / "by_long"}, "x")
    is_sampled = np.isin(everything.rows(), sample.rows())
    assert METRICS["spearman"](everything.score[is_sampled], sample.score) > 0.8
    assert scorer.scale.std == pytest.approx(float(sample.score.std()), rel=0.1)


def _predicted(folder: Path, made: MadeRows, name: str, by: str, **extra: Any) -> dict[str, Any]:
    step = ScoreStep(model=f"{by}/model", data="corpus", batch_tokens=extra.pop("budget", 128))
    return score(step, corpora.context(folder, name, {"corpus": made}, **extra))


def test_a_proxy_that_was_saved_predicts_as_it_did(folder: Path, predicted: dict[str, Any]) -> None:
    held_out = load_file(folder / "proxy" / "held_out.safetensors")
    begin, found = 0, dict[int, float]()
    for number, shard in enumerate(Corpus.open(folder / "corpus").shards):
        scores = read_scores(score_file(folder / "predicted", number))
        rows = (begin + scores.row).tolist()
        found |= dict(zip(rows, scores.predicted.tolist(), strict=True))
        begin += len(shard)
    wanted = [found[row] for row in held_out["row"].tolist()]
    np.testing.assert_allclose(held_out["predicted"], wanted, rtol=1e-4, atol=1e-6)
    assert predicted["mean_predicted"] == pytest.approx(float(np.mean(list(found.values()))))


def test_a_prediction_is_the_formula_by_hand(folder: Path, predicted: dict[str, Any]) -> None:
    """Of what a language model reads of a chunk: all tokens but the last."""
    from transformers import AutoModel

    body = AutoModel.from_pretrained(folder / "proxy" / "model").eval()
    head = load_file(folder / "proxy" / "model" / "proxy.safetensors")
    scores = read_scores(score_file(folder / "predicted", 0))
    shard = Corpus.open(folder / "corpus").shards[0]
    for row, found in list(zip(scores.row, scores.predicted, strict=True))[:5]:
        ids = torch.from_numpy(shard.chunk(int(row))[None, :-1])
        with torch.no_grad():
            mean = body(input_ids=ids).last_hidden_state[0].mean(0).numpy()
        raw = float(head["weight"][0] @ mean + head["bias"][0])
        z = head["bound"] * np.tanh(raw / head["bound"])
        assert found == pytest.approx(float(head["mean"] + head["std"] * z), rel=1e-4, abs=1e-6)


def test_the_scale_is_that_of_the_chunks_it_was_trained_on(
    folder: Path, made: MadeRows, trained: dict[str, Any]
) -> None:
    folders = {name: folder / f"few_{name}" for name in ("teacher", "reference")}
    sample = read_scored(Corpus.open(made.folder), folders, "proxy", may_be_sample=True)
    scores = sample.score[split_of(SAMPLE, 0.2, 0)[0]].astype(np.float64)
    assert trained["scale"]["mean"] == pytest.approx(float(scores.mean()))
    assert trained["scale"]["std"] == pytest.approx(float(scores.std()))


def test_predictions_do_not_depend_on_the_batch(
    folder: Path, made: MadeRows, predicted: dict[str, Any]
) -> None:
    _predicted(folder, made, "one_by_one", "proxy", budget=1)
    corpus = Corpus.open(made.folder)
    one, other = (
        read_scored(corpus, {"predicted": folder / name}, "x").score
        for name in ("one_by_one", "predicted")
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_highest_predictions_are_kept(
    folder: Path, made: MadeRows, predicted: dict[str, Any]
) -> None:
    step = SelectStep(
        data="corpus",
        method="proxy",
        scores="predicted",
        keep=0.4,
        keep_by_source={"sea": 0.2},
        minimum_tokens=1,
    )
    inputs = {"predicted": folder / "predicted"}
    metrics = select(step, corpora.context(folder, "kept", {"corpus": made}, inputs=inputs))
    scored = read_scored(Corpus.open(made.folder), inputs, "x")
    kept = load_file(folder / "kept" / "kept.safetensors")
    sources = Corpus.open(made.folder).about["sources"]
    wanted: list[int] = []
    for source, share in (("sea", 0.2), ("land", 0.4)):
        members = np.flatnonzero(scored.source == sources.index(source))
        best = members[np.argsort(-scored.score[members], kind="stable")]
        wanted += scored.rows()[best[: int(share * len(members))]].tolist()
    assert kept["row"].tolist() == sorted(wanted)
    assert set(kept) == {"row", "predicted"}
    assert metrics["kept"] == len(wanted)


def test_what_was_saved_is_said_in_operations(
    folder: Path, trained: dict[str, Any], predicted: dict[str, Any]
) -> None:
    offline, few = predicted["offline"], trained["flops"]
    assert offline["predicting"] == predicted["flops"]
    assert offline["total"] == sum(few.values()) + predicted["flops"]
    whole = few["teacher"] * predicted["tokens"] / trained["sample_tokens"]
    assert offline["teacher_on_all"] == pytest.approx(whole, abs=1)
    assert offline["share_of_teacher"] == pytest.approx(offline["total"] / whole)


def test_training_takes_three_forward_passes_a_row_and_those_of_validation(
    folder: Path, made: MadeRows, trained: dict[str, Any]
) -> None:
    """Four epochs, three validations, and what judges it read before and after."""
    folders = {name: folder / f"few_{name}" for name in ("teacher", "reference")}
    sample = read_scored(Corpus.open(made.folder), folders, "proxy", may_be_sample=True)
    body = load_model(folder / "other").model.base_model
    learned, chosen, judged = (
        forward_flops(body, sample.tokens[part]) for part in split_of(SAMPLE, 0.2, 0)
    )
    assert trained["flops"]["training"] == 12 * learned + 3 * chosen + 2 * judged
    assert trained["epochs"] == 4


def test_the_parts_of_a_sample_are_disjoint_and_complete() -> None:
    for count, held_out in ((20, 0.2), (21, 0.5), (25, 0.01), (25, 0.99), (1000, 0.2)):
        parts = split_of(count, held_out, 1)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
        assert all(len(part) and part.tolist() == sorted(part.tolist()) for part in parts)
    assert [len(part) for part in parts] == [800, 100, 100]


@pytest.mark.slow
def test_a_stopped_proxy_ends_with_the_same_bytes(
    folder: Path, made: MadeRows, trained: dict[str, Any]
) -> None:
    asked = [0]

    def should_stop() -> bool:
        asked[0] += 1
        return asked[0] > 9

    with pytest.raises(StoppedError):
        _trained(folder, made, "stopped", extra={"should_stop": should_stop})
    again = _trained(folder, made, "stopped")
    assert again["spearman"] == trained["spearman"]
    for name in ("model.safetensors", "proxy.safetensors"):
        files = (folder / each / "model" / name for each in ("stopped", "proxy"))
        assert len({file.read_bytes() for file in files}) == 1


def test_equal_scores_are_refused(folder: Path, made: MadeRows) -> None:
    with pytest.raises(UsageError, match="equal for every chunk, as those of one model are"):
        _trained(folder, made, "none", reference="few_teacher")


def test_a_sample_of_a_few_chunks_is_refused(folder: Path, made: MadeRows) -> None:
    for name, model in (("tiny_teacher", "model"), ("tiny_reference", "other")):
        corpora.scored(folder, made, name, model, settings={"chunks": 12})
    with pytest.raises(DataError, match="12 of 12 chunks of the sample have a score"):
        _trained(folder, made, "none", teacher="tiny_teacher", reference="tiny_reference")


def test_chunks_without_a_score_teach_nothing(folder: Path, made: MadeRows) -> None:
    for number in range(len(Corpus.open(made.folder).shards)):
        for name in ("few_teacher", "few_reference"):
            scores = read_scores(score_file(folder / name, number))
            log_p = scores.log_p.copy()
            if name == "few_teacher":
                log_p[::7] = np.nan
            target = folder / name.replace("few", "spoiled")
            target.mkdir(exist_ok=True)
            replace(scores, log_p=log_p).write(score_file(target, number))
    for name in ("spoiled_teacher", "spoiled_reference"):
        _publish(folder / name, {"flops": 1})
    names = {"teacher": "spoiled_teacher", "reference": "spoiled_reference"}
    metrics = _trained(folder, made, "few_less", max_steps=1, **names)
    assert metrics["left_out"] > 0
    assert metrics["chunks"] + metrics["left_out"] == SAMPLE


def test_scores_of_the_wrong_kind_are_refused(
    folder: Path, made: MadeRows, predicted: dict[str, Any]
) -> None:
    corpus = Corpus.open(made.folder)
    with pytest.raises(ArtifactError, match="holds scores predicted by a proxy"):
        read_scored(corpus, {"teacher": folder / "predicted"}, "x")
    with pytest.raises(ArtifactError, match="holds log-probabilities"):
        read_scored(corpus, {"predicted": folder / "few_teacher"}, "x", may_be_sample=True)


def test_a_head_of_another_body_is_refused(
    folder: Path, trained: dict[str, Any], tmp_path: Path
) -> None:
    corpora.write_model(tmp_path / "wide", hidden_size=64)
    (tmp_path / "wide" / "proxy.safetensors").write_bytes(
        (folder / "proxy" / "model" / "proxy.safetensors").read_bytes()
    )
    with pytest.raises(ArtifactError, match="not the head of a proxy with this body"):
        load_proxy(tmp_path / "wide")


def test_an_encoder_decoder_is_refused() -> None:
    from transformers import AutoModel

    import tiny

    body = AutoModel.from_config(tiny.tiny_config("t5"))
    with pytest.raises(ModelError, match="'t5' models are encoder-decoders"):
        Proxy(body, Scale(0.0, 1.0, 4.0), seed=0)
