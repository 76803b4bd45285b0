"""Provenance of all results: steps with keys, time and memory; data with rows that were set aside;
versions; machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from attar.data.look.summary import DataSummary
from attar.report.reading import Made, table, whole
from attar.tasks.table import CAUSAL_LM


@dataclass(frozen=True)
class StepRow:
    name: str
    run: str
    key: str
    inputs: tuple[str, ...]
    seconds: float
    peak_rss_mib: float


@dataclass(frozen=True)
class DataRow:
    """One dataset, as read by a step that trained on it or else evaluated on it."""

    name: str
    """Name of the table, corpus or selection, with the part."""
    unit: str
    """Unit of the counts: rows of a table, or chunks of running text."""
    train_rows: int | None
    validation_rows: int | None
    set_aside: Mapping[str, int]
    """Reason → number of rows that were not used."""
    summary: DataSummary | None = None
    """Summary from training; None in results of earlier versions."""


@dataclass(frozen=True)
class Provenance:
    """Everything needed to reproduce the results."""

    steps: tuple[StepRow, ...]
    data: tuple[DataRow, ...]
    versions: Mapping[str, str]
    differing_versions: Mapping[str, tuple[str, ...]]
    """Libraries whose versions differ between steps (artifacts made with an older version)."""
    machine: Mapping[str, Any]
    recipe: Mapping[str, Any]
    seconds: float
    unsealed: tuple[str, ...] = ()
    """Steps whose `result.json` has no hash, so that edits are not detected."""

    @property
    def rests_on(self) -> str:
        """Description of which results were verified by a hash."""
        sealed, total = len(self.steps) - len(self.unsealed), len(self.steps)
        checked = (
            f"The numbers of {sealed} of {total} steps were verified by the sha256 in their "
            "result.json"
        )
        names = ", ".join(self.unsealed)
        return checked + (f"; not checked, written without one: {names}." if names else ".")


def provenance(
    made: Sequence[Made], machine: Mapping[str, Any], recipe: Mapping[str, Any]
) -> Provenance:
    """The origin of the artifacts the report was given."""
    seen: dict[str, dict[str, None]] = {}
    for step in made:
        for library, version in step.result.versions.items():
            seen.setdefault(library, {})[version] = None
    return Provenance(
        steps=tuple(
            StepRow(
                name=step.name,
                run=step.run,
                key=step.result.key,
                inputs=tuple(step.result.inputs),
                seconds=step.result.seconds,
                peak_rss_mib=step.result.peak_rss_mib,
            )
            for step in made
        ),
        data=_data(made),
        versions={library: list(versions)[-1] for library, versions in sorted(seen.items())},
        differing_versions={
            library: tuple(versions)
            for library, versions in sorted(seen.items())
            if len(versions) > 1
        },
        machine=machine,
        recipe=recipe,
        seconds=sum(step.result.seconds for step in made),
        unsealed=tuple(step.name for step in made if not step.result.sha256),
    )


def _name_of(step: Made, table_name: str) -> str:
    """Name of the data that a step read; a train step can read a part of a corpus."""
    word = step.settings.get("data", table_name)
    word = word.get("from", table_name) if isinstance(word, Mapping) else word
    part = step.settings.get("part", "all")
    return f"{word}, {part} part" if part != "all" else str(word)


def _data(made: Sequence[Made]) -> tuple[DataRow, ...]:
    rows: dict[str, DataRow] = {}
    for step in sorted(
        made, key=lambda step: step.run != "train"
    ):  # training has counts of more splits
        data = table(step.metrics.get("data"))
        if step.run not in ("train", "evaluate") or not data:
            continue
        name, is_train = _name_of(step, str(data.get("name", ""))), step.run == "train"
        is_cut = is_train and step.metrics.get("objective") == CAUSAL_LM.name
        counts = data if is_train else {f"{data.get('split')}_rows": data.get("rows")}
        rows.setdefault(
            name,
            DataRow(
                name=name,
                unit="chunks" if is_cut else "rows",
                train_rows=whole(counts.get("train_rows")),
                validation_rows=whole(counts.get("validation_rows")),
                set_aside={
                    str(reason): count
                    for reason, rows_lost in table(data.get("set_aside")).items()
                    if (count := whole(rows_lost)) is not None
                },
                summary=_summary(table(data.get("summary"))),
            ),
        )
    return tuple(rows.values())


def _summary(plain: Mapping[str, Any]) -> DataSummary | None:
    try:
        return DataSummary.from_json(plain) if plain else None
    except ValidationError:  # written by another version
        return None
