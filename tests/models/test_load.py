"""A folder becomes a model, exactly, or an error that says what does not fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

import tiny
from attar.errors import ModelError, ResourceError
from attar.models.config import ChangedModel, FromConfig
from attar.models.load import LoadedModel, build_model, input_names_of, load_model, save_model
from attar.tasks.task import Task

TASK = Task(
    objective="classification",
    label_names=("a", "b", "c"),
    max_length=32,
    input_names=("input_ids", "attention_mask"),
)
SCORE = Task(objective="regression", max_length=32, input_names=("input_ids", "attention_mask"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny.tiny_batch()).logits


def saved(family: str, folder: Path, **settings: Any) -> Any:
    """A bare tiny model (no head) saved by transformers."""
    model = tiny.tiny_model(family, bare=True)
    model.save_pretrained(folder, **settings)
    return model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_is_loaded_given_a_head_saved_and_loaded_again(
    family: str, tmp_path: Path
) -> None:
    body = saved(family, tmp_path / "body")
    loaded = load_model(tmp_path / "body", task=TASK)
    assert not loaded.model.training
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    theirs, ours = body.state_dict(), loaded.model.base_model.state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    save_model(loaded, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.task == TASK
    assert torch.equal(logits(again.model), logits(loaded.model))
    by_transformers = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    near = 1e-6 if family == "mpnet" else 0.0  # whose attention is computed another way
    torch.testing.assert_close(
        logits(by_transformers.eval()), logits(loaded.model), rtol=near, atol=near
    )
    assert by_transformers.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_shards_load_like_one_file(tmp_path: Path) -> None:
    saved("bert", tmp_path / "one")
    saved("bert", tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (load_model(tmp_path / name).model.state_dict() for name in ("one", "many"))
    assert all(torch.equal(many[name], tensor) for name, tensor in one.items())


def test_half_precision_files_become_float32(tmp_path: Path) -> None:
    tiny.tiny_model("llama", bare=True).half().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    loaded = load_model(tmp_path, task=TASK)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_without_a_task_the_architecture_of_the_config_is_built(tmp_path: Path) -> None:
    from transformers import BertForMaskedLM

    BertForMaskedLM(tiny.tiny_config("bert")).save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded.model, BertForMaskedLM)
    assert loaded.task is not None and loaded.task.kind.hides


def test_a_new_head_depends_on_the_seed_alone(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    heads = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbance)
        heads.append(load_model(tmp_path, task=TASK, seed=seed).model.classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_model(tmp_path, task=TASK)
    assert torch.equal(torch.rand(3), expected)


def test_a_score_has_one_output(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    loaded = load_model(tmp_path, task=SCORE)
    assert logits(loaded.model).shape == (3, 1)
    assert loaded.model.config.problem_type == "regression"


def test_a_decoder_without_padding_gets_an_id_for_it(tmp_path: Path) -> None:
    tiny.tiny_model("gpt2", bare=True, pad_token_id=None).save_pretrained(tmp_path)
    loaded = load_model(tmp_path, task=TASK)
    assert loaded.model.config.pad_token_id == tiny.EOS
    assert logits(loaded.model).shape == (3, 3)


def test_weights_in_memory_are_no_map_of_the_file(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    loaded = load_model(tmp_path)
    before = loaded.model.embeddings.word_embeddings.weight.clone()
    with (tmp_path / "model.safetensors").open("r+b") as stream:
        stream.truncate(0)
    assert torch.equal(loaded.model.embeddings.word_embeddings.weight, before)


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def change_weights(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_named(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    change_weights(tmp_path, lambda t: t.pop("encoder.layer.1.output.dense.bias"))
    with pytest.raises(ModelError, match=r"1 tensors: .*layer\.1\.output\.dense\.bias is missing"):
        load_model(tmp_path, task=TASK)


def test_weights_of_another_shape_are_named_with_both_shapes(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    change_config(tmp_path, intermediate_size=64)
    with pytest.raises(ModelError, match=r"shape \(48,\), the config says \(64,\)"):
        load_model(tmp_path, task=TASK)


def test_blocks_the_config_does_not_count_are_named(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    change_config(tmp_path, num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"layer\.1\.attention\.\S+ does not exist in the model"):
        load_model(tmp_path, task=TASK)


def test_leftovers_of_another_head_are_no_mistake(tmp_path: Path) -> None:
    from transformers import RobertaForMaskedLM

    RobertaForMaskedLM(tiny.tiny_config("roberta")).save_pretrained(tmp_path)
    assert logits(load_model(tmp_path, task=TASK).model).shape == (3, 3)


def test_an_unknown_type_is_answered_with_a_near_one(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    change_config(tmp_path, model_type="robert")
    with pytest.raises(ModelError, match=r"'robert' are not supported.*did you mean"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": "big"}, "not a config of model_type 'bert'.*hidden_size"),
        ({"quantization_config": {"bits": 4}}, "already quantized"),
        ({"architectures": ["os"]}, "no architecture 'os'"),
        ({"architectures": ["BertConfig"]}, "no architecture 'BertConfig'"),
    ],
)
def test_configs_that_cannot_be_are_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    saved("bert", tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path)


def test_texts_longer_than_the_table_of_positions_are_refused(tmp_path: Path) -> None:
    saved("roberta", tmp_path)
    assert load_model(tmp_path, task=TASK.model_copy(update={"max_length": 38}))
    with pytest.raises(ModelError, match=r"has 38 positions, max_length is 39"):
        load_model(tmp_path, task=TASK.model_copy(update={"max_length": 39}))


def test_a_family_without_a_row_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    from transformers import VitsConfig

    VitsConfig().save_pretrained(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"type 'vits' are not supported.*supported: bert, "):
        load_model(tmp_path, task=TASK)


def test_a_student_is_made_of_kept_blocks(tmp_path: Path) -> None:
    tiny.write_tiny_bert(tmp_path / "big", blocks=4)
    reference = ChangedModel.model_validate({"from": "big", "keep_blocks": [1, 3]})
    student = build_model(reference, {}, tmp_path, None, seed=0)
    assert student.model.config.num_hidden_layers == 2
    save_model(student, tmp_path / "student")
    assert (tmp_path / "student" / "tokenizer.json").is_file()
    assert load_model(tmp_path / "student").model.config.num_hidden_layers == 2


def test_a_random_model_is_a_function_of_config_and_seed(tmp_path: Path, tiny_bert: Path) -> None:
    config = tiny.tiny_config("bert", vocab_size=80).to_dict()
    reference = FromConfig(config=config, tokenizer=str(tiny_bert))
    first, second, other = (
        build_model(reference, {}, tmp_path, TASK, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(logits(first.model), logits(second.model))
    assert not torch.equal(logits(first.model), logits(other.model))
    assert first.folder == tiny_bert


def test_input_names_follow_the_segment_types() -> None:
    names = {name: input_names_of(tiny.tiny_config(name)) for name in tiny.FAMILIES}
    for name in ("bert", "electra", "electra_narrow"):
        assert names.pop(name) == ("input_ids", "attention_mask", "token_type_ids")
    assert set(names.values()) == {("input_ids", "attention_mask")}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_with_the_numbers(tiny_bert: Path, small_disk: Path) -> None:
    loaded: LoadedModel = load_model(tiny_bert)
    with pytest.raises(ResourceError, match=r"disk full.*MiB are free, 0\.1 MiB are needed"):
        save_model(loaded, small_disk / "model")


def test_both_maps_of_a_new_head_are_drawn(tmp_path: Path) -> None:
    """DistilBERT's head has a map of its own before the classifier."""
    from transformers import DistilBertForMaskedLM

    DistilBertForMaskedLM(tiny.tiny_config("distilbert")).save_pretrained(tmp_path)
    model: Any = load_model(tmp_path, task=TASK).model
    assert model.pre_classifier.weight.std() > 0
    assert logits(model).shape == (3, 3)
