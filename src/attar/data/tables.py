"""The common form of all data sources: texts with labels in named splits, and the rows set aside
with their reasons.

The problem: sources differ in columns, label formats and faults, and code that uses rows should not
depend on that. The idea: one small immutable table. A text is a tuple of one or two strings (a
sentence or a pair), and a label is an integer class or, for regression, a number; if the answer is
a text, it is the row's target. Unusable rows are recorded in the table, so that

    kept + set aside = read

Not included: tensors and token ids. A table does not depend on a model; `tokenize` and `batches`
do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attar.errors import DataError, did_you_mean
from attar.tasks.table import KINDS, Kind
from attar.tasks.tagging import Mark

if TYPE_CHECKING:
    from attar.data.corpus.view import CorpusView

UNLABELLED = -1
"""Class of a row without a label (a hidden test set), as in GLUE. For regression it is NaN."""

UNLABELLED_SPLIT = "unlabelled"
"""Name of the split of unlabelled texts, which a teacher labels."""


def unlabelled_rows(labels: np.ndarray, rows: int) -> np.ndarray:
    """Labels for rows without any, in the same format as `labels`: −1, NaN for regression, or −1
    for each label of a set."""
    none = np.nan if labels.dtype.kind == "f" else UNLABELLED
    return np.full((rows, *labels.shape[1:]), none, dtype=labels.dtype)


@dataclass(frozen=True, slots=True)
class Marks:
    """The marked parts of a row's last text."""

    marks: tuple[Mark, ...]
    """Ordered, in characters."""
    words: tuple[tuple[int, int], ...] | None = None
    """First and last (exclusive) character of each word, if the data contains words."""


@dataclass(frozen=True)
class Split:
    """Texts and their labels, row by row.

    Labels are int64 classes, float32 numbers for regression, or sets of labels as 0 and 1, int8 (N,
    C). If the answer is a text, it is in `targets`, and if it is a part of the text, in `marks`; no
    row then has a class. Running text has no answers.
    """

    texts: Sequence[tuple[str, ...]]
    labels: np.ndarray
    targets: tuple[str, ...] | None = None
    """Target texts, if the answer is a text; "": the row has no target."""
    chunks: CorpusView | None = None
    """The view of the corpus that the rows come from, if they are chunks."""
    marks: tuple[Marks | None, ...] | None = None
    """Marked parts of the texts, if these are the answers; None: the row has no answer."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_unlabelled(self) -> int:
        """Number of rows without a label or target."""
        if self.targets is not None:
            return sum(not target for target in self.targets)
        if self.marks is not None:
            return sum(marks is None for marks in self.marks)
        if self.labels.dtype.kind == "f":
            return int(np.isnan(self.labels).sum())
        unlabelled = self.labels == UNLABELLED
        return int((unlabelled if unlabelled.ndim == 1 else unlabelled.any(axis=1)).sum())

    @property
    def is_labelled(self) -> bool:
        """Whether every row has a label or target."""
        return self.num_unlabelled == 0

    def __add__(self, other: Split) -> Split:
        """The rows of both, in this order. Not for splits with targets or chunks."""
        return Split((*self.texts, *other.texts), np.concatenate([self.labels, other.labels]))

    def rows(self, indices: Sequence[int] | np.ndarray) -> Split:
        """Only these rows, in the given order."""
        numbers = np.asarray(indices, dtype=np.int64)
        if self.chunks is not None:
            if (np.diff(numbers) > 0).all():
                return self.chunks.take(numbers).split()
            texts = tuple((text,) for text in self.chunks.texts(numbers))
        else:
            texts = tuple(self.texts[i] for i in indices)
        return Split(
            texts,
            self.labels[numbers],
            None if self.targets is None else tuple(self.targets[i] for i in indices),
            marks=None if self.marks is None else tuple(self.marks[i] for i in indices),
        )


@dataclass(frozen=True, slots=True)
class SetAside:
    """A row that was not used, and why."""

    split: str
    row: int
    """Counted from 0, in reading order."""
    reason: str


Settled = tuple[Split, list[SetAside]]
"""The kept rows of a split, and the rows set aside."""


@dataclass(frozen=True)
class TextData:
    """A named data set, independent of any model."""

    name: str
    objective: str
    """Name of its task in `attar.tasks.table`."""
    label_names: tuple[str, ...]
    """Class i is called label_names[i]; empty for regression and for texts."""
    metrics: tuple[str, ...]
    """Metrics to compute; the first one selects the best checkpoint."""
    splits: Mapping[str, Split]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()
    """Notes for the user about how the data was read."""
    template: str | None = None
    """The usual input format for a text-to-text model, with {0} and {1} for a row's texts."""

    def split(self, name: str, *, labelled: bool = False) -> Split:
        """A split by name.

        Args:
            labelled: raise if rows have no label.

        Raises:
            DataError: there is no such split, or it has rows without a label.
        """
        if name not in self.splits:
            known = list(self.splits)
            raise DataError(
                f"data {self.name!r} has no split {name!r}{did_you_mean(name, known)}; it has "
                f"{', '.join(f'{split} ({len(self.splits[split])} rows)' for split in known)}; "
                "choose one of these, or add a file for it"
            )
        found = self.splits[name]
        if labelled and not found.is_labelled:
            raise DataError(
                f"split {name!r} of data {self.name!r} has rows without a label "
                f"({found.num_unlabelled:,} of {len(found):,}), but labels are needed here; choose "
                "a labelled split, name the label column with label =, or set keep_labels = true "
                "in the augment step that made these rows"
            )
        return found

    @property
    def taught(self) -> Split:
        """Training rows for a step with a teacher: the train split, then the unlabelled rows."""
        train = self.split("train")
        return train + self.splits[UNLABELLED_SPLIT] if UNLABELLED_SPLIT in self.splits else train

    def set_aside_of(self, split: str) -> dict[str, int]:
        """Reason → number of rows of a split that were set aside, most frequent first."""
        reasons = (row.reason for row in self.set_aside if row.split == split)
        return dict(Counter(reasons).most_common())

    @property
    def kind(self) -> Kind:
        return KINDS[self.objective]

    @property
    def num_texts(self) -> int:
        """Number of texts of a row that a model reads together, 1 or 2; 1 if there are no rows."""
        if self.kind.embeds:
            return 1
        return max(
            (len(split.texts[0]) for split in self.splits.values() if split.texts), default=1
        )

    @property
    def set_aside_counts(self) -> dict[str, int]:
        """ "split: reason" → number of rows, most frequent first."""
        counts = Counter(f"{row.split}: {row.reason}" for row in self.set_aside)
        return dict(counts.most_common())
