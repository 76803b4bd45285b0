"""How long a model that writes takes to read a text, and for each token after it.

    prefill        of an encoder-decoder the encoder; of a decoder alone its pass over the text
    decode_step    one token more

FLOPs promise the first. A step of a small model is bound by the number of its operations instead,
so a feed-forward of an eighth of the work need not make it faster: one latency would hide that.
Models take turns, as for any latency (`evaluation.speed`), at the smallest batch size.
"""

from __future__ import annotations

from typing import Any

from attar.evaluation.compared import Compared
from attar.evaluation.config import Speed
from attar.evaluation.inputs import exact_batch, longest_texts, room_of
from attar.evaluation.speed import first_float, measure_latency

STAGES = ("prefill", "decode_step")


def time_stages(
    compared: Compared, speed: Speed, tokens: int, threads: int
) -> dict[str, dict[str, Any]]:
    """Model → stage → its latency, of the models that write token by token. All read as many tokens
    as the one with the least room can, with one to write."""
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
    turns = len(STAGES) * len(ready) * speed.rounds
    with compared.progress("stages timed", turns) as after_turn:
        for stage in STAGES:
            calls = {name: getattr(stages, stage) for name, stages in ready.items()}
            entries = measure_latency(
                once, [tokens], threads, against, lambda *_, own=calls: own, after_turn
            )
            for name, [entry] in entries.items():
                timed[name][stage] = entry
    return timed
