"""Writes the text of a first recipe: settings with comments on their meaning or value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attar.escaping import for_terminal
from attar.recipe.one_step import toml_value
from attar.recipe.starting.sizes import BATCH, SIZES, by_size

COMMENTS_AT = 34
"""Column of the comments."""
SMALLEST_DROP, LARGEST_DROP = 0.02, 0.5
ROWS_OF_A_GATE = 3
"""Minimum number of validation rows that a gate allows to lose, since with few rows a single one is
more than 2 %."""
Line = str | tuple[str, Any] | tuple[str, Any, str]
"""A literal line, or a setting with its value and optionally a comment."""


@dataclass(frozen=True)
class Subject:
    """The data and model of a recipe."""

    name: str
    data: Mapping[str, Any]
    """Settings of the data table."""
    why: Mapping[str, str]
    """Setting of the data table → comment."""
    rows: int
    """Number of training rows, without those that are held out."""
    validation_rows: int
    longest: int | None
    """Maximum length in tokens, so that 95 % of the texts fit; None: unknown."""
    lengths: str
    """Description of the text lengths, for a comment."""
    size: str
    model: str
    blocks: int | None
    """Number of blocks of the model; None: unknown."""
    is_score: bool = False
    new_head: bool = False
    """Whether the model is a classifier with other classes."""


def labelled(subject: Subject) -> str:
    """Teacher, student, eight bits, export, evaluation, report: for texts or pairs with classes or
    scores."""
    data, size = subject.name, subject.size
    epochs, all_epochs = by_size(size, lambda each: each.epochs(subject.rows))
    longer, all_longer = by_size(size, lambda each: 2 * each.epochs(subject.rows))
    length = ("max_length", subject.longest or 128, f"tokens; {subject.lengths}")
    blocks = subject.blocks or 6
    every_second = list(range(1 - blocks % 2, blocks, 2)) if blocks > 1 else [0]
    kept = f"every second of the {blocks} blocks"
    if subject.blocks is None:
        kept = "every second of 6 blocks; see num_hidden_layers in your model's config.json"
    metric = "pearson" if subject.is_score else "accuracy"
    tolerated = round(ROWS_OF_A_GATE / max(subject.validation_rows, 1), 3)
    tolerated = min(max(SMALLEST_DROP, tolerated), LARGEST_DROP)
    return _text(
        subject,
        _table(
            "steps.teacher",
            ("run", "train"),
            *_start(subject),
            ("data", data),
            ("epochs", epochs, all_epochs),
            ("learning_rate", 1e-4, "try 5e-5 and 2e-5 too"),
            ("batch_size", BATCH),
            length,
        ),
        _table(
            "steps.student",
            ("run", "train", "with a teacher, training is distillation"),
            f'model = {{ from = "teacher", keep_blocks = {every_second} }}   # {kept}',
            ("teacher", "teacher"),
            ("data", data),
            ("epochs", longer, all_longer),
            ("learning_rate", 1e-4),
            ("batch_size", BATCH),
            length,
        ),
        _table(
            "[steps.student.losses]",
            ("kind", "forward_kl", "learns the teacher's predictions"),
            ("temperature", 2.0),
        ),
        _table("[steps.student.losses]", ("kind", "hidden_mse", "and the teacher's hidden states")),
        _table(
            "steps.int8",
            ("run", "quantize"),
            ("model", "student"),
            ("method", "percentile", "other methods: docs/methods.md"),
            ("calibration.data", data),
            ("calibration.examples", min(256, subject.rows)),
        ),
        _table(
            "steps.deploy",
            ("run", "export"),
            ("model", "int8"),
            ("format", "openvino", 'or "onnxruntime"'),
            ("parity.max_label_flips", tolerated, "share of labels that may differ from torch's"),
        ),
        _table(
            "steps.scores",
            ("run", "evaluate"),
            ("models", ["teacher", "student", "int8", "deploy"]),
            ("data", data),
        ),
        _table("steps.report", ("run", "report")),
        _table(
            "[gates]",
            ("metric", f"scores.deploy.{metric}", "the run fails (exit code 6) if this is missed"),
            ("of", f"scores.teacher.{metric}"),
            ("max_drop", max(0.05, tolerated), "allowed drop; 0.05 is 5 points"),
        ),
    )


def _start(subject: Subject) -> list[Line]:
    if not subject.new_head:
        return [("model", subject.model, "a folder, a hub id or a demo model")]
    return [
        ("model.from", subject.model, "a folder, a hub id or a demo model"),
        ("model.new_head", True, "the model's own head has other classes"),
    ]


def running_text(subject: Subject) -> str:
    """Tokenizer, corpus and a small language model with random weights, judged on held-out text."""
    data, size = subject.name, subject.size
    named, all_named = by_size(size, lambda each: each.language_model)
    tokens, all_tokens = by_size(size, lambda each: each.tokens)
    return _text(
        subject,
        _table(
            "steps.corpus",
            ("run", "tokenize"),
            ("data", data),
            ("tokenizer.train_on", data, "trains a tokenizer on the text"),
            ("tokenizer.vocab_size", 4096),
            ("max_length", 256),
        ),
        _table(
            "steps.model",
            ("run", "train"),
            ("model.size", named, all_named),
            ("model.family", "llama"),
            ("model.tokenizer", "corpus"),
            ("data", "corpus"),
            ("max_length", 256),
            ("max_tokens", tokens, all_tokens),
            ("batch_tokens", 2048),
            ("learning_rate", 2e-3, "for random weights; use less for bigger models"),
            ("schedule", "cosine"),
        ),
        _table(
            "steps.scores",
            ("run", "evaluate"),
            ("models", ["model"]),
            ("data", data),
            ("speed", False),
            ("memory", False),
        ),
        _table("steps.report", ("run", "report")),
    )


def _text(subject: Subject, *tables: str) -> str:
    sizes = ", ".join(SIZES)
    why = subject.why
    data = [(n, v, why[n]) if n in why else (n, v) for n, v in subject.data.items()]
    head = [
        f"# A first recipe, of size {subject.size!r}. If a setting depends on the size,",
        f"# its comment lists the values of all sizes: {sizes}.",
        _line(("name", subject.name, f"results are in runs/{subject.name}")),
        _line(("seed", 0)),
        "",
    ]
    return "\n".join([*head, _table(f"data.{subject.name}", *data), *tables])


def _table(name: str, *lines: Line) -> str:
    return "\n".join([f"[{name}]", *map(_line, lines), ""])


def _line(line: Line) -> str:
    if isinstance(line, str):
        return line
    setting, value, *comment = line
    written = f"{setting} = {toml_value(value)}"
    # column names are untrusted, and a line break in one would end the comment
    said = f" # {for_terminal(comment[0])}" if comment else ""
    return f"{written.ljust(COMMENTS_AT - 1)}{said}" if said else written
