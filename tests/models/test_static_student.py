"""Laws of the table that a static student is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

import tiny
from attar.errors import ModelError
from attar.models.config import ChangedModel
from attar.models.cost import cost_from_config
from attar.models.load import build_model, load_model, save_model
from attar.models.static_student import SMOOTH, plain_tokens, static_rows
from attar.models.surgery import changed
from attar.special_tokens import open_tokenizer
from attar.training.forward import shape_of
from embedders import MAX_LENGTH, write_embedder

N, D = 40, 6


def vectors() -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def weights(count: int) -> torch.Tensor:
    shares = 1 / torch.arange(1, count + 1, dtype=torch.float64)
    return SMOOTH / (SMOOTH + shares / shares.sum())


def test_full_width_keeps_the_angles_of_centred_vectors_and_frequent_rows_are_short() -> None:
    rows = static_rows(vectors(), D)
    weighted = weights(N)[:, None] * (vectors() - vectors().mean(dim=0))
    torch.testing.assert_close(rows @ rows.T, weighted @ weighted.T)
    assert weights(N)[0] < weights(N)[-1] / 20


def test_a_cut_width_keeps_the_axes_along_which_tokens_differ_most() -> None:
    stretched = vectors() * torch.tensor([1, 1, 9, 1, 5, 1])
    rows = static_rows(stretched, 2)
    lost = static_rows(stretched, D)[:, 2:]
    assert rows.norm() > 4 * lost.norm()


def test_a_rows_vector_is_the_encoders_own_of_the_token_alone(tmp_path: Path) -> None:
    encoder = load_model(write_embedder(tmp_path / "encoder"))
    reference = ChangedModel.model_validate({"from": str(encoder.folder), "static_width": 32})
    student = build_model(reference, {}, tmp_path, encoder.task, 0)
    tokenizer = open_tokenizer(encoder.folder)
    shown = plain_tokens(tokenizer)
    words = [tokenizer.decode([i]) for i in shown[:8].tolist()]
    vectors = []
    for word in words:
        ids = torch.tensor([tokenizer.encode(word).ids])
        with torch.no_grad():
            vectors.append(
                encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            )
    rows = student.model.get_input_embeddings().weight[torch.from_numpy(shown[:8])]  # pyright: ignore
    rows = rows / weights(len(shown))[:8, None]
    apart, expected = (torch.cdist(x, x) for x in (rows.detach(), torch.stack(vectors)))
    assert float((apart / apart.max() - expected / expected.max()).abs().max()) < 1e-4
    table = student.model.get_input_embeddings().weight  # pyright: ignore
    special = [tokenizer.token_to_id(token) for token in tiny.SPECIAL]
    assert not table[torch.tensor(special)].any()


def test_a_saved_table_opens_with_equal_vectors_and_says_what_it_is(tmp_path: Path) -> None:
    encoder = load_model(write_embedder(tmp_path / "encoder"))
    reference = ChangedModel.model_validate({"from": str(encoder.folder), "static_width": 8})
    student = build_model(reference, {}, tmp_path, encoder.task, 0)
    save_model(student, tmp_path / "student")
    again = load_model(tmp_path / "student")
    ids = torch.arange(5, 5 + MAX_LENGTH)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(again.model(**inputs).logits, student.model(**inputs).logits)
    # what sentence-transformers' StaticEmbedding computes: no special tokens, a plain mean
    table = student.model.get_input_embeddings().weight  # pyright: ignore
    tokenizer = open_tokenizer(tmp_path / "student")
    text = "read the file list"
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    framed = torch.tensor([tokenizer.encode(text).ids])
    mean = torch.nn.functional.normalize(table[torch.tensor(plain)].mean(dim=0), dim=0)
    own = again.model(input_ids=framed, attention_mask=torch.ones_like(framed)).logits[0]
    torch.testing.assert_close(own, mean)
    modules = (tmp_path / "student" / "modules.json").read_text()
    assert "StaticEmbedding" in modules and "Normalize" in modules
    assert not (tmp_path / "student" / "1_Pooling").exists()


def test_what_makes_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="keep_blocks has nothing to change"):
        ChangedModel.model_validate({"from": "a", "static_width": 8, "keep_blocks": [0]})
    encoder = load_model(write_embedder(tmp_path / "encoder"))
    wide = ChangedModel.model_validate({"from": str(encoder.folder), "static_width": 33})
    with pytest.raises(ModelError, match="set static_width = 32 or less"):
        build_model(wide, {}, tmp_path, encoder.task, 0)
    tiny.write_tiny_bert(tmp_path / "classifier")
    other = ChangedModel.model_validate({"from": str(tmp_path / "classifier"), "static_width": 8})
    with pytest.raises(ModelError, match="not one"):
        build_model(other, {}, tmp_path, encoder.task, 0)


def test_a_table_is_as_wide_as_its_encoders_vectors_at_most(tmp_path: Path) -> None:
    encoder = load_model(write_embedder(tmp_path / "encoder", width=16))
    wide = ChangedModel.model_validate({"from": str(encoder.folder), "static_width": 17})
    with pytest.raises(ModelError, match="set static_width = 16 or less"):
        build_model(wide, {}, tmp_path, encoder.task, 0)


def test_what_only_blocks_have_is_refused_of_a_table(tmp_path: Path) -> None:
    encoder = load_model(write_embedder(tmp_path / "encoder"))
    reference = ChangedModel.model_validate({"from": str(encoder.folder), "static_width": 8})
    student = build_model(reference, {}, tmp_path, encoder.task, 0)
    for name, value in (("keep_blocks", [0]), ("hidden_size", 4), ("ffn", "1w")):
        cut = ChangedModel.model_validate({"from": "a", name: value})
        with pytest.raises(ModelError, match=f"no blocks, so {name} has nothing to change"):
            changed(student.model, cut)
    with pytest.raises(ModelError, match="no states of blocks can be compared"):
        shape_of(student.model)


def test_a_folder_of_a_table_is_planned_as_a_step_is(tmp_path: Path) -> None:
    encoder = load_model(write_embedder(tmp_path / "encoder"))
    reference = ChangedModel.model_validate({"from": str(encoder.folder), "static_width": 8})
    student = build_model(reference, {}, tmp_path, encoder.task, 0)
    save_model(student, tmp_path / "student")
    plain = json.loads((tmp_path / "student" / "config.json").read_text())
    count = sum(parameter.numel() for parameter in student.model.parameters())
    assert cost_from_config(plain).num_params == count
