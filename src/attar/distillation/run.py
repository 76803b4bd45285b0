"""`run = "augment"`: make new training rows with a masked language model; other steps can name this
step as their data.

Rows are processed in chunks, so that memory does not grow with the data, and each finished chunk is
written to the scratch folder: a killed run continues with the first missing chunk. A part is a
complete gzip file, and concatenated gzip files are a valid gzip file.
"""

from __future__ import annotations

import copy
import gzip
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from attar.artifacts import disk_errors_explained, read_json, write_json
from attar.data.augmented import ROWS_FILE, row_line, write_source
from attar.data.load import data_of
from attar.data.tables import Split, TextData
from attar.distillation.augmentation import Augmenter
from attar.distillation.config import AugmentMetrics, AugmentStep
from attar.distillation.masked_lm import MaskedLm
from attar.distillation.words import WordReader
from attar.errors import DataError, ModelError, StoppedError, UsageError
from attar.models.load import LoadedModel, build_model, check_length
from attar.progress import Task
from attar.step import StepContext
from attar.training.update.precision import Precision, open_accelerator

CHUNK_ROWS = 512
"""Rows processed together: enough for full batches of similar length, and at most a minute's work
on a small CPU."""
TIMED_TOKENS = 32
"""Text length in the batch used to time the number formats."""
COUNTS = ("words", "replaced", "questions", "forwards")


def augment(config: AugmentStep, context: StepContext) -> AugmentMetrics:
    """Make `copies` rows of each training row.

    Raises:
        StoppedError: a stop was requested; finished chunks are kept.
    """
    data = data_of(context, config.data)
    train = _train_rows(config, context, data)
    augmenter, precision = _augmenter(config, context)
    starts = range(0, len(train), CHUNK_ROWS)
    parts = context.scratch / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    with context.progress.task(f"  {context.name}", len(train)) as task:
        for begin in starts:
            _chunk(augmenter, train, begin, parts, task, config.keep_labels)
    _join(parts, starts, context.folder / ROWS_FILE)
    write_source(context.folder, data.name, train)
    counts = [read_json(_counts_file(parts, begin)) for begin in starts]
    totals = {name: sum(count[name] for count in counts) for name in (*COUNTS, "seconds")}
    return {
        "data": {"name": data.name, "rows": len(train)},
        "rows_in": len(train),
        "rows_out": len(train) * config.copies,
        "copies": config.copies,
        "has_labels": config.keep_labels,
        "words_replaced_ratio": round(totals["replaced"] / max(totals["words"], 1), 4),
        "words_asked": totals["questions"],
        "forwards": totals["forwards"],
        "words_per_forward": round(totals["questions"] / max(totals["forwards"], 1), 2),
        "augment_seconds": round(totals["seconds"], 3),
        "precision": precision.name,
        "precision_reason": precision.reason,
    }


def _train_rows(config: AugmentStep, context: StepContext, data: TextData) -> Split:
    if problem := config.misfit(data.kind, data.name):
        raise UsageError(f"{context.name}: {problem}")
    train = data.split("train", labelled=config.keep_labels)
    if len(train) == 0:
        raise DataError(f"data {data.name!r}: split 'train' has no rows to augment")
    return train


def _masked_lm(config: AugmentStep, context: StepContext) -> LoadedModel:
    """The model, after checking that it is a masked language model."""
    loaded = build_model(config.model, context.inputs, context.recipe_folder, None, context.seed)
    architecture = type(loaded.model).__name__
    if not architecture.endswith("ForMaskedLM"):
        raise ModelError(
            f"{context.name}: {loaded.folder} is a {architecture}, not a masked language model; "
            "name a model whose config.json says …ForMaskedLM, such as the hub's bert-base-uncased"
        )
    check_length(
        loaded.model.config, config.max_length, f"{context.name}: the model", made_for=True
    )
    return loaded


def _first_batch(model: PreTrainedModel, batch_tokens: int) -> Callable[[bool], None]:
    """A forward pass of the model's blocks in bf16 or float32, to time both formats."""
    ids = torch.zeros(max(1, batch_tokens // TIMED_TOKENS), TIMED_TOKENS, dtype=torch.int64)

    @cache
    def in_format(is_bf16: bool) -> nn.Module:
        body = model.base_model
        return (copy.deepcopy(body).to(torch.bfloat16) if is_bf16 else body).eval()

    @torch.inference_mode()
    def answer(is_bf16: bool) -> None:
        in_format(is_bf16)(input_ids=ids.to(model.device))

    return answer


def _augmenter(config: AugmentStep, context: StepContext) -> tuple[Augmenter, Precision]:
    """The augmenter on the available device, and the number format."""
    loaded = _masked_lm(config, context)
    accelerator, precision = open_accelerator(
        config.precision, context, _first_batch(loaded.model, config.batch_tokens)
    )
    loaded.model.to(accelerator.device)  # pyright: ignore[reportArgumentType]
    reader = WordReader(loaded.folder, config.max_length)
    tokens, fits_2V = reader.whole_words(int(loaded.model.config.vocab_size))
    lm = MaskedLm(
        loaded.model,
        fits_2V,
        mask_id=reader.mask_id,
        pad_id=reader.pad_id,
        top=config.top,
        batch_tokens=config.batch_tokens,
        bf16=precision.name == "bf16",
    )

    def stop_if_asked() -> None:
        if context.should_stop():
            raise StoppedError(
                f"stopped during step {context.name!r}; the rows made so far are kept, and resume "
                "continues with the next"
            )

    augmenter = Augmenter(
        reader.read,
        lm,
        tokens,
        seed=context.seed,
        copies=config.copies,
        probability=config.probability,
        top=config.top,
        after_forward=stop_if_asked,
    )
    return augmenter, precision


def _chunk(
    augmenter: Augmenter, train: Split, begin: int, parts: Path, task: Task, keep_labels: bool
) -> None:
    """Make the copies of one chunk, unless an interrupted run has already made them."""
    rows = train.texts[begin : begin + CHUNK_ROWS]
    done = _counts_file(parts, begin)
    if done.is_file():
        task.skip(len(rows))
        return
    start = time.perf_counter()
    made = augmenter.augment(rows, begin)
    labels = (
        train.labels[begin : begin + CHUNK_ROWS].tolist() if keep_labels else [None] * len(rows)
    )
    lines = [
        row_line(begin + i, copy, texts, labels[i])
        for i, copies in enumerate(made.rows)
        for copy, texts in enumerate(copies)
    ]
    content = gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
    with disk_errors_explained(parts, len(content)):
        _part_file(parts, begin).write_bytes(content)
    seconds = time.perf_counter() - start
    # Written last and atomically: a part is complete only if its counts exist.
    write_json(done, {**{name: getattr(made, name) for name in COUNTS}, "seconds": seconds})
    task.advance(len(rows), f"{made.questions / max(made.forwards, 1):.0f} words per forward pass")


def _part_file(parts: Path, begin: int) -> Path:
    return parts / f"{begin:09d}.jsonl.gz"


def _counts_file(parts: Path, begin: int) -> Path:
    return parts / f"{begin:09d}.json"


def _join(parts: Path, starts: range, file: Path) -> None:
    needed = sum(_part_file(parts, begin).stat().st_size for begin in starts)
    with disk_errors_explained(file.parent, needed), file.open("wb") as whole:
        for begin in starts:
            with _part_file(parts, begin).open("rb") as part:
                shutil.copyfileobj(part, whole)
