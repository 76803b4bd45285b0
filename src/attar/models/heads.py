"""Match a checkpoint's classification head with the classes of a task, by name.

A head is a Linear whose row c scores class c, so a head trained with the same classes in another
order is corrected by reordering its rows; `labels` defines when two names are the same class.
Classes that cannot be matched are an error. A head for another kind of task (one that labels
tokens) shares only the name, and is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attar.errors import ModelError
from attar.tasks.labels import match_classes, why_not_matched
from attar.tasks.table import KINDS
from attar.tasks.task import Task

HEAD_ROWS = re.compile(
    r"(classifier|score|classification_head|qa_outputs)(\.out_proj)?\.(weight|bias)"
)
"""Names of the last Linear of a classification head, in all supported families."""
HEAD = re.compile(r"(pre_classifier|classifier|score|classification_head|qa_outputs)\.")
TOKEN_HEADS = ("classifier", "qa_outputs")
"""Linears applied to the last norm at every token, in all families. A classifier of texts has
another map before the first of these."""
SHARED_HEAD = re.compile(r"head\.")
"""Maps before a classifier that also exist in a masked language model, and so may be
pre-trained."""


def answers_tokens(model: nn.Module) -> bool:
    """Whether a model's head makes a prediction for every token, for tags or for parts of a
    text."""
    heads = tuple(end for k in KINDS.values() if k.answers_tokens for end in k.heads)
    return type(model).__name__.endswith(heads)


def logits_in(outputs: Any) -> Tensor | None:
    """The logits in a model's output: (B, C), or (B, T, C) for a head with a prediction per token,
    with start and end logits of an answer stacked; None: it has no head."""
    if getattr(outputs, "start_logits", None) is not None:
        return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
    return getattr(outputs, "logits", None)


class OtherClassesError(ModelError):
    """The head has other classes than the task; only a student could train a new one instead."""


def reconciled_head(
    tensors: dict[str, Tensor], config: Mapping[str, Any], task: Task, folder: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors with the head's rows in the task's order, and notes for the user.

    Args:
        config: the checkpoint's `config.json`, whose `id2label` names the head's rows.

    Raises:
        OtherClassesError: the checkpoint has a head for other classes.
    """
    if task.has_language_head:
        return tensors, ()
    head = [name for name in tensors if HEAD.match(name)]
    made_for = (config.get("architectures") or [""])[0]
    if head and made_for and not made_for.endswith(task.kind.heads):
        body = {name: tensor for name, tensor in tensors.items() if name not in head}
        learned = "; a new one is learned" if task.kind.heads else ""
        return body, (f"{folder}: the head of its {made_for} is discarded{learned}",)
    if not head:
        return tensors, ()
    rows = [name for name in head if HEAD_ROWS.fullmatch(name)]
    count = tensors[rows[0]].shape[0] if rows else 0
    names = _names(config, count)
    wanted = task.label_names or task.kind.outputs
    if count == task.num_labels and (not task.kind.has_labels or names == wanted):
        return tensors, ()
    match = match_classes(names, wanted)
    if match is not None:
        order = list(match.order)
        moved = {name: tensors[name][order].contiguous() for name in rows}
        notes = [f"{folder}: of its classes {match.said}"] if match.respelled else []
        if order != sorted(order):
            notes.append(
                f"{folder}: its classes were in the order {', '.join(names)}; reordered to "
                f"{', '.join(wanted)}"
            )
        return tensors | moved, tuple(notes)
    why = why_not_matched(names, wanted, str(folder / "config.json"))
    raise OtherClassesError(
        f"{folder} is a classifier of {count} classes, the task has {task.num_labels}: {why}"
    )


def without_head(
    tensors: Mapping[str, Tensor], task: Task | None, folder: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors without a classification head, and a note for the user.

    Raises:
        ModelError: the task has no classification head.
    """
    if task is None or task.kind.graph != "one_pass":
        what = "no task is known" if task is None else f"the objective is {task.objective}"
        raise ModelError(
            f"new_head initializes a classification head, but for {folder} {what}; remove new_head "
            "(a language head is always kept)"
        )
    body = {name: tensor for name, tensor in tensors.items() if not HEAD.match(name)}
    left_out = len(tensors) - len(body)
    if not left_out:
        return body, (f"{folder} has no head that new_head could replace",)
    return body, (f"{folder}: {left_out} tensors of its head are discarded; a new one is trained",)


def _names(config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The names of the head's rows; placeholders if the config has none."""
    given = config.get("id2label") or {}
    names = {int(i): str(name) for i, name in given.items()}
    return tuple(names.get(i, f"LABEL_{i}") for i in range(count))
