"""Rows of a stream are a corpus's tokens, each once, in order, document ends included."""

from __future__ import annotations

import numpy as np
import pytest

import corpora
from attar.data.corpus.stream import StreamRows
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("streamed")
    corpora.write_documents(folder / "texts")
    corpora.write_tokenizer(folder / "model")
    made, _ = corpora.tokenized(folder, inputs={"model": folder / "model"})
    found = Corpus.open(made.folder)
    assert len(found.shards) > 2
    return found


def _in_order(view: CorpusView) -> np.ndarray:
    """The tokens shard by shard, in each of them part by part and source by source."""
    pieces = []
    for shard, rows in view.shards():
        keyed = sorted(rows.tolist(), key=lambda row: (shard.part[row], shard.source[row], row))
        pieces += [shard.chunk(row) for row in keyed]
    return np.concatenate(pieces)


@pytest.mark.parametrize("which", ["all", "reserved", "some"])
@pytest.mark.parametrize("length", [7, 100, 5000])
def test_rows_end_to_end_are_the_tokens_each_once(corpus: Corpus, which: str, length: int) -> None:
    whole = CorpusView(corpus)
    view = whole.take(np.arange(1, len(whole), 3)) if which == "some" else CorpusView(corpus, which)
    stream = StreamRows(view, length)
    rows = stream.ids(range(len(stream)))
    assert {len(row) for row in rows[:-1]} <= {length}
    assert 0 < len(rows[-1]) <= length
    expected = _in_order(view)
    assert np.concatenate(rows).tolist() == expected.tolist()
    assert stream.tokens == len(expected)
    (alone,) = stream.ids([len(stream) - 1])
    assert alone.tolist() == rows[-1].tolist()
    if which == "all":
        assert (np.concatenate(rows) == corpus.about["end_id"]).sum() == 60
