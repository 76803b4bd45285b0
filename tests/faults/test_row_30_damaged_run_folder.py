"""Row 30, of a whole run's folder: whatever was damaged in it, run, resume, status and report end
well or with exit code 2, 3 or 4 and one message."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import attar.recipe.run as run_module
from attar.artifacts import result_hash
from attar.errors import ArtifactError, AttarError
from attar.recipe.outcome.status import status_of
from attar.recipe.report_again import report_again
from attar.recipe.run import resume_run
from attar.recipe.running.saved import read_saved
from engine_steps import FINGERPRINTS, KINDS, RECIPE, run_small

TEXT = (
    RECIPE
    + '[[gates]]\nmetric = "scores.teacher.size_mib"\nat_least = 0\n'
    + '[sweep]\nsteps = ["int8"]\nweight_bits = [4, 8]\n'
)
FILES = ("recipe.json", "gates.json", "sweep.json", "teacher/result.json")
BYTES: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "not JSON": b"{",
    "deep": b"[" * 100_000,
    "digits": b'{"recipe": ' + b"9" * 5000 + b"}",
    "a list": b"[]",
    "a number": b"NaN",
    "surrogate": b'{"recipe": "\\ud800"}',
}
STRANGE = (None, True, -1, 1e308, "", "x" * 1000, "\x00", [], [[]], {}, {"": {}}, ["a"], "teacher")
MUTATIONS = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Copied by each test."""
    folder = tmp_path_factory.mktemp("whole") / "small"
    run_small(folder, TEXT)
    return folder


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Path], object]]:
    """What a user can do with a run's folder."""
    run = run_module.run_resolved
    given = {"kinds": KINDS, "fingerprints": FINGERPRINTS, "estimates": {}}
    monkeypatch.setattr(run_module, "run_resolved", lambda *a, **k: run(*a, **{**given, **k}))
    return [
        lambda folder: (status_of(folder).text(), status_of(folder).as_json()),
        lambda folder: resume_run(folder, quiet=True).text(),
        lambda folder: report_again(folder, quiet=True, kinds=KINDS),
        lambda folder: run_small(folder, TEXT).text(),
    ]


def try_all(folder: Path, whole: Path, verbs: list[Callable[[Path], object]], damage: Any) -> int:
    """Damage a fresh copy for every verb; how many refused."""
    refused = 0
    for verb in verbs:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        damage(folder)
        try:
            verb(folder)
        except AttarError as error:
            assert error.exit_code in (2, 3, 4), error
            assert len(str(error)) < 5000
            refused += 1
    return refused


@pytest.mark.parametrize("file", FILES)
def test_damaged_bytes_end_well_or_with_a_message(
    tmp_path: Path, whole: Path, verbs: list[Callable[[Path], object]], file: str
) -> None:
    refused = {
        name: try_all(
            tmp_path / "small", whole, verbs, lambda f, c=content: (f / file).write_bytes(c)
        )
        for name, content in BYTES.items()
    }
    if file == "recipe.json" or file.startswith("teacher"):
        assert min(refused.values()) >= 2, refused


def places_in(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of plain data but the whole."""
    if isinstance(content, list):
        inner = list(enumerate(content))
    else:
        inner = list(content.items()) if isinstance(content, dict) else []
    return [p for k, v in inner for p in ((*place, k), *places_in(v, (*place, k)))]


def mutated(content: Any, draw: random.Random) -> Any:
    """One value of it is another, or gone."""
    content = copy.deepcopy(content)
    *way, last = draw.choice(places_in(content))
    here = content
    for step in way:
        here = here[step]
    if draw.random() < 0.25:
        del here[last]
    else:
        here[last] = draw.choice(STRANGE)
    return content


@pytest.mark.parametrize("file", ["recipe.json", "gates.json", "teacher", "scores"])
def test_a_changed_value_ends_well_or_with_a_message(
    tmp_path: Path, whole: Path, verbs: list[Callable[[Path], object]], file: str
) -> None:
    """Results are sealed anew, as if they had been written so."""
    draw = random.Random(0)
    is_step = "." not in file
    names = ["scores@weight_bits=4" if file == "scores" else file] if is_step else [file]
    where = f"{names[0]}/result.json" if is_step else file
    original = json.loads((whole / where).read_text())

    def damage(folder: Path) -> None:
        content = mutated(original, draw)
        if is_step:
            content["sha256"] = result_hash(content)
        (folder / where).write_text(json.dumps(content))

    for _ in range(MUTATIONS // len(verbs)):
        try_all(tmp_path / "small", whole, verbs, damage)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["steps"]["teacher"].update(model="student"), "cycle: teacher → student"),
        (lambda r: r["steps"]["teacher"].update(data="gone"), "'teacher' names 'gone', which is"),
        (lambda r: r["steps"]["student"].update(data="gone"), "'student' names 'gone'"),
        (lambda r: r["sweep"].update(steps=["gone"]), "no step 'gone'"),
        (lambda r: r.update(steps={}), "does not fit this version"),
    ],
)
def test_a_saved_recipe_that_cannot_have_been_run_is_damage(
    tmp_path: Path, whole: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    content = json.loads((whole / "recipe.json").read_text())
    change(content["recipe"])
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=said):
        read_saved(tmp_path)
