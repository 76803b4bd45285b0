"""What is kept is what the formula says, whatever the shards; what is not has its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import corpora
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import kept_rows
from attar.errors import ArtifactError, UsageError
from attar.selection.config import SelectStep
from attar.selection.explored import EXPLORED_FILE
from attar.selection.scores import Scored, ShardScores, read_scored, read_scores, score_file
from attar.selection.select import select
from attar.step import MadeRows


@pytest.fixture(scope="module")
def scored(folder: Path, made: MadeRows) -> Scored:
    folders = {name: folder / name for name in ("teacher", "reference")}
    return read_scored(Corpus.open(made.folder), folders, "select")


def _select(folder: Path, made: MadeRows, name: str, **settings: Any) -> dict[str, Any]:
    settings = {"minimum_tokens": 1, **settings}
    step = SelectStep(data="corpus", teacher="teacher", reference="reference", **settings)
    inputs = {each: folder / each for each in ("teacher", "reference")}
    return select(step, corpora.context(folder, name, {"corpus": made}, inputs=inputs))


@pytest.mark.parametrize("keep", [0.05, 0.29, 0.5, 0.58, 1.0])
def test_the_highest_scores_are_kept_in_corpus_order(
    folder: Path, made: MadeRows, scored: Scored, keep: float
) -> None:
    _select(folder, made, f"top_{keep}", keep=keep)
    count = int(Fraction(str(keep)) * len(scored.rows()))  # 0.29 · 100 is 29
    best = np.argsort(-scored.score, kind="stable")[:count]
    assert kept_rows(folder / f"top_{keep}").tolist() == np.sort(scored.rows()[best]).tolist()


def test_the_score_is_the_mean_log_ratio_a_token(
    folder: Path, made: MadeRows, scored: Scored
) -> None:
    row, begin = int(scored.rows()[-1]), 0
    for number, shard in enumerate(Corpus.open(made.folder).shards):
        if row < begin + len(shard):
            files = (score_file(folder / name, number) for name in ("teacher", "reference"))
            teacher, reference = map(read_scores, files)
            place = int(np.flatnonzero(teacher.row == row - begin)[0])
            ratio = (teacher.log_p[place] - reference.log_p[place]) / teacher.tokens[place]
            assert scored.score[-1] == pytest.approx(float(ratio), abs=1e-5)
            return
        begin += len(shard)
    raise AssertionError("the last scored row is in no shard")


def test_kept_and_rejected_together_are_all_that_was_scored(
    folder: Path, made: MadeRows, scored: Scored
) -> None:
    settings = {"keep": 0.4, "trim": 0.05, "minimum_tokens": 20, "near_duplicates": 0.5}
    metrics = _select(folder, made, "filtered", **settings)
    rejected = pq.read_table(folder / "filtered" / "rejected.parquet").to_pydict()
    rows = [*kept_rows(folder / "filtered").tolist(), *rejected["row"]]
    assert sorted(rows) == scored.rows().tolist()
    short = set(scored.rows()[scored.tokens < 20].tolist())
    reasons = dict(zip(rejected["row"], rejected["reason"], strict=True))
    assert {row for row, reason in reasons.items() if reason == "too short"} == short != set()
    highest = scored.rows()[np.argsort(-scored.score, kind="stable")[: int(0.05 * len(rows))]]
    assert not set(highest.tolist()) & set(kept_rows(folder / "filtered").tolist())
    assert sum(metrics["fates"].values()) == metrics["chunks"] == len(rows)
    assert metrics["kept"] == int(0.4 * len(rows))


def test_a_source_has_its_own_share(folder: Path, made: MadeRows, scored: Scored) -> None:
    metrics = _select(folder, made, "by_source", keep=0.5, keep_by_source={"sea": 0.2})
    assert set(metrics["sources"]) == {"sea", "land"}
    for source, share in (("sea", 0.2), ("land", 0.5)):
        counts = metrics["sources"][source]
        assert counts["kept"] == int(share * counts["chunks"])


def test_a_source_that_is_not_there_is_refused(folder: Path, made: MadeRows) -> None:
    with pytest.raises(UsageError, match=r"'air'.*'land'"):
        _select(folder, made, "none", keep_by_source={"air": 0.2})


@pytest.mark.parametrize("method", ["random", "gumbel"])
def test_drawn_selections_depend_on_the_seed_alone(
    folder: Path, made: MadeRows, method: str
) -> None:
    for name, seed in (("one", 1), ("same", 1), ("two", 2)):
        _select(folder, made, f"{method}_{name}", method=method, seed=seed)
    one, same, two = (kept_rows(folder / f"{method}_{n}").tolist() for n in ("one", "same", "two"))
    assert one == same != two
    assert len(one) == len(two)


def test_gumbel_of_a_small_temperature_is_difference_sampling(folder: Path, made: MadeRows) -> None:
    _select(folder, made, "cold", method="gumbel", temperature=1e-9)
    _select(folder, made, "plain")
    assert kept_rows(folder / "cold").tolist() == kept_rows(folder / "plain").tolist()


def test_scores_of_another_corpus_are_refused(folder: Path, made: MadeRows, tmp_path: Path) -> None:
    corpora.write_documents(folder / "more", 70)
    other, _ = corpora.tokenized(folder, "other_corpus", path="more")
    corpora.scored(folder, other, "of_other")
    with pytest.raises(ArtifactError, match="not of this corpus"):
        folders = {"teacher": folder / "of_other", "reference": folder / "reference"}
        read_scored(Corpus.open(made.folder), folders, "select")


def test_a_teacher_that_predicts_the_text_worse_than_the_reference_is_warned_of(
    folder: Path, made: MadeRows, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for teacher, reference in (("teacher", "reference"), ("reference", "teacher")):
        step = SelectStep(data="corpus", teacher=teacher, reference=reference)
        inputs = {each: folder / each for each in (teacher, reference)}
        context = corpora.context(folder, f"of_{teacher}", {"corpus": made}, inputs=inputs)
        found[teacher] = select(step, context)
    nll = found["teacher"]["nll"]
    for name, value in nll.items():
        scores = [read_scores(file) for file in sorted((folder / name).glob("*.safetensors"))]
        log_p = sum(float(each.log_p.sum(dtype=np.float64)) for each in scores)
        assert value == pytest.approx(-log_p / sum(int(each.tokens.sum()) for each in scores))
    worse, better = sorted(nll, key=lambda name: -nll[name])
    assert "warnings" not in found[better]
    [warning] = found[worse]["warnings"]
    assert f"({nll[worse]:.2f} against {nll[better]:.2f} nats per token)" in warning
    assert capsys.readouterr().err.count("are they swapped?") == 1


def test_scores_of_one_model_are_nothing_to_select_by(
    folder: Path, made: MadeRows, tmp_path: Path
) -> None:
    shutil.copytree(folder / "teacher", tmp_path / "copy")
    with pytest.raises(UsageError, match=r"equal for every chunk.*use the scores of a smaller"):
        folders = {"teacher": folder / "teacher", "reference": tmp_path / "copy"}
        read_scored(Corpus.open(made.folder), folders, "select")


def test_scores_of_a_sample_are_refused(folder: Path, made: MadeRows) -> None:
    for name, model in (("few_teacher", "model"), ("few_reference", "other")):
        corpora.scored(folder, made, name, model, settings={"chunks": 20})
    step = SelectStep(data="corpus", teacher="few_teacher", reference="few_reference")
    inputs = {each: folder / each for each in ("few_teacher", "few_reference")}
    with pytest.raises(UsageError, match=r"20 of \d+ chunks.*run = \"proxy\""):
        select(step, corpora.context(folder, "none", {"corpus": made}, inputs=inputs))


def test_a_chunk_without_a_score_is_rejected_and_says_so(
    folder: Path, made: MadeRows, scored: Scored
) -> None:
    shutil.copytree(folder / "teacher", folder / "spoiled")
    file = score_file(folder / "spoiled", 0)
    scores = read_scores(file)
    log_p = scores.log_p.copy()
    log_p[:3] = np.nan
    replace(scores, log_p=log_p).write(file)
    step = SelectStep(
        data="corpus",
        teacher="spoiled",
        reference="reference",
        trim=0.1,
        keep=1.0,
        minimum_tokens=1,
    )
    inputs = {each: folder / each for each in ("spoiled", "reference")}
    metrics = select(step, corpora.context(folder, "part", {"corpus": made}, inputs=inputs))
    assert metrics["fates"]["could not be scored"] == 3
    rejected = pq.read_table(folder / "part" / "rejected.parquet").to_pydict()
    reasons = dict(zip(rejected["row"], rejected["reason"], strict=True))
    assert [reasons[row] for row in scored.rows()[:3]] == ["could not be scored"] * 3
    rest = scored.score[3:]
    highest = 3 + np.argsort(-rest, kind="stable")[: int(0.1 * len(scored.rows()))]
    trimmed = {row for row, reason in reasons.items() if reason == "trimmed"}
    assert trimmed == set(scored.rows()[highest].tolist())
    assert metrics["mean_score"]["all"] == pytest.approx(float(rest.mean()))


def _of_repeated_texts(folder: Path, times: int) -> MadeRows:
    texts = corpora.write_documents(folder / "texts") / "train.jsonl"
    texts.write_text(texts.read_text() * times)
    for name, seed in (("model", 0), ("other", 1)):
        corpora.write_model(folder / name, seed=seed)
    made, _ = corpora.tokenized(folder, settings={"reserve": 0.0})
    corpora.scored(folder, made, "teacher")
    corpora.scored(folder, made, "reference", "other")
    return made


def test_near_duplicates_are_counted_and_kept_where_they_are_not_filtered(tmp_path: Path) -> None:
    made = _of_repeated_texts(tmp_path, 3)
    counting = {"threshold": 0.5, "filter": False}
    counted = _select(tmp_path, made, "counted", near_duplicates=counting)
    filtered = _select(tmp_path, made, "filtered", near_duplicates=0.5)
    plain = _select(tmp_path, made, "plain")
    found = counted["near_duplicates"]
    assert found["all"] == filtered["near_duplicates"]["all"] == filtered["fates"]["near duplicate"]
    assert found["all"] > 10
    assert found["kept"] > 0 == filtered["near_duplicates"]["kept"]
    assert "near duplicate" not in counted["fates"]
    assert "near_duplicates" not in plain
    kept = [kept_rows(tmp_path / name).tolist() for name in ("counted", "plain")]
    assert kept[0] == kept[1]


FILTERED = {"near_duplicates": 0.5, "keep": 1.0}


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MadeRows]:
    folder = tmp_path_factory.mktemp("twice")
    made = _of_repeated_texts(folder, 2)
    _select(folder, made, "whole", **FILTERED)
    return folder, made


def _changed(folder: Path, name: str, change: Callable[[ShardScores, int], ShardScores]) -> Path:
    """A folder with the same scores, but for what a function of a shard's scores and its first row
    makes of the teacher's. Nothing is reserved, so every chunk has its row."""
    shutil.copytree(folder / "reference", folder / name / "reference")
    (folder / name / "teacher").mkdir()
    begin = 0
    for file in sorted(folder.glob("teacher/*.scores.safetensors")):
        scores = read_scores(file)
        change(scores, begin).write(folder / name / "teacher" / file.name)
        begin += len(scores.row)
    return folder / name


@pytest.mark.parametrize(
    ("reason", "changes", "settings"),
    [
        ("could not be scored", {"log_p": np.nan}, {}),
        ("too short", {"tokens": 1}, {"minimum_tokens": 2}),
        ("trimmed", {"log_p": 0.0}, {"trim": 0.01}),
    ],
)
def test_what_is_set_aside_is_no_original_of_a_near_duplicate(
    twice: tuple[Path, MadeRows], reason: str, changes: dict[str, float], settings: dict[str, Any]
) -> None:
    folder, made = twice
    explored = json.loads((folder / "whole" / EXPLORED_FILE).read_text())
    pairs = [each for each in explored["examples"] if each["place"] == "near duplicate"]
    original, repeat = pairs[0]["repeats"]["row"], pairs[0]["row"]

    def change(scores: ShardScores, begin: int) -> ShardScores:
        (name, value), is_it = next(iter(changes.items())), begin + scores.row == original
        old = getattr(scores, name)
        return replace(scores, **{name: np.where(is_it, value, old).astype(old.dtype)})

    changed = _changed(folder, reason.replace(" ", "_"), change)
    _select(changed, made, "select", **FILTERED, **settings)
    rejected = pq.read_table(changed / "select" / "rejected.parquet").to_pydict()
    reasons = dict(zip(rejected["row"], rejected["reason"], strict=True))
    assert reasons[original] == reason
    assert repeat in kept_rows(changed / "select")


def test_counted_near_duplicates_of_chunks_without_a_score_are_not_shown(
    twice: tuple[Path, MadeRows],
) -> None:
    folder, made = twice

    def change(scores: ShardScores, begin: int) -> ShardScores:
        log_p = np.where(scores.row % 3 < 2, np.nan, scores.log_p)
        return replace(scores, log_p=log_p.astype(np.float32))

    changed = _changed(folder, "most_unscored", change)
    counting = {"threshold": 0.5, "filter": False}
    metrics = _select(changed, made, "select", near_duplicates=counting)
    explored = json.loads((changed / "select" / EXPLORED_FILE).read_text())
    shown = [each for each in explored["examples"] if each["place"] == "near duplicate"]
    assert len(shown) == min(5, metrics["near_duplicates"]["all"]) > 0


def test_a_default_selection_keeps_no_chunk_of_a_few_tokens(folder: Path, made: MadeRows) -> None:
    step = SelectStep(data="corpus", teacher="teacher", reference="reference", keep=1.0)
    inputs = {each: folder / each for each in ("teacher", "reference")}
    metrics = select(step, corpora.context(folder, "default", {"corpus": made}, inputs=inputs))
    corpus = Corpus.open(made.folder)
    lengths = np.concatenate([shard.lengths for shard in corpus.shards])
    assert lengths[kept_rows(folder / "default")].min() == 17  # 16 of them are predicted
    assert metrics["fates"]["too short"] > 0
