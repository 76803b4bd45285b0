"""A data set on one screen: rows, classes, lengths, repeated texts, and what looks wrong.

The problem: most failures of a first model come from its data (one class has 99 % of the rows,
validation is a copy of train, a delimiter was misread), and a score reveals that late. The idea:
one summary, which a result can store as plain data, shown wherever data is used: `attar new`,
`attar check`, `attar plan` and the report. `one_pass` computes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from attar.escaping import for_terminal
from attar.progress import aligned

CLASSES_SHOWN = 12
COPY = 0.5
"""A split is called a copy of train if at least this share of its rows is also in train."""


@dataclass(frozen=True)
class Lengths:
    p50: int
    p95: int
    longest: int
    """Of the measured rows."""


@dataclass(frozen=True)
class SplitSummary:
    """The usable rows of one split."""

    rows: int
    classes: dict[str, int] = field(default_factory=dict[str, int])
    """Class → number of rows, most frequent first; empty: too many classes, or labels that are not
    classes."""
    num_labels: int = 0
    """Number of distinct labels, counted up to one more than classification allows."""
    numbers: tuple[float, float, float] | None = None
    """Lowest, mean and highest label of a regression."""
    unlabelled: int = 0
    lengths: Lengths | None = None
    """None if there are no rows."""
    repeated: int = 0
    """Number of rows whose text also occurs in an earlier row of the split."""
    contradicting: int = 0
    """Number of these rows with a different label."""
    in_train: int = 0
    """Number of rows whose text is also in train."""
    set_aside: dict[str, int] = field(default_factory=dict[str, int])
    """Reason → number of rows that cannot be used."""


@dataclass(frozen=True)
class DataSummary:
    name: str
    splits: dict[str, SplitSummary]
    unit: str
    """Unit of lengths: tokens or words."""
    first_rows: int | None = None
    """Number of rows read per split; None: all."""
    is_estimate: bool = False
    """Whether repeated texts were counted on a sample of the rows."""
    notes: tuple[str, ...] = ()
    """What looks wrong, each with advice."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(plain: Any) -> DataSummary:
        """Parse the summary stored in a result.

        Raises:
            ValidationError: it does not match this schema.
        """
        return TypeAdapter(DataSummary).validate_python(plain)

    def lines(self) -> list[str]:
        read = "" if self.first_rows is None else f" (the first {self.first_rows:,} rows)"
        lines = [f"data {self.name!r}{read}"]
        lines += [f"  {line}" for line in aligned(self.table())]
        lines += [f"  {line}" for line in self.remarks()]
        lines += [f"  note: {note}" for note in self.notes]
        return list(map(for_terminal, lines))

    def table(self) -> list[tuple[str, ...]]:
        """A header row, and one row per split."""
        about = "≈ " if self.is_estimate else ""
        heading = ("split", "rows", f"{self.unit}: p50", "p95", "longest", "repeated", "in train")
        rows = [
            (
                name,
                f"{split.rows:,}",
                *_of_lengths(split.lengths),
                f"{about if split.repeated else ''}{split.repeated:,}",
                "" if name == "train" else f"{about if split.in_train else ''}{split.in_train:,}",
            )
            for name, split in self.splits.items()
        ]
        has_others = any(row[-1] for row in rows)
        return [row if has_others else row[:-1] for row in (heading, *rows)]

    def remarks(self) -> list[str]:
        """Classes or numbers of train, and rows that were set aside."""
        found = []
        train = self.splits.get("train") or next(iter(self.splits.values()), None)
        if train is not None and train.classes:
            few = list(train.classes.items())[:CLASSES_SHOWN]
            counts = ", ".join(f"{name} {n:,} ({n / train.rows:.0%})" for name, n in few)
            more = len(train.classes) - len(few)
            found.append(
                f"{len(train.classes)} classes: {counts}" + (f", and {more:,} more" if more else "")
            )
        if train is not None and train.numbers is not None:
            low, mean, high = train.numbers
            found.append(f"labels from {low:g} to {high:g}, mean {mean:.4g}")
        for name, split in self.splits.items():
            if split.set_aside:
                reasons = ", ".join(f"{n:,} × {why}" for why, n in split.set_aside.items())
                found.append(f"left out of {name}: {reasons}")
            if split.unlabelled:
                found.append(f"without a label in {name}: {split.unlabelled:,}")
        return found


def _of_lengths(lengths: Lengths | None) -> tuple[str, str, str]:
    if lengths is None:
        return "", "", ""
    return f"{lengths.p50:,}", f"{lengths.p95:,}", f"{lengths.longest:,}"


def notes_between(splits: Mapping[str, SplitSummary]) -> Iterator[str]:
    """Problems between rows and between splits."""
    for name, split in splits.items():
        if split.contradicting:
            yield (
                f"rows of {name} with the text of another row and a different label: "
                f"{split.contradicting:,}; no model can predict both, so correct one of them"
            )
        if name != "train" and split.in_train:
            what = "is a copy of train" if split.in_train > COPY * split.rows else "overlaps train"
            yield (
                f"{name} {what}: rows with a text of train: {split.in_train:,} of "
                f"{split.rows:,}; metrics on training texts are misleading; remove these rows, or "
                "remove the file to hold out rows of train"
            )
        elif name == "train" and split.repeated > COPY * split.rows:
            yield (
                f"{split.repeated:,} of {split.rows:,} rows of train repeat a text and count each "
                "time; remove them if this is not intended"
            )
