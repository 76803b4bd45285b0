"""A run goes on from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attar.errors import ArtifactError, UsageError
from attar.recipe.load import load_recipe, parse_recipe, read_text
from attar.recipe.run import resume_run, run_recipe
from attar.recipe.running.saved import Saved, Source, changed_since, read_saved, save
from engine_steps import FINGERPRINTS, KINDS, RECIPE, run_small


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    text = RECIPE + '[sweep]\nsteps = ["student"]\nseed = [0, 1]\n'
    source = Source(tmp_path, tmp_path / "r.toml", text, ("seed=5",))
    saved = Saved(
        parse_recipe(text, ["seed=5"]), source, {"teacher": "k"}, {"teacher": {"seed": 5}}
    )
    save(tmp_path, saved)
    assert read_saved(tmp_path) == saved
    assert (tmp_path / "recipe.toml").read_text() == text


@pytest.mark.parametrize("recipe", ["demo", "sst2", "mrpc"])
def test_every_shipped_recipe_survives_being_saved(
    repository: Path, tmp_path: Path, recipe: str
) -> None:
    loaded = load_recipe(repository / "recipes" / f"{recipe}.toml")
    save(tmp_path, Saved(loaded, Source(tmp_path)))
    assert read_saved(tmp_path).recipe == loaded


def test_overrides_and_relative_paths_survive(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    run_small(folder, overrides=["steps.int8.weight_bits=4"])
    saved = read_saved(folder)
    assert saved.recipe.steps["int8"].weight_bits == 4  # type: ignore[union-attr]
    assert saved.source.recipe_folder == tmp_path
    assert set(saved.keys) == {"teacher", "student", "int8", "scores", "report"}


def test_a_recipe_that_was_edited_since_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(RECIPE)
    source = Source(tmp_path, file, RECIPE)
    assert not changed_since(source)
    file.write_text(RECIPE.replace("seed = 3", "seed = 4"))
    assert changed_since(source)
    file.unlink()
    assert changed_since(source)
    assert not changed_since(Source(tmp_path))


def test_windows_line_ends_are_no_change(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_bytes(RECIPE.replace("\n", "\r\n").encode())
    assert not changed_since(Source(tmp_path, file, read_text(file)))


def test_resume_goes_on_with_the_recipe_the_run_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import attar.recipe.run as run_module

    run = run_module.run_resolved

    def with_small_steps(*arguments: object, **settings: object) -> object:
        return run(*arguments, kinds=KINDS, fingerprints=FINGERPRINTS, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "run_resolved", with_small_steps)
    file = tmp_path / "small.toml"
    file.write_text(RECIPE)
    first = run_recipe(file, out=tmp_path / "runs", overrides=["seed=9"], quiet=True)
    assert first.folder == tmp_path / "runs" / "small"
    again = resume_run(first.folder, quiet=True)
    assert [step.reused for step in again.steps] == [True] * 5
    assert "not what this run began with" not in capsys.readouterr().err
    file.write_text(RECIPE.replace("seed = 3", "seed = 4"))
    assert resume_run(first.folder, quiet=True).steps[0].reused
    assert "(its text only); continuing with the saved" in capsys.readouterr().err
    file.write_text(RECIPE.replace('"minmax"', '"minmax"\nweight_bits = 4'))
    again = resume_run(first.folder, quiet=True)
    assert [step.reused for step in again.steps] == [True] * 5
    told = "not what this run began with (steps.int8.weight_bits 8 → 4); continuing with the saved"
    assert told in capsys.readouterr().err
    file.unlink()
    assert resume_run(first.folder, quiet=True).steps[0].reused
    assert "(cannot be read); continuing with the saved" in capsys.readouterr().err


def test_a_folder_of_another_version_or_a_damaged_one_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not the folder of a run"):
        read_saved(tmp_path)
    save(tmp_path, Saved(parse_recipe(RECIPE), Source(tmp_path)))
    file = tmp_path / "recipe.json"
    content = json.loads(file.read_text())
    content["recipe"]["steps"]["teacher"]["from_the_future"] = 1
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="does not fit this version of attar"):
        read_saved(tmp_path)
    file.write_text("[]")
    with pytest.raises(ArtifactError, match="does not fit this version of attar"):
        read_saved(tmp_path)
