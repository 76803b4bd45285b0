"""Row 31: a changed recipe says which setting changed, and what it replaces is kept until the new
run has ended well."""

from __future__ import annotations

from pathlib import Path

import pytest

from attar.artifacts import verify
from attar.errors import GateMissedError
from attar.recipe.keys import Fingerprints
from attar.recipe.load import parse_recipe
from attar.recipe.running.intents import intents_in
from engine_steps import FINGERPRINTS, KINDS, RECIPE, run_small

FASTER = RECIPE.replace(
    'model = { from = "teacher", keep_blocks = [1] }',
    'model = { from = "teacher", keep_blocks = [1] }\nlearning_rate = 3e-4',
)
OTHER_SEED = RECIPE.replace("seed = 3", "seed = 4")
GATE = '[[gates]]\nmetric = "scores.int8.accuracy"\nat_least = {}\n'
NAMES = ("teacher", "student", "int8", "scores", "report")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run_small(tmp_path / "small")
    return tmp_path / "small"


def artifacts(folder: Path) -> dict[str, str]:
    """Step → key, every byte verified."""
    return {name: verify(folder / name).key for name in NAMES}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FASTER, "student  replace  learning_rate 5e-05 → 0.0003"),
        (FASTER, "int8     replace  its input 'student' has changed"),
        (OTHER_SEED, "teacher  replace  seed 3 → 4"),
        (OTHER_SEED, "student  replace  seed 3 → 4; its input 'teacher' has changed"),
        (
            RECIPE.replace('"stdlib_docs"', '"stdlib_docs"\nvalidation_rows = 5'),
            "teacher  replace  data.docs.validation_rows not set → 5",
        ),
        (FASTER + GATE.format(0.01), "report   replace  another part of the recipe has changed"),
    ],
)
def test_what_changed_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    if said.startswith("report"):
        run_small(folder, FASTER)
    run_small(folder, text, quiet=False)
    told = capsys.readouterr().err
    assert f"\n  {said}\n" in f"\n{told}"
    assert "replaced artifacts are kept in .replaced until the run has ended well" in told
    assert told.index(said) < told.index("step 1/5")


def test_other_content_of_data_or_model_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Fingerprints(
        model=lambda word, folder: "other weights",
        tokenizer=FINGERPRINTS.tokenizer,
        data=lambda config, folder: "other rows",
    )
    run_small(folder, quiet=False, fingerprints=other)
    said = capsys.readouterr().err
    assert (
        "  teacher  replace  the files of model 'demo:minilm-l6' "
        f"({FINGERPRINTS.model('demo:minilm-l6', folder)} → other weights); "
        "the content of data 'docs' (data stdlib_docs → other rows)\n"
    ) in said


def test_a_run_that_ends_well_keeps_nothing_of_the_old_one(folder: Path) -> None:
    run_small(folder, FASTER)
    assert not (folder / ".replaced").exists()


def test_what_is_replaced_can_be_kept_for_good_and_is_taken_back_when_wanted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = artifacts(folder)
    run_small(folder, FASTER, keep_replaced=True, quiet=False)
    assert f"kept: {folder / '.kept' / 'student'}-{before['student']}" in capsys.readouterr().err
    run_small(folder, FASTER.replace("seed = 3", "seed = 4"))  # ends well and forgets only its own
    kept = {path.name for path in (folder / ".kept").iterdir()}
    assert kept == {f"{name}-{before[name]}" for name in NAMES if name != "teacher"}
    steps = run_small(folder, keep_replaced=True).steps
    assert [step.name for step in steps if not step.reused] == ["teacher"]
    assert artifacts(folder) == before


def test_the_list_of_a_plan_is_that_of_the_run(folder: Path) -> None:
    """Also of an artifact that waits where it was put when another replaced it."""
    run_small(folder, FASTER + GATE.format(2), enforce_gates=False)
    for text, actions in ((RECIPE, ["reuse"] * 5), (FASTER, ["reuse"] * 4 + ["replace"])):
        found = intents_in(
            folder, parse_recipe(text), folder, kinds=KINDS, fingerprints=FINGERPRINTS
        )
        assert [intent.action for intent in found] == actions
    assert found[-1].changes == ("another part of the recipe has changed",)


def fail(*_: object) -> None:
    raise ZeroDivisionError


def test_a_run_that_fails_keeps_what_it_replaced_and_the_earlier_recipe_takes_it_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = artifacts(folder)
    with monkeypatch.context() as patch:
        patch.setattr("engine_steps.evaluate", fail)
        for _ in range(2):  # failing twice loses no more than failing once
            with pytest.raises(ZeroDivisionError):
                run_small(folder, FASTER)
    kept = {path.name for path in (folder / ".replaced").iterdir()}
    assert kept == {f"{name}-{before[name]}" for name in ("student", "int8")}
    assert [step.name for step in run_small(folder).steps if not step.reused] == []
    assert artifacts(folder) == before
    assert not (folder / ".replaced").exists()


def test_the_new_run_goes_on_after_the_earlier_one_was_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back and forth between two recipes that both miss their gate: nothing is made twice."""
    first, second = RECIPE + GATE.format(2), FASTER + GATE.format(2)
    for text in (first, second):
        with pytest.raises(GateMissedError):
            run_small(folder, text)
    for text in (first, second, first):
        steps = run_small(folder, text, enforce_gates=False).steps
        assert [step.name for step in steps if not step.reused] == []


def test_what_is_kept_behind_a_missed_gate_is_said_with_its_size(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It grows with every change, so a disk could fill unseen."""
    run_small(folder, FASTER + GATE.format(2), enforce_gates=False, quiet=False)
    kept = [path for path in (folder / ".replaced").rglob("*") if path.is_file()]
    mib = sum(path.stat().st_size for path in kept if path.name != "result.json") / 2**20
    said = f".replaced keeps 4 replaced artifacts ({mib:,.1f} MiB) until all gates pass; remove it"
    assert said in capsys.readouterr().err


def test_a_kept_artifact_that_was_damaged_is_made_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_small(folder, FASTER + GATE.format(2), enforce_gates=False)
    (damaged,) = (folder / ".replaced").glob("int8-*")
    (damaged / "weights").write_bytes(b"other")
    steps = run_small(folder).steps
    assert [step.name for step in steps if not step.reused] == ["int8"]
    assert "step 'int8' is not reused from" in capsys.readouterr().err
