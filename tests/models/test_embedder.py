"""Laws of pooling, and of models whose answer is a vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attar.errors import ModelError
from attar.models.embedder import pooled
from attar.models.foreign import task_of
from attar.models.load import load_model, save_model
from attar.tasks.embedding import Embedding
from embedders import MAX_LENGTH, NAMES, write_embedder

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("embedder") / "model")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_is_blind_to_the_padding_and_gives_unit_vectors(pooling: Any) -> None:
    states = torch.randn(2, 4, 6)
    embedding = Embedding(pooling=pooling)
    vectors = pooled(states, MASK, embedding)
    changed = torch.where(MASK[..., None] > 0, states, 1e6)
    assert torch.equal(pooled(changed, MASK, embedding), vectors)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_pooling_takes_the_states_it_names() -> None:
    states = torch.randn(2, 4, 6)
    first, last, mean = (
        pooled(states, MASK, Embedding(pooling=name, normalize=False))  # pyright: ignore
        for name in ("cls", "last", "mean")
    )
    assert torch.equal(first, states[:, 0])
    assert torch.equal(last, torch.stack([states[0, 2], states[1, 0]]))
    torch.testing.assert_close(mean[0], states[0, :3].mean(dim=0))


def test_a_narrower_vector_is_the_beginning_of_the_whole_one() -> None:
    states = torch.randn(2, 4, 6)
    whole = pooled(states, MASK, Embedding(normalize=False))
    assert torch.equal(pooled(states, MASK, Embedding(normalize=False, width=2)), whole[:, :2])
    cut = pooled(states, MASK, Embedding(width=2))
    torch.testing.assert_close(cut, torch.nn.functional.normalize(whole[:, :2], dim=-1))


def test_a_saved_embedder_is_the_bare_model_without_its_pooler(embedder: Path) -> None:
    loaded = load_model(embedder)
    assert json.loads((embedder / "config.json").read_text())["architectures"] == ["BertModel"]
    assert not [name for name in loaded.model.state_dict() if "pooler" in name]
    assert loaded.task == task_of(embedder)


def test_a_folder_of_sentence_transformers_says_how_its_vectors_are_made(
    embedder: Path, tmp_path: Path
) -> None:
    folder = write_embedder(
        tmp_path / "theirs", pooling="cls", normalize=False, query_prefix="query: "
    )
    own = task_of(folder)
    (folder / "task.json").unlink()
    found = task_of(folder)
    assert found.embedding == own.embedding
    assert (found.max_length, found.input_names) == (MAX_LENGTH, NAMES)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by max"),
        ("1_Pooling/config.json", {"include_prompt": False}, "without the prompt"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "lowercases"),
    ],
)
def test_vectors_that_attar_does_not_compute_are_refused(
    tmp_path: Path, file: str, change: dict[str, Any], said: str
) -> None:
    folder = write_embedder(tmp_path / "theirs")
    (folder / "task.json").unlink()
    settings = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=said):
        task_of(folder)


def test_another_module_behind_the_pooling_is_refused(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "theirs")
    (folder / "task.json").unlink()
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="Dense"):
        task_of(folder)


def test_a_classifier_loses_its_head_and_keeps_its_body(tiny_bert: Path, embedder: Path) -> None:
    task = task_of(embedder)
    body, classifier = load_model(tiny_bert, task=task), load_model(tiny_bert)
    assert "head of its BertForSequenceClassification is discarded" in body.notes[0]
    ids = torch.tensor([[2, 9, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        states = classifier.model.base_model(**inputs).last_hidden_state
        assert task.embedding is not None
        expected = pooled(states, inputs["attention_mask"], task.embedding)
        np.testing.assert_allclose(body.model(**inputs).logits, expected, atol=1e-6)


def test_loading_and_saving_change_no_bit(embedder: Path, tmp_path: Path) -> None:
    save_model(load_model(embedder), tmp_path / "again")
    for name in ("model.safetensors", "task.json", "modules.json", "1_Pooling/config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (embedder / name).read_bytes()
