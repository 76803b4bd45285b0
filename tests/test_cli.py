"""The command line's contract, through the installed command: exit codes, what goes to stdout and
what to stderr, and a message instead of a traceback for whatever a user can do wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import attar as library
from attar import cli
from tiny_recipe import MISSED_GATE, NAME, STEPS, TinyRun, attar, command, write

TEXTS = ("a good film", "the great movie is not good to you and it is not poor", "bad")


@pytest.fixture
def copy(tiny_run: TinyRun, tmp_path: Path) -> TinyRun:
    """The finished run, to be damaged or gone on with."""
    shutil.copytree(tiny_run.folder, tmp_path / "runs" / NAME)
    return TinyRun(tiny_run.recipe, tmp_path / "runs" / NAME, tiny_run.finished)


def error_of(finished: subprocess.CompletedProcess[str], exit_code: int) -> str:
    """The message of a command that must have failed with `exit_code` and said nothing else."""
    assert finished.returncode == exit_code, finished.stderr
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    assert finished.stderr.startswith("error: ")
    return finished.stderr


def test_a_run_prints_json_on_stdout_and_progress_on_stderr(tiny_run: TinyRun) -> None:
    assert tiny_run.finished.returncode == 0, tiny_run.finished.stderr
    summary = json.loads(tiny_run.finished.stdout)
    assert tuple(step["name"] for step in summary["steps"]) == STEPS
    assert summary["folder"] == str(tiny_run.folder)
    for number, name in enumerate(STEPS, start=1):
        assert f"step {number}/{len(STEPS)} {name} " in tiny_run.finished.stderr


def test_a_missed_gate_ends_with_6_and_still_prints_the_result(copy: TinyRun) -> None:
    out = copy.folder.parent
    finished = attar("run", copy.recipe, "--out", out, "--set", MISSED_GATE, "--json", "--quiet")
    assert finished.returncode == 6
    summary = json.loads(finished.stdout)
    assert [gate["passed"] for gate in summary["gates"]] == [False]
    made = [step["name"] for step in summary["steps"] if not step["reused"]]
    assert made == ["report"]
    assert finished.stderr.startswith("error: 1 of 1 gates missed, everything is saved: scores.")
    resumed = attar("resume", copy.folder, "--quiet")
    assert resumed.returncode == 6
    assert "gate MISSED: scores.deploy.accuracy = " in resumed.stdout
    assert "gate MISSED" in attar("status", copy.folder).stdout


def test_a_damaged_artifact_ends_with_3_and_is_named(copy: TinyRun) -> None:
    weights = copy.folder / "student" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    finished = attar("run", copy.recipe, "--out", copy.folder.parent)
    assert "model.safetensors" in error_of(finished, 3)


def test_all_mistakes_of_a_recipe_come_at_once_and_debug_adds_the_traceback(
    tmp_path: Path, repository: Path
) -> None:
    text = (repository / "recipes" / "demo.toml").read_text()
    wrong = text.replace("epochs = 3", "epohcs = 3").replace('"percentile"', '"percentil"')
    (tmp_path / "wrong.toml").write_text(wrong)
    said = error_of(attar("check", tmp_path / "wrong.toml"), 2)
    assert "3 mistakes" in said
    assert said.count("(did you mean 'epochs'?)") == 2
    assert "(did you mean 'percentile'?)" in said
    debugged = attar("check", tmp_path / "wrong.toml", "--debug")
    assert debugged.returncode == 2
    assert "Traceback" in debugged.stderr
    assert debugged.stderr.endswith(said)


def test_check_looks_whether_the_data_that_is_read_is_there(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    assert "fine" in attar("check", recipe).stdout
    said = error_of(attar("check", recipe, "--set", "data.films.path=elsewhere"), 3)
    assert "elsewhere" in said
    recipe.write_text(recipe.read_text() + '[data.unused]\nsource = "files"\npath = "elsewhere"\n')
    assert "fine" in attar("check", recipe).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run", "RECIPE", "--frobnicate"], "No such option: --frobnicate"),
        (["run"], "Missing argument"),
        (
            ["quantize", "--model", "a", "--data", "b", "--weight-bits", "9"],
            "should be less than or equal to 8",
        ),
        (["export", "--model", "a"], "Missing option '--data'"),
        (["check", "FOLDER"], "is a folder; a recipe is a TOML file"),
        (["check", "FOLDER/none.toml"], "does not exist"),
        (["status", "FOLDER"], "is not the folder of a run"),
        (["resume", "FOLDER"], "is not the folder of a run"),
        (
            ["train", "--model", "none", "--data", "FOLDER", "--epochs", "nan"],
            "not a finite number",
        ),
    ],
)
def test_a_usage_mistake_ends_with_2_and_says_what_is_wrong(
    words: list[str], said: str, tmp_path: Path, repository: Path
) -> None:
    recipe = str(repository / "recipes" / "demo.toml")
    places = [w.replace("FOLDER", str(tmp_path)).replace("RECIPE", recipe) for w in words]
    finished = attar(*places, cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "runs").exists()


def test_predict_answers_texts_and_lines_as_the_library_does(tiny_run: TinyRun) -> None:
    folder = tiny_run.folder / "deploy"
    lines = [*TEXTS, "", "a film\ta good one", "good " * 100]
    expected = [one.scores for one in library.load(folder, threads=1).predict(lines)]
    as_words = attar("predict", folder, *lines, "--threads", "1", "--json")
    # A blank line is a text, \r\n ends a line too, and a vertical tab ends none.
    piped = "\ufeff" + "\r\n".join(lines[:3]) + "\n" + "\n".join(lines[3:]) + "\n"
    as_lines = attar("predict", folder, "--threads", "1", "--json", input=piped)
    for finished in (as_words, as_lines):
        assert finished.returncode == 0, finished.stderr
        answers = [json.loads(line) for line in finished.stdout.splitlines()]
        assert [answer["text"] for answer in answers] == lines
        assert [answer["scores"] for answer in answers] == expected
        said = "warning: 1 of 6 texts have more than 24 tokens and were truncated"
        assert finished.stderr.strip() == said
    spoken = attar("predict", folder, "a good\vfilm", "bad").stdout.splitlines()
    assert len(spoken) == 2
    assert spoken[0].split()[0] in ("bad", "good")
    assert spoken[0].endswith(" ms")


def test_predict_without_usable_text_says_so(tiny_run: TinyRun) -> None:
    folder = tiny_run.folder / "deploy"
    assert "empty stdin" in error_of(attar("predict", folder, input=""), 2)
    assert len(attar("predict", folder, input="\n \n").stdout.splitlines()) == 2
    broken = error_of(attar("predict", folder, input="fine\n\udcff\n", errors="surrogateescape"), 2)
    assert "line 2: byte 0xff is not UTF-8" in broken
    said = error_of(attar("predict", folder, "a film", "\udcff"), 2)
    assert "text 2 of 2 is not UTF-8" in said
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *command("predict", folder)]
    finished = subprocess.run(closed, capture_output=True, text=True, check=False)
    assert "predict has no text" in error_of(finished, 2)


def test_predict_of_a_folder_that_was_not_exported_says_what_to_name(tiny_run: TinyRun) -> None:
    for folder in (tiny_run.folder / "student", tiny_run.folder / "none"):
        said = error_of(attar("predict", folder, "a film"), 3)
        assert "name the folder of a step that exports" in said


def test_a_reader_that_leaves_early_is_no_failure(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a good film\n" * 6000)  # more than a pipe holds
    script = '"$@" < lines | head -n 1; exit ${PIPESTATUS[0]}'
    words = ["bash", "-c", script, "bash", *command("predict", tiny_run.folder / "deploy")]
    finished = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0
    assert finished.stderr == ""
    assert len(finished.stdout.splitlines()) == 1


def test_status_report_and_resume_of_a_finished_run(copy: TinyRun) -> None:
    status = json.loads(attar("status", copy.folder, "--json").stdout)
    assert {step["state"] for step in status["steps"]} == {"done"}
    for option in ((), ("--verify",)):
        assert "7 of 7 steps done" in attar("status", copy.folder, *option).stdout
    page = copy.folder / "report" / "index.html"
    written = page.read_bytes()
    page.write_text("scribbled over")
    assert json.loads(attar("report", copy.folder, "--json").stdout) == {"report": str(page)}
    assert len(page.read_bytes()) == pytest.approx(len(written), rel=0.01)
    resumed = json.loads(attar("resume", copy.folder, "--json", "--quiet").stdout)
    assert all(step["reused"] for step in resumed["steps"])


def test_one_step_needs_no_recipe_and_leaves_a_run_that_resume_knows(tmp_path: Path) -> None:
    write(tmp_path)
    words = ["train", "--model", "bert", "--data", "films", "--batch-size", "8"]
    for override in ("max_steps=1", "max_length=24", "data.train_rows=16", "seed=5"):
        words += ["--set", override]
    finished = attar(*words, "--json", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    [step] = summary["steps"]
    assert step["metrics"]["steps"] == 1
    assert step["metrics"]["data"]["train_rows"] == 16
    folder = Path(summary["folder"])
    assert folder.parent == tmp_path / "runs"
    assert json.loads((folder / "recipe.json").read_text())["recipe"]["seed"] == 5
    assert "step 1/1 train" in finished.stderr
    quiet = attar(*words, "--quiet", "--json", cwd=tmp_path)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    again = json.loads(attar("resume", folder, "--json", "--quiet", cwd="/").stdout)
    assert [step["reused"] for step in again["steps"]] == [True]


@pytest.mark.parametrize(
    ("raised", "exit_code", "said"),
    [
        (
            ZeroDivisionError("on purpose"),
            1,
            "this is a bug in attar, not your mistake (ZeroDivision",
        ),
        (KeyboardInterrupt(), 130, "interrupted; finished steps are intact"),
        (signal.SIGTERM, 75, "stopped by SIGTERM; finished steps are intact"),
    ],
)
def test_a_bug_ends_with_1_and_its_traceback_and_a_stop_says_how_to_go_on(
    raised: BaseException | signal.Signals,
    exit_code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load_recipe(*_: object) -> None:
        if isinstance(raised, BaseException):
            raise raised
        os.kill(os.getpid(), raised)

    before = signal.getsignal(signal.SIGTERM)

    monkeypatch.setattr("attar.recipe.load.load_recipe", load_recipe)
    monkeypatch.setattr("sys.argv", ["attar", "check", "recipe.toml"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    signal.signal(signal.SIGTERM, before)
    assert end.value.code == exit_code
    said_in_all = capsys.readouterr().err
    assert said in said_in_all
    assert ("Traceback" in said_in_all) == (exit_code == 1)


def test_help_names_every_verb(tmp_path: Path) -> None:
    finished = attar("--help", env={**os.environ, "COLUMNS": "200"})
    assert finished.returncode == 0
    assert attar("--version").stdout == f"attar {library.__version__}\n"
    verbs = [line.split()[0] for line in finished.stdout.partition("Commands:")[2].splitlines()[1:]]
    assert set(verbs) == {
        *("new", "run", "check", "plan", "status", "resume", "predict"),
        *("explain", "schema", "push"),
        *("tokenize", "score", "select", "generate", "peek"),
        *("train", "analyze", "quantize", "export", "evaluate", "report"),
    }


@pytest.mark.parametrize("verb", ["train", "analyze", "quantize", "export", "evaluate"])
def test_every_verb_that_runs_a_step_can_be_quiet(verb: str) -> None:
    finished = attar(verb, "--help", env={**os.environ, "COLUMNS": "200"})
    assert "--quiet" in finished.stdout
