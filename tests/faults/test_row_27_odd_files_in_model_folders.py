"""Row 27: links, FIFOs, directories and devices where a file of a model folder should be. One door
refuses them: nothing outside is read, and nothing is waited for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import attar
import tiny_recipe
from attar.errors import ArtifactError
from attar.models.load import load_model
from attar.models.sources.references import model_fingerprint
from attar.scoring.forms import open_form
from deployments import Deployments

FLOAT_FILES = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("generation_config.json", "special_tokens_map.json", "task.json"),
)
EXPORTED_FILES = {
    "openvino": ("openvino_model.xml", "openvino_model.bin"),
    "onnxruntime": ("model.onnx",),
    "safetensors": ("weights.safetensors", "qparams.json"),
}
PAPERS = ("deploy.json", "task.json", "tokenizer.json", "tokenizer_config.json", "config.json")


def to_link(file: Path) -> None:
    outside = file.parent.parent / f"outside-{file.name}"
    if file.exists():
        file.rename(outside)
    else:
        outside.write_text("{}")
    file.symlink_to(outside)


def to_fifo(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def to_directory(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def to_device_link(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("/dev/zero")


def to_nowhere(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("nowhere")


ODD = {
    to_link: "is a link to .*outside its folder",
    to_fifo: "is a FIFO",
    to_directory: "is a directory",
    to_device_link: "is a link to /dev/zero",
    to_nowhere: "a link to .*nowhere.*does not exist",
}
odd = pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)


@odd
@pytest.mark.parametrize("name", FLOAT_FILES)
def test_a_float_folder_is_refused_before_any_step_runs_and_when_it_is_loaded(
    name: str, make: Callable[[Path], None], deployments: Deployments, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(deployments.float() / "model", tmp_path / "model"))
    make(folder / name)
    for read in (lambda: model_fingerprint(str(folder), tmp_path), lambda: load_model(folder)):
        with pytest.raises(ArtifactError, match=ODD[make]) as caught:
            read()
        assert str(folder / name) in str(caught.value)


@odd
@pytest.mark.parametrize("name", ["model.safetensors.index.json", "part.safetensors"])
def test_an_odd_index_or_part_is_refused(
    name: str, make: Callable[[Path], None], deployments: Deployments, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(deployments.float() / "model", tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = '{"weight_map": {"a": "part.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    make(folder / name)
    with pytest.raises(ArtifactError, match=ODD[make]):
        model_fingerprint(str(folder), tmp_path)
    with pytest.raises(ArtifactError, match=ODD[make]):
        load_model(folder)


@odd
@pytest.mark.parametrize("form", EXPORTED_FILES)
def test_an_exported_folder_is_refused_whichever_of_its_files_is_odd(
    form: str, make: Callable[[Path], None], deployments: Deployments, tmp_path: Path
) -> None:
    good, _ = deployments.export("int8", form)
    for name in (*PAPERS, *EXPORTED_FILES[form], "README.md", "added.txt"):
        folder = Path(shutil.copytree(good, tmp_path / name / "deploy"))
        make(folder / name)
        if make is to_directory and name in ("README.md", "added.txt"):
            continue  # a folder beside the model is nobody's business
        with pytest.raises(ArtifactError, match=ODD[make]) as caught:
            attar.load(folder, threads=1)
        assert str(folder / name) in str(caught.value)
        if name in ("deploy.json", "config.json", *EXPORTED_FILES[form]):
            with pytest.raises(ArtifactError, match=ODD[make]):
                model_fingerprint(str(folder), tmp_path)


@odd
def test_a_quantized_folder_is_refused(
    make: Callable[[Path], None], deployments: Deployments, tmp_path: Path
) -> None:
    for name in ("qparams.json", "weights.safetensors", "config.json", "task.json"):
        folder = Path(shutil.copytree(deployments.int8(), tmp_path / name / "int8"))
        make((folder / "model" if (folder / "model").is_dir() else folder) / name)
        with pytest.raises(ArtifactError, match=ODD[make]):
            open_form(folder)


def test_links_of_the_hub_cache_are_followed(deployments: Deployments, tmp_path: Path) -> None:
    """As `snapshot_download` lays them: each file a link from the snapshot to a blob."""
    good, _ = deployments.export("int8", "onnxruntime")
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in good.iterdir():
        shutil.copy(file, blobs / f"hash-of-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash-of-{file.name}")
    assert len(attar.load(snapshot, threads=1).predict(["a good film"])) == 1


@pytest.mark.parametrize("verb", ["check", "predict", "status"])
def test_a_fifo_in_place_of_a_recipe_or_a_folder_is_not_waited_for(
    verb: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    more = ["a film"] if verb == "predict" else []
    done = tiny_recipe.attar(verb, tmp_path / "pipe", *more)
    assert done.returncode in (2, 3)
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
