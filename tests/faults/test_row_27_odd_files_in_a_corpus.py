"""Row 27: links that lead out of a corpus, scores or a selection, and FIFOs. Each is refused before
it is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import corpora
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import KEPT_FILE, kept_rows
from attar.errors import ArtifactError
from attar.selection.scores import ShardScores, read_scores, score_file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, with scores and a selection in the same folder."""
    folder = tmp_path_factory.mktemp("whole")
    corpora.write_documents(folder / "texts", 20)
    corpora.write_tokenizer(folder / "model")
    made = corpora.tokenized(folder)[0].folder
    row, tokens, digest = (np.arange(3, dtype=kind) for kind in ("<u8", "<u4", "<u8"))
    ShardScores(row, tokens, digest, np.zeros(3, np.float32)).write(score_file(made, 0))
    save_file({"row": np.arange(3)}, made / KEPT_FILE)
    return made


def to_link(file: Path) -> None:
    file.rename(file.parent.parent / file.name)
    file.symlink_to(file.parent.parent / file.name)


def to_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


READ: dict[str, Callable[[Path], object]] = {
    "corpus.json": Corpus.open,
    "00000.tokens.safetensors": lambda folder: Corpus.open(folder).shards[0],
    "00000.texts.parquet": lambda folder: Corpus.open(folder).shards[0].texts(),
    "00000.scores.safetensors": lambda folder: read_scores(score_file(folder, 0)),
    KEPT_FILE: kept_rows,
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(
    ("make", "said"), [(to_link, "is a link to .*outside its folder"), (to_fifo, "is a FIFO")]
)
def test_an_odd_file_is_refused(
    whole: Path, tmp_path: Path, name: str, make: Callable[[Path], None], said: str
) -> None:
    folder = shutil.copytree(whole, tmp_path / "corpus")
    READ[name](folder)
    make(folder / name)
    with pytest.raises(ArtifactError, match=said) as caught:
        READ[name](folder)
    assert str(folder / name) in str(caught.value)
