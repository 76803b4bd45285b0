"""A sample is uniform, without replacement, in corpus order, and the same for every model."""

from __future__ import annotations

import numpy as np
import pytest

import corpora
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.selection.score import rows_to_score


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("sampled")
    corpora.write_documents(folder / "texts")
    corpora.write_tokenizer(folder / "model")
    return Corpus.open(corpora.tokenized(folder)[0].folder)


def _rows(corpus: Corpus, chunks: int | None, seed: int = 0, part: str = "scored") -> list[int]:
    """Over all shards."""
    rows_of = rows_to_score(corpus, part, chunks, seed)
    begins = np.cumsum([0, *map(len, corpus.shards)])
    return [int(begins[n]) + int(row) for n in range(len(corpus.shards)) for row in rows_of(n)]


@pytest.mark.parametrize("part", ["scored", "reserved"])
def test_a_sample_has_the_asked_number_of_distinct_chunks_of_the_part(
    corpus: Corpus, part: str
) -> None:
    whole = _rows(corpus, None, part=part)
    view = CorpusView(corpus, part)
    assert whole == view.rows(np.arange(len(view))).tolist()
    for chunks in (1, 7, len(whole) - 1, len(whole), 10 * len(whole)):
        rows = _rows(corpus, chunks, part=part)
        assert len(rows) == min(chunks, len(whole))
        assert rows == sorted(set(rows))
        assert set(rows) <= set(whole)


def test_a_larger_sample_contains_a_smaller_one(corpus: Corpus) -> None:
    samples = [set(_rows(corpus, chunks)) for chunks in (5, 20, 60)]
    assert samples[0] < samples[1] < samples[2]


def test_the_seed_alone_chooses_the_sample(corpus: Corpus) -> None:
    assert _rows(corpus, 20, seed=1) == _rows(corpus, 20, seed=1) != _rows(corpus, 20, seed=2)


def test_every_chunk_is_as_likely_as_any_other(corpus: Corpus) -> None:
    whole = _rows(corpus, None)
    draws, chunks = 200, 23
    counts = dict.fromkeys(whole, 0)
    for seed in range(draws):
        for row in _rows(corpus, chunks, seed=seed):
            counts[row] += 1
    share = chunks / len(whole)
    deviations = (np.array(list(counts.values())) - draws * share) / np.sqrt(
        draws * share * (1 - share)
    )
    assert abs(deviations).max() < 4.5  # of about a hundred standard normals
    assert 0.6 < deviations.var() < 1.5
