"""A corpus and a selection of another run stand where those of this one may stand; a folder that is
no such thing is found before anything runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import attar.cli
import corpora
from attar.artifacts import read_result, sha256_of
from attar.data.config import CorpusData
from attar.data.corpus.published import open_published
from attar.data.corpus.view import kept_rows
from attar.data.fingerprint import data_fingerprint
from attar.errors import ArtifactError, AttarError, DataError, RecipeError, UsageError
from attar.recipe.checking.doubts import outside_references
from attar.recipe.keys import keys_of, room_fingerprints
from attar.recipe.load import parse_recipe, require_data
from attar.recipe.one_step import recipe_text, run_one_step
from attar.recipe.plan import plan_recipe
from attar.recipe.run import run_recipe
from attar.selection.peek import peek

KEEP, TRIM = 0.4, 0.05


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts and models, and what four verbs made: corpus, scores, selection."""
    place = tmp_path_factory.mktemp("outside")
    corpora.write_documents(place / "texts")
    for seed, name in enumerate(("model", "other")):
        corpora.write_model(place / name, seed=seed)

    def run(verb: str, name: str, **settings: Any) -> None:
        summary = run_one_step(verb, settings, (), place / "runs", quiet=True)
        shutil.move(summary.folder / verb, place / "made" / name)

    (place / "made").mkdir()
    settings = {**corpora.SETTINGS, "data": str(place / "texts"), "tokenizer": str(place / "model")}
    run("tokenize", "corpus", **settings)
    made = f"corpus:{place / 'made' / 'corpus'}"
    run("score", "by_teacher", data=made, model=str(place / "model"), batch_tokens=128)
    run("score", "by_reference", data=made, model=str(place / "other"), batch_tokens=128)
    scores = {name: str(place / "made" / f"by_{name}") for name in ("teacher", "reference")}
    run("select", "kept", data=made, **scores, keep=KEEP, trim=TRIM)
    run("tokenize", "second", **{**settings, "max_length": 16})
    return place


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """The made folders, to be damaged."""
    shutil.copytree(place / "made", tmp_path / "made")
    return tmp_path / "made"


def test_verbs_make_what_the_steps_of_a_recipe_make(place: Path, tmp_path: Path) -> None:
    corpora.write_recipe(tmp_path)
    text = corpora.RECIPE.partition("[steps.student]")[0]
    text = text.replace('data = "corpus"\n', 'data = "corpus"\nbatch_tokens = 128\n', 2)
    text += f"keep = {KEEP}\ntrim = {TRIM}\n"
    (tmp_path / "recipe.toml").write_text(text)
    run = run_recipe(tmp_path / "recipe.toml", out=tmp_path / "runs", quiet=True).folder
    for step in ("corpus", "by_teacher", "by_reference", "kept"):
        files = sorted((run / step).iterdir())
        assert sorted(file.name for file in (place / "made" / step).iterdir()) == [
            file.name for file in files
        ]
        for file in files:
            if file.suffix in (".safetensors", ".parquet"):
                assert file.read_bytes() == (place / "made" / step / file.name).read_bytes()


def _recipe(data: str = "", steps: str = "") -> str:
    return f"""name = "outside"
[data.mine]
source = "corpus"
path = "made/kept"
corpus = "made/corpus"
{data}
[steps.student]
run = "train"
model = "model"
data = "mine"
max_steps = 1
batch_size = 4
max_length = 24
evaluations = 1
precision = "fp32"
{steps}"""


VALIDATION = """[data.mine.validation]
source = "files"
path = "texts"
text = "text"
objective = "causal_lm"
"""
SCORES = """[steps.scores]
run = "evaluate"
models = ["student"]
data = "mine"
bootstrap = 100
memory = false
speed = false
"""


OF_A_SECOND_TABLE = """name = "seen"
[data.scored]
source = "corpus"
path = "made/corpus"
[data.mine]
source = "corpus"
path = "{}"
{}
[steps.reference]
run = "train"
model = "other"
data = "mine"
{}
max_steps = 1
max_length = 24
[steps.by_reference]
run = "score"
model = "reference"
data = "scored"
[steps.kept]
run = "select"
data = "scored"
teacher = "made/by_teacher"
reference = "by_reference"
"""


@pytest.mark.parametrize(
    ("path", "part", "wanted"),
    [
        ("made/corpus", "", "reads the part \"all\" of 'mine'"),
        ("./made/../made/corpus", 'part = "scored"', "reads the part \"scored\" of 'mine'"),
        ("copied", "", "reads the part \"all\" of 'mine'"),
        ('made/kept"\ncorpus = "made/corpus', "", "reads 'mine', which is selected from it"),
        ("made/corpus", 'part = "reserved"', None),
        ("made/second", "", None),
    ],
)
def test_a_reference_trained_on_what_it_scores_is_seen_by_what_the_folder_holds(
    place: Path, path: str, part: str, wanted: str | None
) -> None:
    if path == "copied":
        shutil.copytree(place / "made" / "corpus", place / "copied")
    text = OF_A_SECOND_TABLE.format(path, VALIDATION, part)
    if wanted is None:
        parse_recipe(text, path=place / "recipe.toml")
        return
    with pytest.raises(RecipeError, match=re.escape(wanted)):
        parse_recipe(text, path=place / "recipe.toml")


def test_scores_of_another_run_are_those_of_a_reference_from_outside(place: Path) -> None:
    text = OF_A_SECOND_TABLE.format("made/corpus", VALIDATION, 'part = "reserved"')
    outside = text.replace('reference = "by_reference"', 'reference = "made/by_reference"')
    assert outside != text
    found = list(outside_references(parse_recipe(outside, path=place / "recipe.toml")))
    assert len(found) == 1
    assert "'made/by_reference'" in found[0]


def test_a_model_is_trained_on_it_and_judged_by_its_validation_texts(place: Path) -> None:
    (place / "recipe.toml").write_text(_recipe(VALIDATION, SCORES))
    summary = run_recipe(place / "recipe.toml", out=place / "runs", quiet=True)
    kept = len(kept_rows(place / "made" / "kept"))
    data = summary.metrics("student")["data"]
    assert (data["train_rows"], data["validation_rows"] > 0) == (kept, True)
    assert summary.metrics("scores")["data"]["rows"] == 5
    planned = plan_recipe(parse_recipe(_recipe(VALIDATION)), place).steps[0].counts
    assert planned["data.train_rows"] == kept


def test_the_plan_of_a_score_knows_the_chunks_that_are_there(place: Path) -> None:
    text = 'name = "a"\n[data.mine]\nsource = "corpus"\npath = "made/corpus"\n' + (
        '[steps.s]\nrun = "score"\nmodel = "model"\ndata = "mine"\npart = "reserved"\n'
    )
    [planned] = plan_recipe(parse_recipe(text), place).steps
    corpus = open_published("made/corpus", place).corpus
    reserved = corpus.counts()["chunks_by_part"]["reserved"]
    assert planned.disk_mib == pytest.approx(reserved * 32 / 2**20)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _edit_result(folder: Path) -> None:
    file = folder / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"run": "select"}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda made: shutil.rmtree(made / "corpus"), "does not exist; name the folder"),
    "a run": (lambda made: (made / "corpus" / "result.json").unlink(), "holds no published step"),
    "file": (lambda made: (made / "corpus/00001.texts.parquet").unlink(), "00001.texts.parquet mi"),
    "tokens": (lambda made: _cut(made / "corpus/00001.tokens.safetensors"), "run the step 'token"),
    "texts": (lambda made: _cut(made / "corpus/00000.texts.parquet"), "shard 0 cannot be read"),
    "another": (
        lambda made: shutil.copy(
            made / "corpus/00000.texts.parquet", made / "corpus/00002.texts.parquet"
        ),
        "shard 2 has",
    ),
    "result": (lambda made: _edit_result(made / "corpus"), "was changed after it was written"),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("path", ["made/corpus", "made/kept"])
def test_a_damaged_folder_is_one_error_of_check(copy: Path, name: str, path: str) -> None:
    damage, said = DAMAGES[name]
    damage(copy)
    recipe = parse_recipe(_recipe(VALIDATION).replace("made/kept", path))
    with pytest.raises((ArtifactError, DataError), match=said) as caught:
        require_data(recipe, copy.parent)
    assert caught.value.exit_code == 3


def test_folders_that_are_none_say_what_is_there(copy: Path) -> None:
    with pytest.raises(DataError, match="a run with the steps by_reference, by_teacher, corpus, k"):
        open_published("made", copy.parent)
    with pytest.raises(DataError, match="made by a step that runs 'score'; name the folder of a"):
        open_published("made/by_teacher", copy.parent)
    with pytest.raises(DataError, match="which is not beside it; name its folder with corp"):
        open_published("made/kept", copy.parent)


def test_a_selection_finds_its_corpus_and_refuses_another(place: Path, copy: Path) -> None:
    made = open_published(place / "made" / "kept", Path(), str(copy / "corpus"))
    assert len(made.view()) == len(kept_rows(copy / "kept"))
    with pytest.raises(DataError, match=r"was selected from another corpus than .*second"):
        open_published("made/kept", copy.parent, "made/second")
    (copy / "corpus").rename(copy / "texts")  # what the selection's recipe called it
    assert open_published("made/kept", copy.parent).corpus.folder == copy / "texts"


def _keys(text: str, folder: Path) -> dict[str, str]:
    recipe = parse_recipe(text, path=folder / "recipe.toml")
    return {name: key.key for name, key in keys_of(recipe, recipe.order, folder).items()}


def test_what_the_chunks_are_is_in_a_key_and_where_they_lie_is_not(place: Path, copy: Path) -> None:
    shutil.copytree(place / "texts", copy.parent / "texts")
    shutil.copytree(place / "model", copy.parent / "model")
    text = _recipe(VALIDATION)
    key = _keys(text, place)
    assert _keys(text, copy.parent) == key
    shutil.move(copy, copy.parent / "moved")
    moved = text.replace('"made/', '"moved/')
    assert _keys(moved, copy.parent) == key
    assert _keys(moved.replace("moved/kept", "moved/corpus"), copy.parent) != key
    (copy.parent / "texts" / "validation.jsonl").write_text('{"text": "another one."}\n')
    assert _keys(moved, copy.parent) != key


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            'run = "score"\nmodel = "model"\ndata = "texts"',
            "data 'texts' has source = 'files', and",
        ),
        (
            'run = "score"\nmodel = "model"\ndata = "kept"',
            "step 'kept' runs 'select', and a corpus",
        ),
        ('run = "score"\nmodel = "model"\ndata = "mini"', "no .data.mini. .did you mean 'mine'"),
        ('run = "tokenize"\ntokenizer = "model"\ndata = "mine"', "has chunks already"),
        (
            'run = "train"\nmodel = "model"\ndata = "mine"',
            "and the corpus 'mine' has none; name some",
        ),
        (
            'run = "train"\nmodel = "model"\ndata = "web"',
            "on the hub is streamed; add a st",
        ),
    ],
)
def test_a_step_names_what_it_can_read(place: Path, steps: str, said: str) -> None:
    text = """name = "a"
    [data.mine]
    source = "corpus"
    path = "made/corpus"
    [data.texts]
    source = "files"
    path = "texts"
    objective = "causal_lm"
    [data.web]
    source = "hub"
    name = "some/texts"
    revision = "1234567890abcdef1234567890abcdef12345678"
    [steps.kept]
    run = "select"
    data = "mine"
    teacher = "made/by_teacher"
    reference = "made/by_reference"
    """
    parse_recipe(text, path=place / "a.toml")
    with pytest.raises(RecipeError, match=said):
        parse_recipe(f"{text}\n[steps.a]\n{steps}\n", path=place / "a.toml")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "made/by_nobody",
            "no step 'made/by_nobody'; this place needs a step that runs 'score', o",
        ),
        ("made/corpus", "'made/corpus' was made by a step that runs 'tokenize', not 'score'"),
        ("texts", "'texts' is not the folder of a step"),
    ],
)
def test_scores_of_another_run_are_the_folder_of_a_score_step(
    place: Path, word: str, said: str
) -> None:
    text = f"""name = "a"
    [data.mine]
    source = "corpus"
    path = "made/corpus"
    [steps.kept]
    run = "select"
    data = "mine"
    teacher = "{word}"
    reference = "made/by_reference"
    """
    with pytest.raises(RecipeError, match=said):
        parse_recipe(text, path=place / "a.toml")


def test_the_same_scores_twice_are_refused_as_in_a_recipe(place: Path) -> None:
    scores = str(place / "made" / "by_teacher")
    settings = {"data": f"corpus:{place / 'made/corpus'}", "teacher": scores, "reference": scores}
    with pytest.raises(RecipeError, match="are scores of one model, so every score would be 0"):
        run_one_step("select", settings, (), place / "no")


@pytest.mark.parametrize(
    "setting", ["train_rows = 5", "validation_rows = 5", "max_set_aside = 0.5"]
)
def test_chunks_are_not_limited_like_texts(setting: str) -> None:
    with pytest.raises(RecipeError, match=f"{setting.split()[0]} is a setting for texts"):
        parse_recipe(_recipe(setting))


def test_a_selection_is_no_corpus_to_score(place: Path) -> None:
    settings = {"data": f"corpus:{place / 'made/kept'}", "model": str(place / "model")}
    with pytest.raises(AttarError, match="is not a corpus"):
        run_one_step("score", settings, ["data.corpus=" + str(place / "made/corpus")], place / "no")


def test_peek_shows_the_highest_and_the_lowest_with_their_fates(place: Path) -> None:
    kept, corpus = place / "made" / "kept", str(place / "made" / "corpus")
    every = peek(kept, "first", 10**6, corpus=corpus, every_fate=True)
    metrics = read_result(kept).metrics
    assert [chunk.row for chunk in every] == sorted(chunk.row for chunk in every)
    fates = [chunk.fate for chunk in every]
    assert {fate: fates.count(fate) for fate in set(fates)} == metrics["fates"]
    assert all(chunk.score is not None for chunk in every)
    ranked = sorted(every, key=lambda chunk: -(chunk.score or 0))
    assert peek(kept, "best", 3, corpus=corpus, every_fate=True) == ranked[:3]
    assert peek(kept, "worst", 2, corpus=corpus, every_fate=True) == ranked[:-3:-1]
    shown = [chunk for chunk in ranked if chunk.fate == "kept"]
    assert peek(kept, "best", 3, corpus=corpus) == shown[:3]
    assert peek(kept, "worst", 10**6, corpus=corpus) == shown[::-1]
    assert ranked[0].fate == "trimmed"
    sea = peek(kept, "random", 10**6, "sea", corpus, every_fate=True)
    assert sea == [chunk for chunk in every if chunk.source == "sea"] != []


def test_peek_shows_the_texts_of_a_corpus(place: Path) -> None:
    folder = place / "made" / "corpus"
    shown = peek(folder, count=10**6)
    whole = open_published(folder, Path())
    assert [chunk.text for chunk in shown] == list(whole.view().all_texts())
    assert np.sum([chunk.tokens for chunk in shown]) == whole.corpus.counts()["tokens"]
    assert {chunk.part for chunk in shown} == {"scored", "reserved"}
    assert all(chunk.score is None and chunk.fate is None for chunk in shown)
    assert len(peek(folder, "random", 7)) == 7
    with pytest.raises(UsageError, match="no scores to sort by"):
        peek(folder, "best")
    with pytest.raises(UsageError, match="did you mean 'sea'"):
        peek(folder, source="sae")


SELECTED = """
[data.mine]
source = "corpus"
path = "made/corpus"
[data.mine.validation]
source = "files"
path = "texts"
text = "text"
objective = "causal_lm"
[steps.again]
run = "select"
data = "mine"
teacher = "made/by_teacher"
reference = "made/by_reference"
keep = 0.3
[steps.student]
run = "train"
model = "model"
data = "again"
max_steps = 1
batch_size = 4
max_length = 24
evaluations = 1
precision = "fp32"
[steps.files]
run = "export_data"
data = "again"
format = "jsonl"
"""


def test_a_selection_from_it_is_trained_on_and_exported(place: Path) -> None:
    (place / "selected.toml").write_text('name = "selected"\n' + SELECTED)
    summary = run_recipe(place / "selected.toml", out=place / "runs", quiet=True)
    kept = summary.metrics("again")["kept"]
    assert summary.metrics("student")["data"]["train_rows"] == kept
    assert summary.metrics("files")["rows"] == kept
    planned = plan_recipe(parse_recipe('name = "s"\n' + SELECTED, path=place / "a.toml"), place)
    assert planned.steps[1].counts["data.train_rows"] == kept
    assert all(
        step.reused for step in run_recipe(place / "selected.toml", out=place / "runs").steps
    )


@pytest.mark.slow
def test_a_verb_trains_random_weights_on_a_corpus_with_its_tokenizer_and_validation_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpora.write_documents(tmp_path / "texts")
    corpora.write_tokenizer(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    made = run_one_step("tokenize", corpora.SETTINGS, (), None, quiet=True).steps[0].folder
    words = ["train", "--size", "pico", "--data", str(made), "--part", "reserved", "--quiet"]
    words += ["--max-length", "24", "--max-tokens", "50", "--set", 'precision="fp32"']
    monkeypatch.setattr(sys, "argv", ["attar", *words, "--set", "evaluations=1"])
    with pytest.raises(SystemExit) as end:
        attar.cli.main()
    assert end.value.code == 0
    [folder] = (tmp_path / "runs").glob("train-*")
    saved = json.loads((folder / "recipe.json").read_text())["recipe"]
    assert saved["data"]["texts"]["validation"]["path"] == str(tmp_path / "texts")
    assert saved["steps"]["train"]["model"]["tokenizer"] == str(made)
    assert read_result(folder / "train").metrics["data"]["validation_rows"] > 0
    text = recipe_text("train", {"data": f"corpus:{made}", "model": "model"})
    parse_recipe(text, ["data.texts.validation.path=elsewhere"])


def test_the_advice_for_a_corpus_without_validation_texts_works_when_it_is_copied(
    place: Path, tmp_path: Path
) -> None:
    settings = {"data": str(place / "made" / "corpus"), "model": str(place / "model")}
    with pytest.raises(RecipeError, match="has none; name some") as caught:
        run_one_step("train", settings, (), tmp_path)
    advice = str(caught.value).partition("--set '")[2].partition("'\n")[0].rstrip("'")
    with pytest.raises(DataError, match=r"no data file at .*texts"):  # of the advice's own table
        run_one_step("train", settings, [advice], tmp_path, quiet=True)


def test_the_folder_of_chunks_is_exported_as_chunks_without_further_words(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["attar", "export", *words, "--out", str(tmp_path)])
        with pytest.raises(SystemExit):
            attar.cli.main()
        return "".join(capsys.readouterr())

    chunks = str(place / "made" / "corpus")
    said = export("--data", chunks)
    rows = len(open_published(chunks, Path()).view())
    assert f"rows {rows}" in " ".join(said.split())
    [folder] = tmp_path.glob("export_data-*/export_data")
    assert str(folder) in said
    assert read_result(folder).metrics["format"] == "dataset"
    assert "not one of 'jsonl', 'parquet' or 'dataset'" in export(
        "--data", chunks, "--format", "jsonl.zst"
    )
    assert "nothing to export: give --model" in export(
        "--data", str(place / "texts"), "--format", "jsonl"
    )


def test_one_verb_exports_it(place: Path) -> None:
    settings = {"data": f"corpus:{place / 'made/corpus'}", "format": "parquet"}
    summary = run_one_step("export_data", settings, (), place / "runs", quiet=True)
    assert summary.metrics("export_data")["rows"] == len(
        open_published("made/corpus", place).view()
    )
    assert "rows" in summary.text()


def test_a_selection_from_a_corpus_without_validation_texts_is_not_trained_on(place: Path) -> None:
    text = 'name = "s"\n' + SELECTED.replace(
        SELECTED[SELECTED.index("[data.mine.v") : SELECTED.index("[steps.again")], ""
    )
    with pytest.raises(RecipeError, match="the corpus 'mine' has none; name some"):
        parse_recipe(text, path=place / "a.toml")


def test_the_peek_verb_prints_kept_chunks_without_torch(place: Path) -> None:
    kept, corpus = place / "made" / "kept", place / "made" / "corpus"
    code = (
        "import sys; from attar.cli import main\n"
        "try: main()\nexcept SystemExit as end: code = end.code\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}; sys.exit(code)"
    )
    words = ["peek", str(kept), "--best", "-n", "2", "--corpus", str(corpus)]
    printed, plain, wrong = (
        subprocess.run(
            [sys.executable, "-c", code, *words, *more], capture_output=True, text=True, check=False
        )
        for more in ([], ["--json"], ["--worst"])
    )
    shown = json.loads(plain.stdout)
    assert [chunk["row"] for chunk in shown] == [
        chunk.row for chunk in peek(kept, "best", 2, corpus=str(corpus))
    ]
    assert printed.stdout.count("nats per token) · ") == 2
    assert (wrong.returncode, "--best and --worst exclude each other" in wrong.stderr) == (2, True)


def _reverse_scores(file: Path) -> None:
    arrays = load_file(file)
    save_file({**arrays, "log_p": arrays["log_p"][::-1].copy()}, file)


def _turn(file: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _edit_about(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_length": 23}))


CHANGES: dict[str, Callable[[Path], None]] = {
    "by_teacher/00001.scores.safetensors": _reverse_scores,
    "kept/kept.safetensors": _turn,
    "kept/rejected.parquet": _turn,
    "corpus/corpus.json": _edit_about,
    "corpus/00001.tokens.safetensors": _turn,
    "corpus/00000.texts.parquet": _turn,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_in_it_ends_a_run_before_it_begins(copy: Path, name: str) -> None:
    corpora.write_model(copy.parent / "model")
    text = f"""name = "s"\n{SELECTED.partition("[steps.student]")[0]}
    [data.kept]
    source = "corpus"
    path = "made/kept"
    corpus = "made/corpus"
    [steps.files]
    run = "export_data"
    data = "kept"
    format = "jsonl"
    """
    corpora.write_documents(copy.parent / "texts")
    _keys(text, copy.parent)
    CHANGES[name](copy / name)
    (copy.parent / "recipe.toml").write_text(text)
    with pytest.raises(ArtifactError) as caught:
        run_recipe(copy.parent / "recipe.toml", out=copy.parent / "runs", quiet=True)
    step, _, file = name.partition("/")
    assert f"{copy / step} is damaged: {file} was changed" in str(caught.value)
    assert not list((copy.parent / "runs").glob("*/*/result.json"))


def test_large_files_of_it_are_hashed_by_what_remembers_hashes(copy: Path) -> None:
    asked: list[Path] = []

    def sha256(file: Path) -> str:
        asked.append(file)
        return sha256_of(file)

    config = CorpusData(path="made/kept", corpus="made/corpus")
    data = data_fingerprint(config, copy.parent, sha256)
    assert data == data_fingerprint(config, copy.parent)
    prints = room_fingerprints(sha256)
    prints.published("made/by_teacher", copy.parent)
    folders = [copy / name for name in ("corpus", "kept", "by_teacher")]
    assert sorted(asked) == sorted(f / name for f in folders for name in read_result(f).files)


@pytest.mark.parametrize("name", ["kept.safetensors", "rejected.parquet", "kept.json"])
def test_a_changed_selection_is_not_shown(copy: Path, name: str) -> None:
    _turn(copy / "kept" / name)
    with pytest.raises(ArtifactError, match=f"{name} was changed after it was written"):
        peek(copy / "kept", corpus=str(copy / "corpus"))
