"""A corpus holds every document once, packed by source; a stopped run ends with the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corpora
from attar.data.corpus.token_store import PARTS, Corpus
from attar.errors import DataError, ModelError, StoppedError
from attar.progress import Progress


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    corpora.write_documents(folder / "texts")
    corpora.write_tokenizer(folder / "model")
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    made, _ = corpora.tokenized(folder)
    return Corpus.open(made.folder)


def _texts(corpus: Corpus, *parts: str) -> list[str]:
    """Every document, from the pieces of its part and source; all parts if none is named."""
    found, open_ones = [], dict[tuple[int, int], str]()
    for shard in corpus.shards:
        for row, text in enumerate(shard.texts().to_pylist()):
            key = (int(shard.part[row]), int(shard.source[row]))
            for place, piece in enumerate(text["pieces"]):
                open_ones[key] = open_ones.get(key, "") + piece
                if place < len(text["pieces"]) - 1 or text["ends_document"]:
                    found.append((key[0], open_ones.pop(key)))
    assert not open_ones
    return [text for part, text in found if not parts or PARTS[part] in parts]


def test_every_document_is_in_it_once(corpus: Corpus) -> None:
    assert sorted(_texts(corpus)) == sorted(corpora.texts(60))


def test_the_reserved_part_goes_by_a_hash_of_the_text(folder: Path, corpus: Corpus) -> None:
    is_reserved = [shard.part == PARTS.index("reserved") for shard in corpus.shards]
    share = np.concatenate(is_reserved).mean()
    assert 0.1 < share < 0.4
    rows = (folder / "texts" / "train.jsonl").read_text().splitlines()
    (folder / "turned").mkdir(exist_ok=True)
    (folder / "turned" / "train.jsonl").write_text("\n".join(reversed(rows)) + "\n")
    (folder / "turned" / "validation.jsonl").write_text(rows[0] + "\n")
    made, _ = corpora.tokenized(folder, "turned_corpus", path="turned")
    reserved, turned = (_texts(each, "reserved") for each in (corpus, Corpus.open(made.folder)))
    assert sorted(reserved) == sorted(turned) != []


def test_counts_are_those_of_the_files(folder: Path, corpus: Corpus) -> None:
    _, metrics = corpora.tokenized(folder, "again")
    assert metrics["documents"] == 60
    assert metrics["bytes"] == sum(len(text.encode()) for text in corpora.texts(60))
    assert metrics["tokens"] == sum(len(shard.ids) for shard in corpus.shards)
    assert metrics["chunks"] == sum(metrics["chunks_by_part"].values())
    assert metrics["chunks"] == sum(metrics["chunks_by_source"].values())
    assert metrics["shards"] == len(corpus.shards) > 2


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("documents", [1, 13, 40, 59])
def test_a_stopped_run_ends_with_the_same_bytes(
    folder: Path, corpus: Corpus, documents: int
) -> None:
    name, seen = f"stopped_{documents}", [0]

    def should_stop() -> bool:
        seen[0] += 1
        return seen[0] > documents

    with pytest.raises(StoppedError):
        corpora.tokenized(folder, name, should_stop=should_stop)
    corpora.tokenized(folder, name)
    assert _bytes(folder / name) == _bytes(corpus.folder)


def test_the_size_of_shards_changes_no_chunk(folder: Path, corpus: Corpus) -> None:
    made, _ = corpora.tokenized(folder, "one_shard", settings={"shard_tokens": 2**20})
    (whole,) = Corpus.open(made.folder).shards
    parts = corpus.shards
    assert np.array_equal(whole.digest, np.concatenate([shard.digest for shard in parts]))
    assert np.array_equal(whole.ids, np.concatenate([shard.ids for shard in parts]))


def test_unusable_rows_are_listed_with_their_reasons(folder: Path) -> None:
    rows = [*(folder / "texts" / "train.jsonl").read_text().splitlines(), "{}", "no json"]
    (folder / "faulty").mkdir()
    (folder / "faulty" / "train.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "faulty" / "validation.jsonl").write_text(rows[0] + "\n")
    with pytest.raises(DataError, match="2 of 62 rows cannot be used"):
        corpora.tokenized(folder, "refused", path="faulty")
    said = io.StringIO()
    made, _ = corpora.tokenized(
        *(folder, "faulty_corpus"), path="faulty", max_set_aside=0.1, progress=Progress(said)
    )
    reasons = "set aside 1 × no text, 1 × not JSON\n"
    assert f"faulty_corpus: data 'texts' (train.jsonl): {reasons}" in said.getvalue()
    lines = gzip.decompress((made.folder / "rejected.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line)["row"] for line in lines] == [60, 61]
    assert all(json.loads(line)["reason"] for line in lines)


def test_documents_held_out_for_validation_never_enter(folder: Path) -> None:
    from attar.data.config import FilesData
    from attar.data.load import load_data

    (folder / "unsplit").mkdir()
    rows = (folder / "texts" / "train.jsonl").read_bytes()
    (folder / "unsplit" / "train.jsonl").write_bytes(rows)
    made, _ = corpora.tokenized(folder, "unsplit_corpus", path="unsplit")
    data = load_data(
        FilesData(path="unsplit", text="text", objective="causal_lm", label_names=None), folder
    )
    trained = [texts[0] for texts in data.split("train").texts]
    assert len(trained) < 60
    assert sorted(_texts(Corpus.open(made.folder))) == sorted(trained)


def test_a_limited_corpus_is_the_beginning_of_the_whole_one(folder: Path) -> None:
    made, metrics = corpora.tokenized(folder, "limited", settings={"max_documents": 7})
    assert metrics["documents"] == 7
    assert sorted(_texts(Corpus.open(made.folder))) == sorted(corpora.texts(60)[:7])


def test_rows_drawn_in_memory_are_refused(folder: Path) -> None:
    from attar.data.config import FilesData
    from attar.data.documents import documents

    data = FilesData(path="texts", text="text", train_rows=5, label_names=None)
    with pytest.raises(DataError, match="max_documents = 5"):
        documents(data, folder, "texts")


def test_a_run_that_stopped_while_it_published_goes_on(folder: Path) -> None:
    corpora.tokenized(folder, "published")
    shutil.rmtree(folder / "published")  # as the engine does before it calls the step again
    corpora.tokenized(folder, "published")
    assert _bytes(folder / "published") == _bytes(folder / "corpus")


def test_a_source_is_a_short_text(folder: Path) -> None:
    rows = [{"text": "a b.", "source": source} for source in ("sea", "", None, "\ud800", "x" * 300)]
    (folder / "odd").mkdir()
    for split in ("train", "validation"):
        (folder / "odd" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    made, metrics = corpora.tokenized(
        folder, "odd_corpus", path="odd", max_set_aside=1.0, settings={"reserve": 0.0}
    )
    assert set(metrics["chunks_by_source"]) == {"sea", ""}
    assert metrics["documents"] == 3
    assert len(gzip.decompress((made.folder / "rejected.jsonl.gz").read_bytes()).splitlines()) == 2


def test_a_tokenizer_without_an_end_token_is_refused(folder: Path) -> None:
    corpora.write_tokenizer(folder / "endless")
    settings = folder / "endless" / "tokenizer_config.json"
    settings.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(ModelError, match="no end token"):
        corpora.tokenized(folder, "none", settings={"tokenizer": "endless"})


def test_a_column_that_rows_lack_is_said(folder: Path) -> None:
    with pytest.raises(
        DataError, match="no column 'origin' for source_column; its columns are 'text', 'source'"
    ):
        corpora.tokenized(folder, "none", settings={"source_column": "origin"})


@pytest.mark.parametrize("damage", ["cut", "header", "gone"])
def test_a_damaged_shard_is_refused(folder: Path, damage: str, tmp_path: Path) -> None:
    from attar.errors import ArtifactError

    made, _ = corpora.tokenized(folder, f"damaged_{damage}")
    file: Any = made.folder / "00001.tokens.safetensors"
    raw = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(raw[: len(raw) // 2] if damage == "cut" else b"\xff" * 8 + raw[8:])
    with pytest.raises(ArtifactError, match=r"does not exist|run it again"):
        _ = Corpus.open(made.folder).shards[1].ids[-1]


LEARNED = {"train_on": "texts", "vocab_size": 300}


def test_a_corpus_carries_its_tokenizer(folder: Path, corpus: Corpus) -> None:
    from attar.data.packing import document_tokenizer
    from attar.special_tokens import open_tokenizer, tokenizer_digest

    for each in (corpus.folder, folder / "model"):
        assert tokenizer_digest(open_tokenizer(each)) == corpus.about["tokenizer"]
    assert document_tokenizer(corpus.folder)[1] == corpus.about["end_id"]
    again, _ = corpora.tokenized(folder, "by_itself", settings={"tokenizer": "corpus"})
    assert _bytes(again.folder) == _bytes(corpus.folder)


def test_an_end_token_that_only_the_model_names_is_carried(folder: Path) -> None:
    from attar.data.packing import document_tokenizer

    corpora.write_tokenizer(folder / "by_model")
    settings = folder / "by_model" / "tokenizer_config.json"
    settings.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "by_model" / "config.json").write_text('{"model_type": "llama", "eos_token_id": 0}')
    made, _ = corpora.tokenized(folder, "ended", settings={"tokenizer": "by_model"})
    assert document_tokenizer(made.folder)[1] == 0


def test_a_tokenizer_is_learned_from_the_documents_that_may_enter(folder: Path) -> None:
    made, metrics = corpora.tokenized(folder, "learned", settings={"tokenizer": LEARNED})
    found = Corpus.open(made.folder)
    assert found.about["vocabulary"] == 300
    assert sorted(_texts(found)) == sorted(corpora.texts(60))
    _, fewer = corpora.tokenized(
        folder, "bytes", settings={"tokenizer": {**LEARNED, "vocab_size": 257}}
    )
    assert fewer["tokens"] == fewer["bytes"] + 60  # a byte a token, and the end tokens
    assert metrics["tokens"] < fewer["tokens"]


@pytest.mark.parametrize("calls", [30, 90, 150])
def test_a_run_that_stopped_while_it_learned_ends_with_the_same_bytes(
    folder: Path, calls: int
) -> None:
    """60 documents are read for the sample's limit, 60 for its words, then 60 are tokenized."""
    settings = {"tokenizer": LEARNED}
    name, seen = f"stopped_learning_{calls}", [0]

    def should_stop() -> bool:
        seen[0] += 1
        return seen[0] > calls

    with pytest.raises(StoppedError):
        corpora.tokenized(folder, name, should_stop=should_stop, settings=settings)
    assert (folder / f"{name}.scratch" / "tokenizer" / "tokenizer.json").exists() == (calls > 120)
    corpora.tokenized(folder, name, settings=settings)
    corpora.tokenized(folder, f"undisturbed_{calls}", settings=settings)
    assert _bytes(folder / name) == _bytes(folder / f"undisturbed_{calls}")


def test_a_share_is_drawn_by_the_texts_and_grows(folder: Path, corpus: Corpus) -> None:
    found = [
        sorted(
            _texts(Corpus.open(corpora.tokenized(folder, f"s{n}", settings={"share": n})[0].folder))
        )
        for n in (0.3, 0.6, 1.0)
    ]
    assert 5 < len(found[0]) < len(found[1]) < len(found[2]) == 60
    assert set(found[0]) < set(found[1])


def test_an_end_token_that_a_text_spells_ends_no_document(folder: Path) -> None:
    """Neither in a corpus nor in what its models are validated and judged by."""
    from attar.data.packing import token_blocks
    from attar.scoring.running_text import read_stream

    spelled = [f"the sea {corpora.END} was calm.", f"{corpora.END}{corpora.END}", "still."]
    (folder / "spelled").mkdir()
    for split in ("train", "validation"):
        lines = "\n".join(json.dumps({"text": text, "source": "sea"}) for text in spelled)
        (folder / "spelled" / f"{split}.jsonl").write_text(lines + "\n")
    made, _ = corpora.tokenized(folder, "spelled_corpus", path="spelled", settings={"reserve": 0.0})
    found = Corpus.open(made.folder)
    ids = np.concatenate([shard.ids for shard in found.shards])
    rows = [(text,) for text in spelled]
    judged = read_stream(folder / "model", rows, "judged").ids
    validated = token_blocks(folder / "model", rows, len(judged), "validation").encoded.ids
    for read in (ids, judged, validated):
        assert (read == found.about["end_id"]).sum() == len(spelled)
        assert len(read) == len(ids)
    assert sorted(_texts(found)) == sorted(spelled)


@pytest.mark.parametrize("highest", [5_000, 70_000])
def test_ids_may_be_left_out(folder: Path, corpus: Corpus, highest: int) -> None:
    model = shutil.copytree(folder / "model", folder / f"up_to_{highest}")
    content = json.loads((model / "tokenizer.json").read_text())
    moved = int(corpus.shards[0].ids[0])
    vocabulary = content["model"]["vocab"]
    vocabulary[{i: token for token, i in vocabulary.items()}[moved]] = highest
    (model / "tokenizer.json").write_text(json.dumps(content))
    settings = {"tokenizer": model.name}
    found = Corpus.open(corpora.tokenized(folder, f"to_{highest}", settings=settings)[0].folder)
    assert found.about["vocabulary"] == highest + 1
    ids, plain = (np.concatenate([s.ids for s in each.shards]) for each in (found, corpus))
    np.testing.assert_array_equal(np.where(plain == moved, highest, plain.astype(int)), ids)
