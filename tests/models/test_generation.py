"""What a model that writes text is for, by whoever made it, and which words it was fed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration

import summaries
import tiny
from attar.errors import ModelError
from attar.models.foreign import task_of
from attar.models.generation import generate, start_of
from attar.models.load import load_model
from attar.scoring.forms import open_form
from attar.tasks.task import Generation, Task


def hub_folder(folder: Path, **generation: object) -> Path:
    """A folder written by transformers' `save_pretrained`, and a tokenizer; nothing of ours."""
    summaries.tiny_bart(summaries.write_tokenizer(folder)).save_pretrained(folder)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_a_foreign_summariser_says_how_it_chooses_its_words(tmp_path: Path) -> None:
    folder = hub_folder(
        tmp_path, num_beams=4, max_length=20, min_length=5, no_repeat_ngram_size=3, top_k=50
    )
    task = task_of(folder)
    assert task.objective == "text_to_text"
    assert task.max_length == 32  # its positions
    assert task.generation == Generation(
        num_beams=4, max_new_tokens=19, min_new_tokens=4, no_repeat_ngram_size=3
    )
    loaded = load_model(folder)
    assert type(loaded.model).__name__ == "BartForConditionalGeneration"
    assert loaded.task == task


def test_a_task_of_texts_survives_its_file(tmp_path: Path) -> None:
    task = summaries.generation_task()
    task.write(tmp_path)
    assert task_of(tmp_path) == task


def test_a_decoder_needs_a_token_to_begin_with() -> None:
    config = tiny.tiny_config("t5")
    model = T5ForConditionalGeneration(config)
    model.config.decoder_start_token_id, model.config.bos_token_id = None, 2
    assert start_of(model) == 2
    model.config.bos_token_id = None
    with pytest.raises(
        ModelError, match=r"models/t5 has no decoder_start_token_id.*add it to config.json"
    ):
        start_of(model, "models/t5")


def test_generation_belongs_to_texts_and_to_nothing_else() -> None:
    with pytest.raises(ValueError, match="text_to_text needs generation"):
        Task(objective="text_to_text", max_length=8, input_names=())
    with pytest.raises(ValueError, match="regression does not generate text"):
        Task(objective="regression", max_length=8, input_names=(), generation=Generation())
    with pytest.raises(ValueError, match="min_new_tokens is 9, above max_new_tokens = 8"):
        Generation(min_new_tokens=9, max_new_tokens=8)


def test_nothing_but_the_task_has_a_say_in_what_is_written(tmp_path: Path) -> None:
    """A model's own generation settings, changed behind our back, change nothing."""
    loaded = load_model(hub_folder(tmp_path, num_beams=1, max_length=9))
    assert loaded.task is not None
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    mask = torch.ones_like(ids)
    before = generate(loaded.model, loaded.task, ids, mask)
    config = loaded.model.generation_config
    assert config is not None
    config.max_length, config.num_beams, config.do_sample = 30, 3, True
    assert torch.equal(generate(loaded.model, loaded.task, ids, mask), before)
    assert before.shape[1] <= 9


def test_a_classifier_writes_no_text(tmp_path: Path) -> None:
    form = open_form(tiny.write_tiny_bert(tmp_path), threads=1)
    with pytest.raises(ModelError, match="does not generate text"):
        form.generate({})
