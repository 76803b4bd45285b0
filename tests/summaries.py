"""A tiny BART that writes the first words of what it reads, trained here in seconds, and its data.

The task is small enough for a real (if small) summariser: its sources differ in length, its targets
are a few words, and a model that has not learned scores near nothing.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = "alpha bravo delta echo golf hotel india kilo lima mike oscar papa romeo tango".split()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
COPIED = 3
"""Words of a summary: the first of its text."""
MAX_LENGTH = 16


def write_tokenizer(folder: Path) -> int:
    """Whole words with BART's special tokens; returns the size of the vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>", "bos_token": "<s>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def some_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """(source, summary) pairs."""
    draw = random.Random(seed)
    sources = [draw.choices(WORDS, k=draw.randint(4, 11)) for _ in range(count)]
    return [(" ".join(words), " ".join(words[:COPIED])) for words in sources]


def write_data(folder: Path, train: int = 40, validation: int = 24) -> Path:
    """`train.jsonl` and `validation.jsonl` with the columns text and target."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"train": train, "validation": validation}.items()):
        lines = [json.dumps({"text": s, "target": t}) for s, t in some_texts(count, 100 + seed)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def tiny_bart(vocab_size: int, *, hidden: int = 48, seed: int = 0) -> Any:
    """A random BartForConditionalGeneration of two blocks a stack."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    stacks = ("encoder", "decoder")
    config = BartConfig(
        vocab_size=vocab_size,
        d_model=hidden,
        max_position_embeddings=32,
        **{f"{stack}_layers": 2 for stack in stacks},
        **{f"{stack}_attention_heads": 4 for stack in stacks},
        **{f"{stack}_ffn_dim": 2 * hidden for stack in stacks},
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        init_std=0.1,
    )
    torch.manual_seed(seed)
    return BartForConditionalGeneration(config).eval()


def generation_task() -> Any:
    """The task of the tiny summariser: two beams, at most six new tokens."""
    from attar.tasks.task import Generation, Task

    return Task(
        objective="text_to_text",
        max_length=MAX_LENGTH,
        input_names=("input_ids", "attention_mask"),
        metrics=("rouge1", "rouge2", "rougeL"),
        max_target_length=8,
        generation=Generation(num_beams=2, max_new_tokens=6),
    )


def write_untrained(folder: Path) -> Path:
    """A model folder as `write_summariser` makes it, of random weights: it writes, but nonsense."""
    from attar.models.load import LoadedModel, save_model

    model = tiny_bart(write_tokenizer(folder))
    save_model(LoadedModel(model, folder, generation_task()), folder)
    return folder


def write_summariser(folder: Path, *, steps: int = 140) -> Path:
    """Train the tiny BART and save it as a model folder of attar's; seconds on one core."""
    import torch

    from attar.data.tokenize import TextEncoder
    from attar.models.load import LoadedModel, save_model

    model = tiny_bart(write_tokenizer(folder))
    task = generation_task()
    encoder = TextEncoder.from_folder(folder, MAX_LENGTH, task.input_names)
    pairs = some_texts(2000, seed=1)
    sources, targets = (encoder.encode([(pair[i],) for pair in pairs]) for i in (0, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        rows = torch.randint(len(pairs), (32,), generator=torch.Generator().manual_seed(step))
        inputs = {name: torch.from_numpy(x) for name, x in sources.batch(rows.numpy()).items()}
        target = {name: torch.from_numpy(x) for name, x in targets.batch(rows.numpy()).items()}
        labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
        shifted = torch.full_like(labels, model.config.decoder_start_token_id)
        shifted[:, 1:] = target["input_ids"][:, :-1]
        logits = model(**inputs, decoder_input_ids=shifted, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    save_model(LoadedModel(model.eval(), folder, task), folder)
    return folder
