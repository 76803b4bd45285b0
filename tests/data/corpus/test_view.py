"""A corpus, its parts and its selections are read in the same way, and only what is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import corpora
from attar.artifacts import write_json
from attar.data.config import FilesData
from attar.data.corpus.token_store import BETWEEN_DOCUMENTS, PARTS, Corpus
from attar.data.corpus.view import DIGEST_FILE, KEPT_FILE, CorpusView, kept_rows
from attar.data.load import load_data
from attar.errors import ArtifactError, DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewed")
    corpora.write_documents(folder / "texts")
    corpora.write_tokenizer(folder / "model")
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    made, _ = corpora.tokenized(folder)
    return Corpus.open(made.folder)


def _select(corpus: Corpus, folder: Path, rows: list) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"row": np.array(rows, np.int64)}, folder / KEPT_FILE)
    inside = np.unique(np.clip(rows, 0, len(corpus) - 1))
    write_json(folder / DIGEST_FILE, CorpusView(corpus, kept=inside).digest())
    return folder


def _views(corpus: Corpus, folder: Path) -> dict[str, CorpusView]:
    kept = _select(corpus, folder, [0, 3, 17, len(CorpusView(corpus)) - 1])
    parts = {part: CorpusView(corpus, part) for part in PARTS}
    return {"all": CorpusView(corpus), **parts, "kept": CorpusView.of_selection(corpus, kept)}


def test_places_of_a_view_are_its_rows_in_corpus_order(corpus: Corpus, tmp_path: Path) -> None:
    part_of = np.concatenate([shard.part for shard in corpus.shards])
    views = _views(corpus, tmp_path)
    expected = {part: np.flatnonzero(part_of == place) for place, part in enumerate(PARTS)}
    expected |= {"all": np.arange(len(part_of)), "kept": kept_rows(tmp_path)}
    for name, view in views.items():
        assert view.rows(np.arange(len(view))).tolist() == expected[name].tolist(), name
        by_shard = [len(rows) for _, rows in view.shards()]
        assert sum(by_shard) == len(view)


def test_chunks_are_those_of_the_shards_in_any_order(corpus: Corpus, tmp_path: Path) -> None:
    chunks = [shard.chunk(row) for shard in corpus.shards for row in range(len(shard))]
    digests = np.concatenate([shard.digest for shard in corpus.shards])
    pieces = [each for shard in corpus.shards for each in shard.texts()["pieces"].to_pylist()]
    for view in _views(corpus, tmp_path).values():
        places = np.random.default_rng(0).permutation(len(view))
        rows = view.rows(places).tolist()
        assert [ids.tolist() for ids in view.ids(places)] == [chunks[row].tolist() for row in rows]
        assert view.lengths(places).tolist() == [len(chunks[row]) for row in rows]
        assert view.digests(places).tolist() == digests[rows].tolist()
        assert view.texts(places) == [BETWEEN_DOCUMENTS.join(pieces[row]) for row in rows]
        assert view.tokens == sum(len(chunks[row]) for row in rows)
        in_order = view.texts(np.arange(len(view)))
        assert list(view.all_texts()) == in_order == [text for (text,) in view.split().texts]


def test_a_view_of_a_view_has_its_rows(corpus: Corpus) -> None:
    view = CorpusView(corpus, "scored")
    places = np.array([1, 5, 8])
    assert view.take(places).rows(np.arange(3)).tolist() == view.rows(places).tolist()


def test_a_table_of_chunks_is_taken_apart_as_any_other(corpus: Corpus) -> None:
    split = CorpusView(corpus, "reserved").split()
    texts = list(split.texts)
    rising, other = [2, 3, 9], [9, 2, 3]
    assert list(split.rows(rising).texts) == [texts[row] for row in rising]
    assert split.rows(rising).chunks is not None
    assert list(split.rows(other).texts) == [texts[row] for row in other]
    assert list(split.texts[2:9:3]) == texts[2:9:3]
    assert split.texts[-1] == texts[-1]
    assert len(split.labels) == len(split) == len(texts)


def test_no_text_is_read_before_it_is_asked_for(corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(corpus.folder, tmp_path / "bare")
    for file in (tmp_path / "bare").glob("*.texts.parquet"):
        file.unlink()
    split = CorpusView(Corpus.open(tmp_path / "bare"), "scored").split()
    assert split.chunks is not None
    assert len(split) == len(split.chunks.lengths(np.arange(len(split))))
    with pytest.raises(ArtifactError, match="does not exist"):
        _ = split.texts[0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "does not exist"),
        ([0, 10**6], "another corpus"),
        *(
            (rows, "expected rising rows")
            for rows in ([1, 10**6, 3], [2, -5, 3], [5, 3, 7], [2, 2])
        ),
        ([[0, 1]], "its columns must be"),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(
    corpus: Corpus, tmp_path: Path, rows: list | None, said: str
) -> None:
    if rows is not None:
        _select(corpus, tmp_path, rows)
    with pytest.raises(ArtifactError, match=said):
        CorpusView.of_selection(corpus, tmp_path)


def test_rows_that_are_other_chunks_now_are_refused(
    folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    """As where the corpus was made again with another setting."""
    made, _ = corpora.tokenized(folder, "again", settings={"max_length": 16})
    kept = _select(corpus, tmp_path, [0, 3, 17])
    assert len(CorpusView.of_selection(corpus, kept)) == 3
    with pytest.raises(ArtifactError, match=r"another version of .*again; name"):
        CorpusView.of_selection(Corpus.open(made.folder), kept)


def test_a_validation_split_is_read_without_the_train_split(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "texts", tmp_path / "texts")
    (tmp_path / "texts" / "train.jsonl").write_text("no json\n" * 3)
    table = FilesData(path="texts", text="text", objective="causal_lm", label_names=None)
    judged = load_data(table, tmp_path, train=False).split("validation")
    assert [text for (text,) in judged.texts] == corpora.texts(60)[:5]
    with pytest.raises(DataError, match="3 of 3"):
        load_data(table, tmp_path)
