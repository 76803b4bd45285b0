"""Tiny random models that embed texts, and pairs of texts they can be judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny
from attar.tasks.embedding import Embedding
from attar.tasks.task import Task

NAMES = ("input_ids", "attention_mask", "token_type_ids")
MAX_LENGTH = 24


def write_embedder(
    folder: Path, *, seed: int = 0, blocks: int = 2, dropout: float = 0.1, **embedding: Any
) -> Path:
    """A random tiny BERT that embeds, written as a train step writes it."""
    from attar.models.load import load_model, save_model

    tiny.write_tiny_bert(folder, seed=seed, blocks=blocks)
    config = json.loads((folder / "config.json").read_text())
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    changed = config | rates | {"architectures": ["BertModel"]}
    (folder / "config.json").write_text(json.dumps(changed))
    task = Task(
        objective="sentence_embedding",
        max_length=MAX_LENGTH,
        input_names=NAMES,
        num_texts=1,
        metrics=("spearman",),
        embedding=Embedding(**embedding),
    )
    loaded = load_model(folder, task=task)
    for name, parameter in loaded.model.named_parameters():
        if name.endswith(".weight") and "LayerNorm" not in name:
            parameter.data.mul_(8)  # at its initial weights every text looks alike
    save_model(loaded, folder)
    return folder


def write_pairs(folder: Path, *, scored: bool, rows: int = 40) -> Path:
    """Pairs over the tiny tokenizer's words: the second text has the first one's words in another
    order; with a score, some of the words, and 5 · their share."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [word for word in tiny.WORDS if not word.startswith("#")]
    for split, offset in (("train", 0), ("validation", 1000)):
        lines = []
        for row in range(offset, offset + rows):
            chosen = [words[(row * 7 + i * (row % 5 + 1)) % len(words)] for i in range(6)]
            shared = row % 7 if scored else 6
            others = [words[(row * 11 + i * 3) % len(words)] for i in range(6 - shared)]
            second = [*reversed(chosen[:shared]), *others]
            line: dict[str, Any] = {"first": " ".join(chosen), "second": " ".join(second)}
            if scored:
                line["score"] = 5 * shared / 6
            lines.append(json.dumps(line))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def data_config(path: str = "pairs", *, scored: bool) -> Any:
    from attar.data.config import FilesData

    label = {"label": "score"} if scored else {}
    return FilesData(path=path, text=("first", "second"), objective="sentence_embedding", **label)
