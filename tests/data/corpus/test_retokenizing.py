"""A corpus packed again for another tokenizer has all its texts, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import corpora
from attar.data.corpus.retokenizing import retokenized, stored_documents
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.errors import StoppedError


def write_other_tokenizer(folder: Path) -> Path:
    """Bytes, and the end token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=0, special_tokens=[corpora.END], initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator([], trainer)
    corpora.write_tokenizer(folder)
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retokenized")
    corpora.write_documents(folder / "texts")
    corpora.write_tokenizer(folder / "model")
    write_other_tokenizer(folder / "letters")
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return Corpus.open(corpora.tokenized(folder)[0].folder)


def _streams(corpus: Corpus) -> dict[tuple[int, int], list[int]]:
    """The tokens of each part and source, end to end."""
    found: dict[tuple[int, int], list[int]] = {}
    for shard in corpus.shards:
        for row in range(len(shard)):
            key = int(shard.part[row]), int(shard.source[row])
            found.setdefault(key, []).extend(shard.chunk(row).tolist())
    return found


def test_a_whole_corpus_is_what_the_other_tokenizer_makes_of_its_documents(
    folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    again = retokenized(CorpusView(corpus), folder / "letters", 100, tmp_path / "new").corpus
    made, _ = corpora.tokenized(
        folder, "direct", settings={"tokenizer": "letters", "max_length": 100}
    )
    direct = Corpus.open(made.folder)
    names = direct.about["sources"]
    other = {
        (part, names.index(again.about["sources"][source])): ids
        for (part, source), ids in _streams(again).items()
    }
    assert other == _streams(direct)
    assert again.about["tokenizer"] == direct.about["tokenizer"] != corpus.about["tokenizer"]


def test_documents_are_put_together_again(corpus: Corpus) -> None:
    texts = [document.text for _, document in stored_documents(CorpusView(corpus))]
    assert sorted(texts) == sorted(corpora.texts(60))


@pytest.mark.parametrize("step", [2, 3])
def test_of_a_selection_every_kept_text_is_there_and_gaps_are_not_joined(
    corpus: Corpus, step: int
) -> None:
    whole = CorpusView(corpus)
    view = whole.take(np.arange(0, len(whole), step))
    found = [document.text for _, document in stored_documents(view)]
    kept = [
        piece
        for shard, rows in view.shards()
        for pieces in shard.texts()["pieces"].take(rows).to_pylist()
        for piece in pieces
    ]
    assert sorted("".join(found)) == sorted("".join(kept))
    assert all(any(text in document for document in corpora.texts(60)) for text in found)


def test_a_stopped_run_ends_with_the_same_bytes(
    folder: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.data.corpus.retokenizing.SHARD_TOKENS", 2000)
    view, letters = CorpusView(corpus, "scored"), folder / "letters"
    whole = retokenized(view, letters, 100, tmp_path / "whole").corpus
    assert len(whole.shards) > 3

    def stop(written: str) -> None:
        raise StoppedError(written)

    for _ in whole.shards[:-1]:  # after each shard but the last one, which is what is left
        with pytest.raises(StoppedError):
            retokenized(view, letters, 100, tmp_path / "cut", say=stop)
    stopped = retokenized(view, letters, 100, tmp_path / "cut").corpus
    files = [sorted(each.folder.iterdir()) for each in (whole, stopped)]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))
