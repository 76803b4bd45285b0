"""Inputs for importance measurements before a model is narrowed: some of its training texts,
prepared as in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar.data.batches import shortest_first
from attar.data.corpus.order import shuffled
from attar.data.tables import TextData
from attar.models.load import LoadedModel
from attar.seeds import derive_seed, generator
from attar.tasks.task import Task
from attar.training.objectives.preparing import examples_for

ROWS = 256
"""As many as for calibration: enough for means over several thousand tokens."""
BATCH_SIZE = 32


def first_look(
    task: Task, data: TextData, seed: int, rows: int = ROWS
) -> Callable[[LoadedModel], Iterator[dict[str, Tensor]]]:
    """Model → batches of the inputs that it will get in training, from at most `rows` randomly
    chosen rows."""

    def batches(loaded: LoadedModel) -> Iterator[dict[str, Tensor]]:
        train = data.split("train", labelled=task.needs_gold(taught=True))
        if train.chunks is None:
            chosen = generator(seed, "first look").permutation(len(train))[:rows]
        else:
            places = np.arange(min(rows, len(train)))
            chosen = shuffled(places, len(train), derive_seed(seed, "first look"), epoch=0)
        examples: Any = examples_for(
            task, train.rows(np.sort(chosen)), "train", loaded, task.input_names
        )
        for batch in shortest_first(examples.lengths, BATCH_SIZE):
            yield examples.batch(batch, torch.device("cpu"))[0]

    return batches
