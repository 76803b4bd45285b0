"""Check whether a train step's settings fit the kind of its data. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar.tasks.table import KINDS, MASKED_LM, SENTENCE_EMBEDDING, SPAN_CORRUPTION, Kind

if TYPE_CHECKING:
    from attar.training.config import TrainStep


def misfit(step: TrainStep, kind: Kind, data: str) -> str | None:
    """Why the step's objective and settings do not fit data of this kind; None if they do."""
    asked = KINDS[step.objective or kind.name]
    if step.rollout_loss is not None and asked.graph != "causal":
        return (
            f"policy_gradient continues running text, and the objective on data {data!r} is "
            f'{asked.name}; name running text with objective = "causal_lm", or use reverse_kl'
        )
    learns_words = kind.may_be_words and asked.writes
    if asked is not kind and not learns_words and not (kind.is_running and asked.hides):
        return (
            f"objective is {asked.name!r}, but data {data!r} is for {kind.name}; leave "
            "objective out, or name other data"
        )
    if step.denoisers and not asked.hides_spans:
        return (
            f"denoisers hide spans, and the objective is {asked.name}; set objective = "
            f'"{SPAN_CORRUPTION.name}", or leave denoisers out'
        )
    if step.masking and (asked.hides_spans or not asked.hides):
        return (
            f"masking masks tokens, and the objective is {asked.name}; set objective = "
            f'"{MASKED_LM.name}", or leave masking out'
        )
    if problem := _of_vectors(step, asked, data):
        return problem
    if step.thresholds is not None and not asked.gives_sets:
        return f"thresholds are of several labels for a text; the objective is {asked.name}"
    if step.window_overlap is not None and not asked.answers_tokens:
        return f"window_overlap is of long texts in windows; the objective is {asked.name}"
    if step.counts_padding and (asked.answers_tokens or asked.embeds):
        return (
            "count_padding is for classes, numbers and written texts, and the objective is "
            f"{asked.name}; leave it out, so that padding does not count"
        )
    words = step.label_words or step.number_step
    if (step.template and not asked.writes) or (words and not learns_words):
        return (
            "template and label_words name classes by words, which needs data with classes "
            f'(number_step: with numbers) and objective = "text_to_text"; data {data!r} is for '
            f"{kind.name} and the objective is {asked.name}"
        )
    return None


def _of_vectors(step: TrainStep, asked: Kind, data: str) -> str | None:
    """Why the losses and embedding settings do not fit the objective; None if they do."""
    if step.embedding is not None and not asked.embeds:
        return f"embedding says how vectors are made, and the objective is {asked.name}"
    on_vectors = [loss.kind for loss in step.losses if loss.on_vectors]
    if on_vectors and not asked.embeds:
        return (
            f"losses {on_vectors} compare vectors of texts, and the objective on data {data!r} "
            f'is {asked.name}; set objective = "{SENTENCE_EMBEDDING.name}" in the data table, '
            "or leave them out"
        )
    if asked.embeds and any(loss.on_answers for loss in step.effective_losses):
        return (
            f"{asked.name} predicts no classes and no words, so it needs losses on vectors: "
            "contrastive for pairs that belong together, cosine for pairs with a score, "
            "vector_mse or similarity_kl with a teacher; losses on hidden states may be added"
        )
    return None
