"""Sizes of tokenizer, config and tensors fit, or the model is refused when it is opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import deployments as made
import tiny
from attar.errors import ModelError
from attar.export.deployed import Deployed
from attar.models.load import load_model
from attar.scoring.forms import open_form
from deployments import Deployments


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def add_token(folder: Path, token: str = "<URL>") -> int:
    """Add a token to the tokenizer alone, as `tokenizer.add_tokens` does; its id."""
    file = folder / "tokenizer.json"
    plain = json.loads(file.read_text())
    number = len(plain["model"]["vocab"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    plain["added_tokens"].append({"id": number, "content": token, "normalized": True, **flags})
    file.write_text(json.dumps(plain))
    return number


def test_a_token_without_an_embedding_is_refused_in_every_form(
    deployments: Deployments, tmp_path: Path
) -> None:
    forms = {
        "float": deployments.float() / "model",
        "simulated": deployments.int8() / "model",
        "openvino": deployments.export("int8", "openvino")[0],
    }
    for form, source in forms.items():
        folder = shutil.copytree(source, tmp_path / form)
        rows = add_token(folder)
        said = rf"token ids up to {rows} \('<URL>'\), the model has {rows} embeddings \(ids 0 to"
        with pytest.raises(ModelError, match=said):
            if form == "openvino":
                reseal(folder)
                Deployed(folder, threads=1)
            else:
                open_form(folder, 1)


def reseal(folder: Path) -> None:
    """Make deploy.json agree with the tokenizer that is there."""
    from attar.artifacts import sha256_of

    files = json.loads((folder / "deploy.json").read_text())["files"]
    edit(folder / "deploy.json", files={name: sha256_of(folder / name) for name in files})


def test_quantize_and_export_refuse_such_a_model_too(
    deployments: Deployments, tmp_path: Path
) -> None:
    folder = shutil.copytree(deployments.float(), tmp_path / "float")
    add_token(folder / "model")
    with pytest.raises(ModelError, match="token ids up to"):
        made.quantized(tmp_path, folder)
    with pytest.raises(ModelError, match="token ids up to"):
        made.exported(tmp_path, "deploy", folder, "openvino")


def test_rows_that_no_token_uses_are_fine(tmp_path: Path) -> None:
    """Vocabularies are padded to a multiple of 8 or 64 for speed."""
    tiny.write_tokenizer(tmp_path)
    tiny.tiny_model("bert", vocab_size=128).save_pretrained(tmp_path)
    assert load_model(tmp_path).model.config.vocab_size == 128


@pytest.mark.parametrize("where", ["template", "segment"])
def test_a_template_beyond_the_tables_is_refused(tmp_path: Path, where: str) -> None:
    tiny.write_tiny_bert(tmp_path)
    file = tmp_path / "tokenizer.json"
    plain = json.loads(file.read_text())
    template = plain["post_processor"]
    if where == "template":
        template["special_tokens"]["[SEP]"]["ids"] = [500]
        said = r"token ids up to 500 \('\[SEP\]'\)"
    else:
        template["pair"][-1]["SpecialToken"]["type_id"] = 7
        said = r"the segment 7, the model has 2 segments \(0 to 1\)"
    file.write_text(json.dumps(plain))
    with pytest.raises(ModelError, match=said):
        load_model(tmp_path)
