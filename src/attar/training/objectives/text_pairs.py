"""Sequence-to-sequence training of an encoder-decoder, and classification by label words.

The decoder's input is the target shifted one position to the right, after the start token; it
predicts the target, including the end token. The predicted class is the one whose label word has
the highest log-likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from attar.data.tables import Split
from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import DataError
from attar.losses.targets import UNLABELLED, Counts, Targets
from attar.numerics.metrics import METRICS, predicted_classes
from attar.scoring.label_words import Candidates, label_word_scores
from attar.scoring.rows import longest_first, score_rows
from attar.tasks.task import Task
from attar.training.objectives.examples import Validation
from attar.training.objectives.next_tokens import language_metrics, nats_of_rows


@dataclass(frozen=True)
class Classes:
    """The classes of a split's rows, (N,), and the label word of each class, one row of `words` per
    class.
    """

    labels: np.ndarray
    words: Encoded
    values: np.ndarray | None = None
    """The number that each word stands for, (C,); None: words are class names."""
    gold: np.ndarray | None = None
    """The gold numbers of the rows, (N,); `labels` are their nearest words."""

    def score(self, metric: str, answers: np.ndarray) -> float:
        """A metric of the predicted words, given as indices (N,)."""
        if self.values is None or self.gold is None:
            return float(METRICS[metric](answers, self.labels))
        return float(METRICS[metric](self.values[answers], self.gold))

    @property
    def candidates(self) -> Candidates:
        ids, starts = self.words.ids.tolist(), self.words.starts.tolist()
        return Candidates(tuple(tuple(ids[a:b]) for a, b in pairwise(starts)))


def nearest_words(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of the value nearest to each number, (N,)."""
    return np.abs(values - numbers[:, None]).argmin(axis=1)


@dataclass(frozen=True)
class TextPairs:
    """A split for an encoder-decoder."""

    source: Encoded
    target: Encoded
    target_rows: np.ndarray
    """Row of `target` for each row of `source`."""
    start_id: int
    """The decoder's first input token."""
    classes: Classes | None = None

    @classmethod
    def of(
        cls, split: Split, task: Task, encoder: TextEncoder, target_encoder: TextEncoder, start: int
    ) -> TextPairs:
        """Tokenize a split's texts, and its targets or label words.

        Raises:
            DataError: a row has no class, so there is no target.
        """
        source = encoder.encode(task.texts_read(split.texts))
        if not task.label_words:
            target = target_encoder.encode([(text,) for text in split.targets or ()])
            return cls(source, target, np.arange(len(split)), start)
        missing = split.num_unlabelled
        if missing:
            raise DataError(
                f"{missing} of {len(split)} rows have no label, so there is no label word to "
                "generate; remove them, set keep_labels = true in the augment step that made "
                'them, or learn classes with objective = "classification"'
            )
        words = target_encoder.encode([(word,) for word in task.label_words])
        if task.kind.is_score:
            values = np.array(task.word_values)
            nearest = nearest_words(split.labels, values)
            return cls(source, words, nearest, start, Classes(nearest, words, values, split.labels))
        return cls(source, words, split.labels, start, Classes(split.labels, words))

    @property
    def lengths(self) -> np.ndarray:
        return self.source.lengths + self._target_lengths

    @property
    def texts(self) -> Sequence[Encoded]:
        return (self.source, self.target)

    @property
    def _target_lengths(self) -> np.ndarray:
        return self.target.lengths[self.target_rows]

    def __len__(self) -> int:
        return len(self.source)

    def counts(self, rows: np.ndarray) -> Counts:
        read, written = int(self.source.lengths[rows].sum()), int(self._target_lengths[rows].sum())
        return {"prediction": written, "labelled": written, "encoder": read, "decoder": written}

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        target = self.target.batch(self.target_rows[rows])
        ids, mask = target["input_ids"], target["attention_mask"]
        fed = np.concatenate([np.full((len(ids), 1), self.start_id), ids[:, :-1]], axis=1)
        arrays = {
            **self.source.batch(rows),
            "decoder_input_ids": fed,
            "decoder_attention_mask": mask,
        }
        inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        labels = torch.from_numpy(np.where(mask > 0, ids, UNLABELLED)).to(device)
        masks = {
            "encoder": inputs["attention_mask"],
            "decoder": inputs["decoder_attention_mask"],
        }
        return inputs, Targets(labels, masks)

    def validate(self, wanted: Validation) -> dict[str, float]:
        """The requested ones of nll and perplexity of the targets and, for classes, the data's
        metrics; and "loss", which is the nll.
        """
        every = np.arange(len(self))
        if self.classes is None:
            nats = float(nats_of_rows(wanted, self).sum())
            found = language_metrics(nats, self.counts(every)["labelled"])
        else:
            batches = longest_first(self.lengths, wanted.batch_size)
            scorer = label_word_scores(wanted.model, self.classes.candidates)
            scores_NC = score_rows(scorer, self.source, batches, "the model", wanted.after_batch)
            nats_NC = -scores_NC.astype(np.float64)
            labels = self.classes.labels
            gold = float(nats_NC[every, labels].sum())
            found = language_metrics(gold, self.counts(every)["labelled"])
            answers = predicted_classes(-nats_NC, "the model")
            asked = [name for name in wanted.metrics if name not in found]
            found |= {name: self.classes.score(name, answers) for name in asked}
        return {name: found[name] for name in wanted.metrics} | {"loss": found["nll"]}
