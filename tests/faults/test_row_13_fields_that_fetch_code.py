"""Row 13: settings by which a library would fetch or run code. Each is refused by its name, in any
file that has settings and at any depth, before transformers sees it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import attar
from attar.artifacts import sha256_of
from attar.errors import ModelError
from attar.models.config import FromConfig
from attar.models.load import build_model, load_model
from attar.models.sources.references import model_fingerprint
from deployments import Deployments

FIELDS: dict[str, Any] = {
    "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]},
    "custom_pipelines": {"own": {"impl": "own.Pipeline"}},
    "custom_generate": "owner/generate",
    "trust_remote_code": True,
    "attn_implementation": "owner/kernel",
    "_attn_implementation": {"": "flash_attention_2"},
    "experts_implementation": "sonicmoe",
    "_experts_implementation": "deepgemm",
    "use_kernels": True,
    "kernel_config": {"RMSNorm": "owner/norm"},
    "allow_all_kernels": True,
    "fusion_config": {"patch_embeddings": True},
    "distributed_config": {"tp_size": 2},
    "transformers_weights": "../other.bin",
    "quantization_config": {"quant_method": "bitsandbytes"},
}


@pytest.fixture
def folder(tmp_path: Path, deployments: Deployments) -> Path:
    return Path(shutil.copytree(deployments.float() / "model", tmp_path / "model"))


def edit(file: Path, changes: dict[str, Any]) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


@pytest.mark.parametrize("field", FIELDS)
def test_the_field_is_named_whichever_file_says_it(field: str, folder: Path) -> None:
    said = {field: FIELDS[field]}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        for changes in (said, {"text_config": said}, {"parts": [said]}):
            copied = Path(shutil.copytree(folder, folder.with_name("copy")))
            edit(copied / name, changes)
            for read in (load_model, lambda path: model_fingerprint(str(path), path)):
                with pytest.raises(ModelError, match=rf"{name} has {field} ") as caught:
                    read(copied)
                assert json.dumps(FIELDS[field]) in str(caught.value)
            shutil.rmtree(copied)


@pytest.mark.parametrize("field", FIELDS)
def test_a_recipe_with_the_config_of_a_stranger_is_refused_too(field: str, folder: Path) -> None:
    config = {"model_type": "bert", field: FIELDS[field]}
    reference = FromConfig(config=config, tokenizer=str(folder))
    with pytest.raises(ModelError, match=rf"model\.config has {field} "):
        build_model(reference, {}, folder, None, seed=0)


@pytest.mark.parametrize("kernel", ["eager", "sdpa", None])
def test_attention_that_every_transformers_has_is_no_kernel(kernel: str, folder: Path) -> None:
    edit(folder / "config.json", {"attn_implementation": kernel, "use_kernels": False})
    assert load_model(folder).model.config._attn_implementation == "sdpa"


def test_packed_integers_are_not_built_by_such_a_config(
    deployments: Deployments, tmp_path: Path
) -> None:
    good, _ = deployments.export("int8", "safetensors")
    folder = Path(shutil.copytree(good, tmp_path / "packed"))
    edit(folder / "config.json", {"attn_implementation": "owner/kernel"})
    content = json.loads((folder / "deploy.json").read_text())
    hashes = content["files"] | {"config.json": sha256_of(folder / "config.json")}
    edit(folder / "deploy.json", {"files": hashes})
    with pytest.raises(ModelError, match=r"attn_implementation .*owner/kernel.*compute kernel"):
        attar.load(folder)
