"""`histograms`: magnitudes of hidden states, layer by layer, of one or two models.

    counts of |h| with four bins per factor of two, on two logarithmic axes

Bins are fixed for all layers, models and runs (`numerics.magnitudes`), so that histograms are
comparable: of a model distilled with and without a loss, of a teacher and its student, of the first
and the last layer. For models of different depth, each hidden state of the shallower one is shown
with the one at the same relative depth of the other.
Source: EOFD (2025), figures 5 to 11. *Differs from the paper*: magnitudes are on a logarithmic axis
(the paper's is linear and differs between plots), and the default text is our own, of the same kind
(a question and its context, for T5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from attar.analysis.config import HistogramsStep
from attar.analysis.outlying.hidden import HiddenState, hidden_states_of
from attar.analysis.subject import Finding, Given, Subject, Watched, encoder_of, open_model
from attar.data.load import data_of
from attar.errors import ModelError
from attar.models.generation import start_of
from attar.models.load import LoadedModel
from attar.numerics.magnitudes import Magnitudes
from attar.quantization.calibration.calibrate import right_padded, to_tensors
from attar.quantization.calibration.real_tokens import DECODER_MASK
from attar.step import StepContext

PER_OCTAVE = 4
"""Bins per factor of two."""
SHOWN = 6
"""Default number of hidden states to show, besides the embedding output."""
QUESTION = (
    "question: Which gas makes bread dough rise? context: Yeast feeds on the sugars in flour and "
    "gives off carbon dioxide. The gas is caught in a net of gluten, so the dough swells; in the "
    "oven its bubbles grow until the crust sets, and most of the gas escapes. Bread without yeast "
    "stays flat unless baking soda or whipped egg whites lift it. Bakers keep a warm corner for "
    "the dough, because yeast works slowly in the cold and dies in water that is too hot."
)
ANSWER = "carbon dioxide"


def histograms(config: HistogramsStep, context: StepContext) -> Finding:
    """Histograms of each shown hidden state of each model.

    Raises:
        ModelError: a family is unknown, or a hidden state does not exist.
        NonFiniteError: a hidden state holds NaN or infinity.
    """
    words = [config.model, *([config.compare_with] if config.compare_with else [])]
    opened = [open_model(word, context) for word in words]
    depths = [_depths(loaded) for loaded in opened]
    facts: dict[str, Any] = {"bins_per_octave": PER_OCTAVE, "tokens_of": {}}
    rows: list[dict[str, Any]] = []
    for number, (word, loaded) in enumerate(zip(words, opened, strict=True)):
        watched = _watched(config, loaded, context)
        # of its own tokenizer and stacks; the first model's is the study's
        facts["tokens_of"][word] = watched.reading["tokens"]
        facts |= {} if number else watched.reading
        wanted = {
            (stack, layers[number]): line
            for stack in depths[number]
            for line, layers in enumerate(_shown(config, words, stack, depths))
        }
        states = hidden_states_of(loaded.model)
        looked_at = {s: Magnitudes() for s in states if (s.stack, s.index) in wanted}
        watched.watch({state: seen.see for state, seen in looked_at.items()}, "magnitudes")
        for state, seen in looked_at.items():
            line = wanted[state.stack, state.index]
            rows.append({"model": word, "line": line, **_row(state, seen)})
    facts["text"] = "a question and its context" if config.data is None else config.data
    return Finding(facts, {"rows": rows}, {"magnitudes": _metrics(rows)})


def _depths(loaded: LoadedModel) -> dict[str, int]:
    """Stack → number of its last hidden state."""
    # in the order of the forward pass, so that the last of a stack remains
    return {state.stack: state.index for state in hidden_states_of(loaded.model)}


def _shown(
    config: HistogramsStep, words: list[str], stack: str, depths: list[dict[str, int]]
) -> Iterator[tuple[int, ...]]:
    """The hidden state of each model in each line. A model without such a stack is treated as if it
    were as deep as the other.
    """
    lasts = [depth.get(stack, max(d.get(stack, 0) for d in depths)) for depth in depths]
    for layer in config.layers or ():
        for word, last in zip(words, lasts, strict=True):
            if layer > last:
                raise ModelError(
                    f"study histograms names hidden state {layer} of the {stack}, model "
                    f"{word!r} has 0 to {last}; name fewer layers, or leave them out"
                )
        yield tuple(layer for _ in words)
    if config.layers is None:
        fewest = min(lasts)
        steps = min(fewest, SHOWN)
        for step in range(steps + 1):
            layer = round(step * fewest / steps)
            yield tuple(round(layer * last / fewest) for last in lasts)


def _watched(config: HistogramsStep, loaded: LoadedModel, context: StepContext) -> Watched:
    if config.data is not None:
        return Subject(loaded, context, data_of(context, config.data), config.calibration)
    encoder = encoder_of(loaded)
    batch = to_tensors(encoder.encode([(QUESTION,)]).batch([0]))
    if loaded.model.config.is_encoder_decoder:
        answer = to_tensors(encoder.encode([(ANSWER,)]).batch([0]))["input_ids"]
        start = torch.full_like(answer[:, :1], start_of(loaded.model))
        batch["decoder_input_ids"] = torch.cat([start, answer[:, :-1]], dim=1)
        batch[DECODER_MASK] = torch.ones_like(answer)
    return Given(loaded, context, [right_padded(batch)])


def _row(state: HiddenState, seen: Magnitudes) -> dict[str, Any]:
    counts = seen.coarse(PER_OCTAVE)
    first, last = min(counts), max(counts)
    return {
        "norm": state.fqn,
        "stack": state.stack,
        "layer": state.index,
        "kind": state.kind,
        "block": state.block,
        "values": seen.total,
        "median": seen.median,
        "p999": seen.quantile(0.999),
        "largest": seen.largest,
        "first_bin": first,
        "counts": [counts.get(place, 0) for place in range(first, last + 1)],
    }


def _metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Model → hidden state → median, 99.9 % quantile and maximum of the magnitudes."""
    found: dict[str, Any] = {}
    for row in rows:
        figures = {name: row[name] for name in ("median", "p999", "largest")}
        found.setdefault(row["model"], {})[row["norm"]] = figures
    return found
