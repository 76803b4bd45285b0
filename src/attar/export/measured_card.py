"""Completes the model card of an exported folder: with the results of evaluate steps of the same
run, at the end of the run, and with a license for publishing.

The evaluate steps of an export are those that read the artifact with the export's key. A card that
is already completed gets the current results. Imports no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.artifacts import (
    CARD_FILE,
    RESULT_FILE,
    Result,
    disk_errors_explained,
    files_below,
    put_beside,
    put_in_place,
    read_result,
    seal,
    write_text,
)
from attar.errors import ArtifactError
from attar.escaping import for_markdown, for_markdown_code, for_yaml
from attar.export.model_card import NO_LICENSE, NOT_MEASURED
from attar.progress import counted
from attar.tasks.task import Task
from attar.untrusted import has_entry

FENCE = "---\n"
RESULTS = "model-index:\n"
"""Begins the last lines of the header."""
MEASURED, LIMITS = "## Measured\n", "## Limits"


@dataclass(frozen=True)
class Measured:
    """Results of one evaluate step for one exported model."""

    name: str
    """Name of the export step."""
    metrics: Mapping[str, Any]
    """Metrics of the whole evaluate step: data, models, differences, machine."""

    @property
    def figures(self) -> Mapping[str, Any]:
        """Metrics of this model."""
        return self.metrics["models"][self.name]

    @property
    def quality(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Metric → value, interval and number of rows, in the order of the data's metrics."""
        names = self.metrics.get("data", {}).get("metrics", ())
        return [(name, self.figures[name]) for name in names if name in self.figures]


def evaluations_of(folder: Path, steps: Iterable[Path] | None = None) -> list[Measured]:
    """Results of the run's evaluate steps for an exported model, sorted by step name.

    Args:
        steps: folders of the steps to consider; None: all of the run.
    """
    if not has_entry(folder / RESULT_FILE):
        return []
    export = read_result(folder)
    found: list[Measured] = []
    for beside in sorted(folder.resolve().parent.iterdir() if steps is None else steps):
        if beside.is_dir() and has_entry(beside / RESULT_FILE):
            found += _of(read_result(beside), export)
    return found


def _of(evaluation: Result, export: Result) -> list[Measured]:
    is_of_it = evaluation.run == "evaluate" and export.key in evaluation.inputs.values()
    models = evaluation.metrics.get("models", {}) if is_of_it else {}
    names = [name for name, key in evaluation.inputs.items() if key == export.key]
    return [Measured(name, evaluation.metrics) for name in names if name in models]


def complete_card(
    folder: Path, staging: Path, steps: Iterable[Path], sha256: Callable[[Path], str]
) -> None:
    """Publish an export again with the results of `steps` in its card, under the same key. Nothing
    is done if it has no card, or was not evaluated, or if the card is up to date.

    Args:
        staging: where to put the new folder together.
        sha256: function that hashes a file.
    """
    measured = evaluations_of(folder, steps)
    if not measured or not has_entry(folder / CARD_FILE):
        return
    card = measured_card(folder, None, measured)
    if card == (folder / CARD_FILE).read_text(encoding="utf-8"):
        return
    shutil.rmtree(staging, ignore_errors=True)
    with disk_errors_explained(staging):
        for file in files_below(folder):
            place = staging / file.relative_to(folder).parent
            place.mkdir(parents=True, exist_ok=True)
            put_beside(file, place)
        write_text(staging / CARD_FILE, card)  # a new file: the link's other end keeps its content
        seal(staging, read_result(folder), sha256)
        put_in_place(staging, folder)


def measured_card(
    folder: Path, license: str | None, measured: Sequence[Measured] | None = None
) -> str:
    """The completed card.

    Args:
        license: identifier of the hub, such as apache-2.0; None: not stated.
        measured: results; None: those of all evaluate steps of the run.
    Raises:
        ArtifactError: the folder has no card, or the card has no YAML header.
    """
    file = folder / CARD_FILE
    card = file.read_text(encoding="utf-8") if has_entry(file) else ""
    head, fence, body = card.removeprefix(FENCE).partition(FENCE)
    if not (card.startswith(FENCE) and fence):
        raise ArtifactError(f"{file} is not the card of an export; export the model again")
    if measured is None:
        measured = evaluations_of(folder)
    head = head.partition(RESULTS)[0]
    head += "".join(f"{line}\n" for line in _header(folder, measured, license))
    body = body.replace(NO_LICENSE, f"- License: {license}.") if license else body
    if measured:
        before, limits, after = body.replace(f"{NOT_MEASURED}\n", "").partition(LIMITS)
        section = "\n".join([MEASURED, *_sections(measured), ""])
        body = f"{before.partition(MEASURED)[0]}{section}\n{limits}{after}"
    return f"{FENCE}{head}{FENCE}{body}"


def _header(folder: Path, measured: Sequence[Measured], license: str | None) -> Iterator[str]:
    """Lines of YAML: the license, and the results as the hub's `model-index`."""
    if license is not None:
        yield f"license: {for_yaml(license)}"
    rows = [(one, *row) for one in measured for row in one.quality]
    if not rows:
        return
    yield RESULTS.strip()
    yield f"- name: {for_yaml(measured[0].name)}"
    yield "  results:"
    for one in measured:
        data = one.metrics["data"]
        yield f"  - task: {{type: {for_yaml(Task.read(folder).shown.pipeline_tag)}}}"
        name, split = for_yaml(data["name"]), for_yaml(data["split"])
        yield f"    dataset: {{name: {name}, type: {name}, split: {split}}}"
        yield "    metrics:"
        for metric, figure in one.quality:
            words = f"{metric}, 95 % interval {_interval(figure)}, {figure['n']:,} rows"
            value = f"{figure['value']:.4f}"
            yield f"    - {{type: {for_yaml(metric)}, value: {value}, name: {for_yaml(words)}}}"


def _sections(measured: Sequence[Measured]) -> Iterator[str]:
    for one in measured:
        data, machine = one.metrics["data"], one.metrics.get("machine", {})
        rows = f"{data['rows']:,} rows"
        yield f"On data {for_markdown_code(data['name'])}, split {data['split']} ({rows}):"
        yield ""
        yield "| | value | 95 % interval |"
        yield "|---|---|---|"
        for metric, figure in one.quality:
            yield f"| {for_markdown(metric)} | {figure['value']:.4f} | {_interval(figure)} |"
        for timed in one.figures.get("latency", ()):
            what = f"milliseconds for {timed['batch']} × {timed['tokens']} tokens"
            yield f"| {what}, {counted(timed['threads'], 'thread')} | {timed['p50']:.2f} | |"
        yield ""
        yield from (f"- {for_markdown(words)}" for words in _sentences(one))
        if cpu := machine.get("cpu"):
            yield f"- Latency was measured on {for_markdown(cpu)}."


def _sentences(one: Measured) -> list[str]:
    differences = one.metrics.get("differences", ())
    return [each["sentence"] for each in differences if each["model"] == one.name]


def _interval(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{low:.4f} to {high:.4f}" if low < high else "–"
