"""However many shards a corpus has, one file is open at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpora
from attar.data.corpus.token_store import Corpus

OPEN_FILES = Path("/proc/self/fd")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    corpora.write_documents(folder / "texts", 200)
    corpora.write_tokenizer(folder / "model")
    made, _ = corpora.tokenized(folder)
    return Corpus.open(made.folder)


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="this system does not list open files")
def test_shards_that_were_read_are_closed(corpus: Corpus) -> None:
    before = len(list(OPEN_FILES.iterdir()))
    most = 0
    for shard in corpus.shards:
        assert shard.ids[-1] >= 0
        most = max(most, len(list(OPEN_FILES.iterdir())))
    assert len(corpus.shards) > 5
    assert most <= before + 2  # the next one is opened before the last one is let go


def test_shards_are_a_sequence(corpus: Corpus) -> None:
    shards = corpus.shards
    assert len(list(shards)) == len(shards)
    assert shards[-1].files.number == len(shards) - 1
    assert [shard.files.number for shard in shards[1:3]] == [1, 2]
    with pytest.raises(IndexError):
        _ = shards[len(shards)]


def test_a_corpus_has_as_many_chunks_as_its_shards(corpus: Corpus) -> None:
    assert len(corpus) == sum(map(len, corpus.shards)) == corpus.counts()["chunks"]
