"""Latency of the prefill and of one decoding step of generative models.

    prefill        the encoder of an encoder-decoder; a decoder-only model's pass over the text
    decode_step    one more token

FLOPs predict the prefill. A decoding step of a small model is limited by the number of operations
instead, so a feed-forward with an eighth of the FLOPs may not be faster. A single latency would
hide this. Models take turns (`evaluation.speed`), at the smallest batch size.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from attar.evaluation.compared import Compared
from attar.evaluation.config import Speed
from attar.evaluation.inputs import exact_batch, longest_texts, room_of
from attar.evaluation.speed import first_float, measure_latency

STAGES = ("prefill", "decode_step")


def time_stages(
    compared: Compared, speed: Speed, tokens: int, threads: int
) -> dict[str, dict[str, Any]]:
    """Model → stage → latency, for autoregressive models. The text length is limited by the model
    with the smallest maximum length, minus one token to generate."""
    batch, forms = min(speed.batch_sizes), compared.forms
    writing = {name: form for name, form in forms.items() if form.task.has_language_head}
    rooms = [room for form in writing.values() if (room := room_of(form.folder)) is not None]
    tokens = min(tokens, *(room - 1 for room in rooms)) if rooms else tokens
    texts = longest_texts(compared.split.texts, batch)
    found = {
        name: form.stages(exact_batch(form.folder, form.task, texts, tokens))
        for name, form in writing.items()
    }
    ready = {name: stages for name, stages in found.items() if stages is not None}
    if not ready:
        return {}
    once = speed.model_copy(update={"batch_sizes": (batch,)})
    against = first_float([(name, forms[name].form) for name in ready])
    timed: dict[str, dict[str, Any]] = {name: {} for name in ready}
    for stage in STAGES:
        calls = {name: getattr(stages, stage) for name, stages in ready.items()}
        counted = partial(compared.progress, f"speed of the {stage}", counts_work=True)
        entries = measure_latency(
            once, [tokens], threads, against, lambda *_, own=calls: own, counted
        )
        for name, [entry] in entries.items():
            timed[name][stage] = entry
    return timed
