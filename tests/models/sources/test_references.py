"""From a word to a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from attar.errors import ArtifactError, ModelError, UsageError
from attar.models.load import load_model
from attar.models.sources.references import model_fingerprint, resolve_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def into_hub_cache(model: Path, cache: Path, name: str) -> Path:
    """Lay a model out as the hub's own cache does: files are links from a snapshot to blobs."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    for folder in (snapshot, blobs, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in model.iterdir():
        shutil.copy(file, blobs / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"blob-{file.name}")
    return snapshot


def test_a_step_wins_over_a_folder_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    artifact = tmp_path / "runs" / "teacher"
    (artifact / "model").mkdir(parents=True)
    assert resolve_model("teacher", {"teacher": artifact}, tmp_path) == artifact / "model"
    assert resolve_model("teacher", {}, tmp_path) == tmp_path / "teacher"


def test_a_folder_is_found_relative_to_the_recipe(tmp_path: Path, tiny_bert: Path) -> None:
    recipe_folder = tmp_path / "recipes"
    recipe_folder.mkdir()
    shutil.copytree(tiny_bert, tmp_path / "models" / "small")
    found = resolve_model("../models/small", {}, recipe_folder)
    assert found.resolve() == tmp_path / "models" / "small"
    assert resolve_model(str(tiny_bert), {}, recipe_folder) == tiny_bert


def test_a_hub_id_is_taken_from_the_cache_when_offline(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = into_hub_cache(tiny_bert, tmp_path, "someone/small")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = resolve_model("someone/small", {}, tmp_path)
    assert found == snapshot
    assert load_model(found).model.config.num_hidden_layers == 2
    assert model_fingerprint("someone/small", tmp_path) == model_fingerprint(
        str(tiny_bert), tmp_path
    )


@pytest.mark.parametrize("word", ["nobody/nothing", "techer"])
def test_an_unknown_word_is_answered_with_everything_that_was_tried(
    word: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_model(word, {"teacher": tmp_path}, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / word) in message
    assert "a step (there are: teacher)" in message
    assert f"hub id '{word}'" in message and "HF_HUB_OFFLINE" in message
    assert ("did you mean 'teacher'" in message) == (word == "techer")


def test_a_word_that_is_no_hub_id_never_reaches_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a hub id either"):
        resolve_model("./missing folder", {}, tmp_path)


def test_an_unknown_demo_model_is_answered_with_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'minilm-l6'"):
        resolve_model("demo:minilm-16", {}, tmp_path)


def test_the_fingerprint_follows_content_and_nothing_else(tmp_path: Path, tiny_bert: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    shutil.copytree(tiny_bert, one)
    shutil.copytree(tiny_bert, two)
    (two / "README.md").write_text("about")
    (two / "pytorch_model.bin").write_bytes(b"never read")
    before = model_fingerprint("one", tmp_path)
    assert before == model_fingerprint("two", tmp_path)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        original = (two / name).read_bytes()
        (two / name).write_bytes(original[:-2] + b" }")
        assert model_fingerprint("two", tmp_path) != before, name
        (two / name).write_bytes(original)
    assert model_fingerprint("two", tmp_path) == before


def test_a_model_that_could_not_be_loaded_has_no_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        model_fingerprint("empty", tmp_path)
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ArtifactError, match=r"no model\.safetensors"):
        model_fingerprint("empty", tmp_path)


def test_models_that_attar_made_have_fingerprints_of_their_own_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "qparams.json").write_text("{}")
    (tmp_path / "weights.safetensors").write_bytes(b"1")
    before = model_fingerprint(".", tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"2")
    assert model_fingerprint(".", tmp_path) != before


def test_naming_models_loads_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; import attar.models.sources.references as r;"
        "r.model_fingerprint('demo:minilm-l6', Path('.'));"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
