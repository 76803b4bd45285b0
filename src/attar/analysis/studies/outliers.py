"""`outliers`: outlier dimensions through the depth of a model.

Outlier dimensions are found at each place by a criterion (`criteria`) and counted: a dimension is
*recognised k times* if it is an outlier in k blocks, at any of their norms. Stacks are separate,
because the outliers of an encoder and a decoder differ. The same pass gives tail statistics of the
hidden states and tokens with massive activations (`massive`).
Source: Outlier Suppression (Wei et al. 2022), figures 9 and 11; EOFD (2025), appendix H.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar.analysis.config import OutliersStep
from attar.analysis.outlying.criteria import BORDER, Verdict, recognise, together
from attar.analysis.outlying.hidden import Tokens, hidden_states_of, place_row
from attar.analysis.outlying.massive import LayerFigures, Massive, massive_rows
from attar.analysis.subject import Finding, Place, Subject, open_subject
from attar.special_tokens import open_tokenizer
from attar.step import StepContext

MOST_MASSIVE = 200
"""Maximum number of rows of massive activations in the table; the count includes all."""


def outliers(config: OutliersStep, context: StepContext) -> Finding:
    """Find outlier dimensions of every place, count places and blocks of each, and compute
    statistics of hidden states and massive activations.

    Returns: `metrics.outliers`: stack → place → dimensions, strongest first.
    Raises:
        ModelError: the family is unknown, or the criterion needs biases and the norms have none.
        NonFiniteError: a hidden state contains NaN or infinity.
    """
    subject = open_subject(config, context)
    states = _States(subject) if config.activations else None
    verdicts = recognise(config, subject, states.watchers() if states else None)
    shared = shared_dimensions(verdicts)
    facts: dict[str, Any] = {
        "criterion": config.criterion,
        "hidden_size": len(next(iter(verdicts.values())).strength),
        "border": config.token_share if config.criterion == "activation_magnitude" else BORDER,
    }
    if config.criterion == "activation_magnitude":
        facts |= {"magnitude": config.magnitude, "layer_share": config.layer_share}
    if config.reads_texts or config.activations:
        facts |= subject.reading
    tables = {
        "rows": _rows(verdicts, shared),
        "shared": shared,
        "recognised": recognised_times(shared),
    }
    metrics = _metrics(verdicts, shared)
    if states is not None:
        more, said = states.found()
        tables |= more
        facts["massive_activations"] = sum(said["massive_activations"].values())
        metrics |= said
    return Finding(facts, tables, metrics)


class _States:
    """Statistics of the hidden states, independent of the criterion."""

    def __init__(self, subject: Subject) -> None:
        model, states = subject.model, hidden_states_of(subject.model)
        tokens = {
            stack: Tokens.of(model, subject.batches, stack)
            for stack in dict.fromkeys(state.stack for state in states)
        }
        self.words = open_tokenizer(subject.loaded.folder)
        self.figures = {state: LayerFigures() for state in states}
        self.massive = {state: Massive(tokens[state.stack]) for state in states}

    def watchers(self) -> Mapping[Place, Any]:
        figures: dict[Place, Any] = {state: seen.see for state, seen in self.figures.items()}
        massive: dict[Place, Any] = {state: seen.see for state, seen in self.massive.items()}
        return together(figures, massive)

    def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Tables, and metrics."""
        layers = [
            {**place_row(state), "layer": state.index, **figures.row()}
            for state, figures in self.figures.items()
        ]
        counts: dict[str, int] = {}
        for state, massive in self.massive.items():
            counts[state.stack] = counts.get(state.stack, 0) + massive.num_found
        tables = {
            "layers": layers,
            "massive": massive_rows(self.massive, self.words, MOST_MASSIVE),
        }
        return tables, {
            "massive_activations": counts,
            "kurtosis": _by_stack(layers, "kurtosis"),
            "max_to_median": _by_stack(layers, "max_to_median"),
            "largest_magnitude": {
                stack: max(row["largest"] for row in layers if row["stack"] == stack)
                for stack in counts
            },
        }


def _by_stack(layers: list[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    """Stack → hidden state → figure."""
    found: dict[str, dict[str, Any]] = {}
    for row in layers:
        found.setdefault(row["stack"], {})[row["norm"]] = row[key]
    return found


def _rows(verdicts: Mapping[Place, Verdict], shared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per place, with the strength of every outlier dimension of its stack."""
    wanted = {
        stack: [row["dimension"] for row in shared if row["stack"] == stack]
        for stack in dict.fromkeys(place.stack for place in verdicts)
    }
    return [
        {
            **place_row(place),
            "dimensions": verdict.dimensions,
            "strengths": {str(j): float(verdict.strength[j]) for j in wanted[place.stack]},
        }
        for place, verdict in verdicts.items()
    ]


def _metrics(
    verdicts: Mapping[Place, Verdict], shared: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    found: dict[str, Any] = {}
    for place, verdict in verdicts.items():
        found.setdefault(place.stack, {})[place.fqn] = verdict.dimensions
    blocks = {
        stack: {str(r["dimension"]): r["blocks"] for r in shared if r["stack"] == stack}
        for stack in found
    }
    counts = {stack: len(dimensions) for stack, dimensions in blocks.items()}
    return {"outliers": found, "recognised": blocks, "num_outlier_dimensions": counts}


def shared_dimensions(verdicts: Mapping[Place, Verdict]) -> list[dict[str, Any]]:
    """One row per stack and outlier dimension, with its numbers of places and blocks; sorted by
    places, then by strength.
    """
    rows: list[dict[str, Any]] = []
    for stack in dict.fromkeys(place.stack for place in verdicts):
        own = {place: verdict for place, verdict in verdicts.items() if place.stack == stack}
        blocks = {place.block for place in own} - {None}
        for dimension in sorted({j for verdict in own.values() for j in verdict.dimensions}):
            having = [place for place in own if dimension in own[place].dimensions]
            rows.append(
                {
                    "stack": stack,
                    "dimension": dimension,
                    "norms": len(having),
                    "of_norms": len(own),
                    "blocks": len({place.block for place in having} - {None}),
                    "of_blocks": len(blocks),
                    "largest": max(float(own[place].strength[dimension]) for place in having),
                }
            )
    return sorted(rows, key=lambda r: (r["stack"] != "encoder", -r["norms"], -r["largest"]))


def recognised_times(shared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Appendix H: one row per stack and number of times, largest number first."""
    rows: list[dict[str, Any]] = []
    for stack in dict.fromkeys(row["stack"] for row in shared):
        own = [row for row in shared if row["stack"] == stack]
        for times in sorted({row["blocks"] for row in own}, reverse=True):
            dimensions = sorted(row["dimension"] for row in own if row["blocks"] == times)
            rows.append(
                {
                    "stack": stack,
                    "times": times,
                    "of_blocks": own[0]["of_blocks"],
                    "num_dimensions": len(dimensions),
                    "dimensions": dimensions,
                }
            )
    return rows
