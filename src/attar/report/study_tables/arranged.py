"""Building blocks of study tables (`Column`, `Layout`), and derived rows and columns, such as names
of places, or one column per block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import number_text
from attar.report.reading import number, table, tables

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    key: str
    head: str
    form: str = "number"
    """text, code, number, percent (of 1), percent4, points, metric, change or list."""

    @property
    def is_number(self) -> bool:
        return self.form not in ("text", "code", "list")


@dataclass(frozen=True)
class Layout:
    table: str
    caption: str
    columns: tuple[Column, ...]
    arrange: Callable[[Sequence[Row], Row], tuple[tuple[Column, ...], Sequence[Row]]] | None = None
    """Computes additional columns and other rows from the study's rows and facts."""


def by_stack(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by stack, in order of first occurrence."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row.get("stack", "")), []).append(row)
    return found


NORM_WORDS = {
    "embedding": "embedding",
    "mha_norm": "after attention",
    "cross_norm": "after cross-attention",
    "ffn_norm": "after FFN",
    "final_norm": "last",
    "block": "output",
    "normed_block": "output after the last norm",
}


def named_place(row: Row, words: str, of_block: str = "{} ") -> str:
    """What a row is about, after the number of its block if it is in one."""
    stack = "decoder " if row.get("stack") == "decoder" else ""
    block = row.get("block")
    return stack + ("" if block is None else of_block.format(block)) + words


def norm_name(row: Row) -> str:
    """Readable name of a norm: its block and what it follows.

    Example:
        >>> norm_name({"block": 3, "kind": "mha_norm"}), norm_name({"kind": "embedding"})
        ('block 3, after attention', 'embedding')
    """
    kind = str(row.get("kind", "block"))
    words = NORM_WORDS.get(kind, kind)
    return named_place(row, words, "block {}, ")


def with_norm_names(rows: Sequence[Row], facts: Row) -> tuple[tuple[Column, ...], Sequence[Row]]:
    return (), [{**row, "place": norm_name(row)} for row in rows]


def over_median(row: Row, key: str) -> float | None:
    """Ratio of the largest dimension of a norm to the median one.

    Example:
        >>> over_median({"largest_y": 12.0, "median_y": 1.5}, "y"), over_median({}, "y")
        (8.0, None)
    """
    largest, median = (number(row.get(f"{which}_{key}")) for which in ("largest", "median"))
    return largest / median if largest is not None and median else None


def with_largest(rows: Sequence[Row], facts: Row) -> tuple[tuple[Column, ...], Sequence[Row]]:
    """A norm's largest dimension in its own row; rows of an artifact that has none are left out."""
    flat = []
    for row in rows:
        for first in tables(row.get("dimensions"))[:1]:
            reach = {f"{key} over median": over_median(row, key) for key in ("y", "x")}
            flat.append({**row, **first, "place": norm_name(row), **reach})
    return (), flat


def with_strength(rows: Sequence[Row], facts: Row) -> tuple[tuple[Column, ...], Sequence[Row]]:
    """How far each dimension stands out, in the unit of the criterion."""
    if facts.get("criterion") == "activation_magnitude":
        return (Column("largest", "largest share of tokens %", "percent"),), rows
    return (Column("largest", "largest deviation, σ"),), rows


def with_times(rows: Sequence[Row], facts: Row) -> tuple[tuple[Column, ...], Sequence[Row]]:
    """How often, as appendix H of the EOFD paper says it."""
    return (), [{**row, "times": _times(row.get("times"), row.get("of_blocks"))} for row in rows]


def _times(times: object, blocks: object) -> str:
    if not times:
        return "outside the blocks only"
    return f"{times} {'time' if times == 1 else 'times'} across {blocks} blocks"


def with_both_weights(rows: Sequence[Row], facts: Row) -> tuple[tuple[Column, ...], Sequence[Row]]:
    """Four figures of γ, four of β where any norm has one, and γ of the outlier dimensions."""
    weights = [("gamma", "γ")]
    if any(table(row.get("beta")) for row in rows):
        weights.append(("beta", "β"))
    names = (("mean", "mean"), ("std", "std"), ("min", "least"), ("max", "largest"))
    columns = [
        Column(f"{key} {name}", f"{said} {letter}")
        for key, letter in weights
        for name, said in names
    ]
    flat = []
    for row in rows:
        found = {key: table(row.get(key)) for key, _ in weights}
        figures = {f"{key} {name}": found[key].get(name) for key in found for name, _ in names}
        outliers = table(found["gamma"].get("outliers"))
        said = [f"{name} ({number_text(number(value))})" for name, value in outliers.items()]
        flat.append({**row, "place": norm_name(row), "outliers": said, **figures})
    return (*columns, Column("outliers", "outlier dimensions: γ", "list")), flat


def with_blocks(rows: Sequence[Row], facts: Row) -> tuple[tuple[Column, ...], Sequence[Row]]:
    """The share of clipped tokens of each block as a column of its own: e3 is an encoder's block 3;
    a site outside the blocks goes by its kind.
    """
    names = list(dict.fromkeys(str(name) for row in rows for name in row.get("blocks") or []))
    flat: list[Row] = []
    for row in rows:
        shares = zip(row.get("blocks") or [], row.get("clipped") or [], strict=False)
        flat.append({**row, **{f"clipped {name}": share for name, share in shares}})
    blocks = [name for name in names if name[1:].isdigit()]
    one_stack = len({name[:1] for name in blocks}) == 1
    heads = {name: f"block {name[1:] if one_stack else name}" for name in blocks}
    return tuple(Column(f"clipped {n}", f"{heads.get(n, n)} %", "percent") for n in names), flat
