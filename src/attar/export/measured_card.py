"""Completes the model card of an exported folder for publishing, with the results of evaluate steps
of the same run and a license.

The evaluate steps of an export are those that read the artifact with the export's key. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.artifacts import RESULT_FILE, Result, read_result
from attar.errors import ArtifactError
from attar.escaping import for_markdown, for_markdown_code, for_yaml
from attar.export.model_card import CARD_FILE, NO_LICENSE, NOT_MEASURED
from attar.tasks.task import Task
from attar.untrusted import has_entry

FENCE = "---\n"


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


def evaluations_of(folder: Path) -> list[Measured]:
    """Results of the run's evaluate steps for an exported model, sorted by step name."""
    if not has_entry(folder / RESULT_FILE):
        return []
    export = read_result(folder)
    found: list[Measured] = []
    for beside in sorted(folder.resolve().parent.iterdir()):
        if beside.is_dir() and has_entry(beside / RESULT_FILE):
            found += _of(read_result(beside), export)
    return found


def _of(evaluation: Result, export: Result) -> list[Measured]:
    is_of_it = evaluation.run == "evaluate" and export.key in evaluation.inputs.values()
    models = evaluation.metrics.get("models", {}) if is_of_it else {}
    names = [name for name, key in evaluation.inputs.items() if key == export.key]
    return [Measured(name, evaluation.metrics) for name in names if name in models]


def measured_card(folder: Path, license: str | None) -> str:
    """The completed card.

    Args:
        license: identifier of the hub, such as apache-2.0; None: not stated.
    Raises:
        ArtifactError: the folder has no card, or the card has no YAML header.
    """
    file = folder / CARD_FILE
    card = file.read_text(encoding="utf-8") if has_entry(file) else ""
    head, fence, body = card.removeprefix(FENCE).partition(FENCE)
    if not (card.startswith(FENCE) and fence):
        raise ArtifactError(f"{file} is not the card of an export; export the model again")
    measured = evaluations_of(folder)
    head += "".join(f"{line}\n" for line in _header(folder, measured, license))
    body = body.replace(NO_LICENSE, f"- License: {license}.") if license else body
    if measured:
        body = body.replace(f"{NOT_MEASURED}\n", "")
        section = "\n".join(["## Measured", "", *_sections(measured), ""])
        before, limits, after = body.partition("## Limits")
        body = f"{before}{section}\n{limits}{after}" if limits else f"{body}\n{section}"
    return f"{FENCE}{head}{FENCE}{body}"


def _header(folder: Path, measured: Sequence[Measured], license: str | None) -> Iterator[str]:
    """Lines of YAML: the license, and the results as the hub's `model-index`."""
    if license is not None:
        yield f"license: {for_yaml(license)}"
    rows = [(one, *row) for one in measured for row in one.quality]
    if not rows:
        return
    yield "model-index:"
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
            yield f"| {what}, {timed['threads']} threads | {timed['p50']:.2f} | |"
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
