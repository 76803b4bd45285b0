"""What every data source becomes: texts with labels in named splits, and the rows that were left
out with the reason.

The problem: sources differ in columns, label forms and faults, and the code that uses rows should
not depend on that. The idea: one small immutable table. A text is a tuple of one or two strings (a
sentence or a pair), a label an integer class or, in a regression, a number; an answer that is a
text is its row's target. Rows that cannot be used are kept beside the table, so that
kept + set aside = what was read.

Left out: tensors and token ids. A table knows no model; `tokenize` and `batches` follow.
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
"""The class of a row without a label (a hidden test set); GLUE's own convention. In a regression it
is NaN."""

UNLABELLED_SPLIT = "unlabelled"
"""The name of a split whose texts have no labels, for a teacher to answer."""


def unlabelled_rows(labels: np.ndarray, rows: int) -> np.ndarray:
    """Labels of rows without any, in the form of others: −1, NaN in a regression, and of sets −1
    for each label."""
    none = np.nan if labels.dtype.kind == "f" else UNLABELLED
    return np.full((rows, *labels.shape[1:]), none, dtype=labels.dtype)


@dataclass(frozen=True, slots=True)
class Marks:
    """What is marked in a row's last text."""

    marks: tuple[Mark, ...]
    """In characters, in their order."""
    words: tuple[tuple[int, int], ...] | None = None
    """First and last (exclusive) character of each word, where the data says them."""


@dataclass(frozen=True)
class Split:
    """Texts and their labels, row for row: int64 classes, or float32 numbers in a regression, or
    sets of labels as 0 and 1, int8 (N, C); where the answer is a text, `targets` has it and no row
    has a class, and where it is in the text, `marks`; running text has none of these.
    """

    texts: Sequence[tuple[str, ...]]
    labels: np.ndarray
    targets: tuple[str, ...] | None = None
    """Where the answer is a text; "": the row lacks its target."""
    chunks: CorpusView | None = None
    """What the rows are chunks of, where they come from a corpus."""
    marks: tuple[Marks | None, ...] | None = None
    """Where the answers are parts of the texts; None: the row lacks its own."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_unlabelled(self) -> int:
        """Rows without a label, or without their target."""
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
        """True if no row lacks a label, or its target."""
        return self.num_unlabelled == 0

    def __add__(self, other: Split) -> Split:
        """The rows of both, in this order; of tables without targets and chunks."""
        return Split((*self.texts, *other.texts), np.concatenate([self.labels, other.labels]))

    def rows(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The same table with these rows only, in the order given."""
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
    """Counted from 0 in the order of reading."""
    reason: str


Settled = tuple[Split, list[SetAside]]
"""The rows of a split that are kept, and the others."""


@dataclass(frozen=True)
class TextData:
    """A named data set, ready for any model."""

    name: str
    objective: str
    """Name of its task in `attar.tasks.table`."""
    label_names: tuple[str, ...]
    """Class i is called label_names[i]; empty in a regression and for texts."""
    metrics: tuple[str, ...]
    """What is measured on it; the first one selects the best checkpoint."""
    splits: Mapping[str, Split]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()
    """What the user should know about how it was read."""
    template: str | None = None
    """How a text-to-text model reads a row by convention, with {0} and {1} for its texts."""

    def split(self, name: str, *, labelled: bool = False) -> Split:
        """One split by name.

        Args:
            labelled: refuse a split with rows that have no label.
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
        """What a step with a teacher learns from: the rows of train, then those that nobody has
        labelled."""
        train = self.split("train")
        return train + self.splits[UNLABELLED_SPLIT] if UNLABELLED_SPLIT in self.splits else train

    def set_aside_of(self, split: str) -> dict[str, int]:
        """Reason → how many rows of a split, the most frequent first."""
        reasons = (row.reason for row in self.set_aside if row.split == split)
        return dict(Counter(reasons).most_common())

    @property
    def kind(self) -> Kind:
        return KINDS[self.objective]

    @property
    def num_texts(self) -> int:
        """Texts of a row that a model reads together, 1 or 2; 1 where there are no rows."""
        if self.kind.embeds:
            return 1
        return max(
            (len(split.texts[0]) for split in self.splits.values() if split.texts), default=1
        )

    @property
    def set_aside_counts(self) -> dict[str, int]:
        """ "split: reason" → how many rows, the most frequent first."""
        counts = Counter(f"{row.split}: {row.reason}" for row in self.set_aside)
        return dict(counts.most_common())
