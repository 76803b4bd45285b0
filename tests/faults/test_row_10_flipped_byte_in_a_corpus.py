"""Row 10: one byte flipped in a corpus, its scores or a selection is found before it is used; so is
what was cut short or edited by hand."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import corpora
from attar.data.corpus.token_store import Corpus
from attar.errors import ArtifactError, AttarError
from attar.recipe.run import run_recipe
from attar.selection.scores import read_scores

RECIPE = corpora.RECIPE.partition("[steps.student]")[0]
STUDENT = corpora.RECIPE[len(RECIPE) :].partition("[steps.scores]")[0]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = corpora.write_recipe(tmp_path_factory.mktemp("selected"), RECIPE)
    run_recipe(recipe, out=recipe.parent / "whole", quiet=True)
    return recipe


@pytest.fixture
def run(recipe: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(recipe.parent / "whole" / "selected", tmp_path / "selected")


def again(recipe: Path, run: Path) -> list[str]:
    """Run once more; the steps that were made."""
    summary = run_recipe(recipe, out=run.parent, quiet=True)
    return [step.name for step in summary.steps if not step.reused]


def flip(file: Path, at: int, *, unseen: bool = False) -> None:
    """Flip one bit of a byte; `unseen`: as a bad disk does, and the file's times stay."""
    content, times = bytearray(file.read_bytes()), file.stat()
    content[at] ^= 1
    file.write_bytes(content)
    if unseen:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {f.name: f.read_bytes() for f in files if f.name != "result.json"}


@pytest.mark.parametrize(
    "file",
    [
        "corpus/00001.tokens.safetensors",
        "corpus/00000.texts.parquet",
        "corpus/corpus.json",
        "by_teacher/00001.scores.safetensors",
        "kept/kept.safetensors",
        "kept/kept.json",
        "kept/rejected.parquet",
    ],
)
def test_a_flipped_byte_is_found_and_the_step_made_again_is_the_same(
    recipe: Path, run: Path, file: str
) -> None:
    step, _, name = file.partition("/")
    whole = contents(run / step)
    flip(run / file, (run / file).stat().st_size * 2 // 3)
    with pytest.raises(ArtifactError) as caught:
        again(recipe, run)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert f"artifact {run / step} is damaged: {name} was changed" in message
    assert "remove the folder and run again" in message
    shutil.rmtree(run / step)
    assert again(recipe, run) == [step]
    assert contents(run / step) == whole


@pytest.mark.parametrize("step", ["by_teacher", "by_reference", "kept", "student", "report"])
def test_no_step_reads_a_damaged_corpus(run: Path, recipe: Path, step: str) -> None:
    """Whichever step comes next, the run ends before it begins."""
    text = f"{RECIPE}{STUDENT}[steps.report]\nrun = 'report'\n"
    changed = recipe.with_name(f"{step}.toml")
    changed.write_text(text)
    shutil.rmtree(run / step, ignore_errors=True)
    flip(run / "corpus" / "00000.texts.parquet", 400)
    with pytest.raises(ArtifactError, match=r"00000\.texts\.parquet was changed"):
        again(changed, run)
    assert not (run / step).exists()


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("file", ["00000.tokens.safetensors", "00000.texts.parquet"])
def test_what_a_bad_disk_changes_is_found_when_it_is_read(
    run: Path, file: str, place: float
) -> None:
    """Size and times of the file are as they were, so the manifest is not asked again."""
    damaged, corpus = run / "corpus" / file, Corpus.open(run / "corpus")
    begin, end = bytes_of(damaged)
    flip(damaged, begin + int(place * (end - 1 - begin)), unseen=True)
    with pytest.raises(ArtifactError) as caught:
        shard = corpus.shards[0]
        for row in range(len(shard)):
            shard.chunk(row)
        shard.texts()
    assert str(damaged) in str(caught.value)
    assert "and run it again" in str(caught.value)


def bytes_of(file: Path) -> tuple[int, int]:
    """Where the token ids, or the packed texts, lie in a file."""
    if file.suffix == ".parquet":
        column = pq.read_metadata(file).row_group(0).column(0)
        return column.data_page_offset, column.data_page_offset + column.total_compressed_size
    content = file.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8:data])["ids"]["data_offsets"]
    return data + begin, data + end


def fewer_sources(about: dict) -> None:
    del about["sources"][1:]


def other_counts(about: dict) -> None:
    about["shards"][0]["tokens"] += 1


def no_shard(about: dict) -> None:
    about["shards"].append({"chunks": 5, "tokens": 40})


def other_form(about: dict) -> None:
    about["shards"] = "many"


def no_counts(about: dict) -> None:
    about["shards"][0] = {}


def no_sources(about: dict) -> None:
    del about["sources"]


@pytest.mark.parametrize(
    "edit", [fewer_sources, other_counts, no_shard, other_form, no_counts, no_sources]
)
def test_a_description_that_disagrees_with_the_shards_is_refused(
    run: Path, edit: Callable[[dict], None]
) -> None:
    """A corpus from elsewhere may come without a manifest."""
    file = run / "corpus" / "corpus.json"
    about = json.loads(file.read_text())
    edit(about)
    file.write_text(json.dumps(about))
    with pytest.raises(ArtifactError) as caught:
        corpus = Corpus.open(run / "corpus")
        corpus.counts()
        list(corpus.shards)
    assert caught.value.exit_code == 3
    assert str(run / "corpus") in str(caught.value)
    assert "run" in str(caught.value)


@pytest.mark.parametrize("size", [0, 7, 40, 0.5, 0.99])
def test_scores_cut_short_are_refused(run: Path, size: float) -> None:
    file = run / "by_teacher" / "00000.scores.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(size * len(content)) if 0 < size < 1 else int(size)])
    with pytest.raises(ArtifactError, match=r"cannot be read.*run it again"):
        read_scores(file)


@pytest.mark.parametrize("size", [0, 7, 40, 0.5, 0.99])
def test_shards_cut_short_are_refused(run: Path, size: float) -> None:
    for name in ("00001.tokens.safetensors", "00001.texts.parquet"):
        file = run / "corpus" / name
        content = file.read_bytes()
        file.write_bytes(content[: int(size * len(content)) if 0 < size < 1 else int(size)])
        with pytest.raises(AttarError) as caught:
            _ = Corpus.open(run / "corpus").shards[1].texts()
        assert caught.value.exit_code == 3
        assert str(file) in str(caught.value)
        file.write_bytes(content)


def test_arrays_that_do_not_fit_each_other_are_refused(run: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for file, name in (
        (run / "by_teacher" / "00000.scores.safetensors", "log_p"),
        (run / "corpus" / "00000.tokens.safetensors", "document"),
        (run / "corpus" / "00000.tokens.safetensors", "starts"),
    ):
        arrays = load_file(file)
        save_file({**arrays, name: arrays[name][:-1]}, file)
        with pytest.raises(ArtifactError, match="run it again"):
            if name == "log_p":
                read_scores(file)
            else:
                _ = Corpus.open(run / "corpus").shards[0]
        save_file(arrays, file)
