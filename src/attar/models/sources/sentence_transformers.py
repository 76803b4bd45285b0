"""The files in which sentence-transformers stores how a model computes embeddings.

    modules.json                      Transformer, Pooling and perhaps Normalize, in this order
    1_Pooling/config.json             the pooling
    sentence_bert_config.json         maximum number of tokens
    config_sentence_transformers.json prompts of queries and documents

A folder of theirs is read as a sentence embedding model, and a folder of ours has these files in
addition to `task.json`, so that both programs compute equal vectors; a static student is their
StaticEmbedding. Features that attar does not support (a Dense layer after the pooling, max pooling,
prompts that are excluded from the mean) raise an error. There is no file for `width`; open such a
folder with truncate_dim.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.artifacts import write_json
from attar.errors import ModelError
from attar.models.config import STATIC_TYPE
from attar.models.sources.safe_files import read_settings
from attar.tasks.embedding import Embedding
from attar.tasks.task import Task
from attar.untrusted import has_entry, read_json

MODULES_FILE = "modules.json"
POOLING_FOLDER, NORMALIZE_FOLDER = "1_Pooling", "2_Normalize"
LENGTH_FILE = "sentence_bert_config.json"
PROMPTS_FILE = "config_sentence_transformers.json"
TYPES = "sentence_transformers.models."
"""Prefix of the module types, in all of their releases."""
MODES = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
"""Their name of a pooling → name in attar."""
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""As written by releases before 5.6."""
PASSAGE_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True)
class SentenceModel:
    """The contents of the files."""

    embedding: Embedding
    max_length: int | None
    """Maximum number of tokens; None: the tokenizer's limit."""


def is_sentence_model(folder: Path) -> bool:
    """Whether a folder has the files of sentence-transformers."""
    if not has_entry(folder / MODULES_FILE):
        return False
    return any(kind == "Pooling" for kind, _ in _modules(folder))


def read_sentence_model(folder: Path) -> SentenceModel:
    """How the folder's model computes embeddings.

    Raises:
        ModelError: in a way that attar does not support.
        ArtifactError: a file is damaged.
    """
    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelError(
            f"{folder / MODULES_FILE} has the modules {', '.join(kinds)}; attar supports "
            "Transformer, Pooling and optionally Normalize, in this order"
        )
    if modules[0][1]:
        raise ModelError(
            f"{folder} keeps its Transformer in {modules[0][1]!r}, but attar expects it in the "
            "folder itself; save it again with a current sentence-transformers"
        )
    pooling = read_settings(folder / modules[1][1] / "config.json")
    mode = _mode(pooling)
    if mode not in MODES or pooling.get("include_prompt") is False:
        raise ModelError(
            f"{folder / modules[1][1] / 'config.json'} pools by {mode}"
            f"{' without the prompt' * (pooling.get('include_prompt') is False)}; attar supports "
            f"{', '.join(MODES)}, including the prompt"
        )
    lengths = _settings(folder / LENGTH_FILE)
    if lengths.get("do_lower_case"):
        raise ModelError(
            f"{folder / LENGTH_FILE} lowercases texts before tokenization, which attar does not "
            "do; set do_lower_case = false there if the tokenizer ignores case, otherwise this "
            "model cannot be used"
        )
    prompts = _settings(folder / PROMPTS_FILE).get("prompts") or {}
    passage = next((prompts[name] for name in PASSAGE_PROMPTS if prompts.get(name)), "")
    most = lengths.get("max_seq_length")
    return SentenceModel(
        Embedding.model_validate(
            {
                "pooling": MODES[mode],
                "normalize": "Normalize" in kinds,
                "query_prefix": prompts.get("query") or "",
                "passage_prefix": passage,
            }
        ),
        most if isinstance(most, int) and most > 0 else None,
    )


def write_sentence_model(folder: Path, task: Task, config: Any) -> None:
    """Write the files into a model's folder.

    Args:
        config: the model's config.
    """
    assert task.embedding is not None
    embedding = task.embedding
    is_static = config.model_type == STATIC_TYPE
    if is_static and not embedding.normalize:
        return  # their mean excludes special tokens, whose rows are zero
    parts = [("", "Transformer"), (POOLING_FOLDER, "Pooling")]
    if is_static:
        parts = [("", "StaticEmbedding")]
    if embedding.normalize:
        parts.append((NORMALIZE_FOLDER, "Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": TYPES + kind}
        for number, (path, kind) in enumerate(parts)
    ]
    write_json(folder / MODULES_FILE, modules)
    if not is_static:
        (folder / POOLING_FOLDER).mkdir(exist_ok=True)
        theirs = {ours: name for name, ours in MODES.items()}[embedding.pooling]
        flags = {name: mode == theirs for name, mode in OLD_MODES.items()}
        about = {"word_embedding_dimension": config.hidden_size, **flags, "include_prompt": True}
        write_json(folder / POOLING_FOLDER / "config.json", about)
    lengths = {"max_seq_length": task.max_length, "do_lower_case": False}
    write_json(folder / LENGTH_FILE, lengths)
    prompts = {"query": embedding.query_prefix, "document": embedding.passage_prefix}
    write_json(folder / PROMPTS_FILE, {"prompts": prompts, "similarity_fn_name": "cosine"})


def _modules(folder: Path) -> list[tuple[str, str]]:
    """(class, folder) of each module."""
    content = read_json(folder / MODULES_FILE)
    entries = content if isinstance(content, list) else []
    found = [
        (str(entry.get("type", "")).rpartition(".")[2], str(entry.get("path", "")))
        for entry in entries
        if isinstance(entry, dict)
    ]
    for _, path in found:
        if Path(path).name != path:
            raise ModelError(
                f"{folder / MODULES_FILE} points at {path!r}; allowed are names of its own folders"
            )
    return found


def _mode(pooling: dict[str, Any]) -> str:
    """The name of the pooling, or several if vectors are concatenated."""
    mode = pooling.get("pooling_mode")
    if isinstance(mode, str):
        return mode
    modes = mode or [name for key, name in OLD_MODES.items() if pooling.get(key)]
    return " + ".join(map(str, modes)) or "mean"


def _settings(file: Path) -> dict[str, Any]:
    return read_settings(file) if has_entry(file) else {}
