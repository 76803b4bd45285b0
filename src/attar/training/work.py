"""The FLOPs of training, the number of steps for a FLOP budget, and the time of the matrix products
alone, which is a lower bound of a step's time.

    no teacher                         rows · 3 · student          (a backward pass is 2 forwards)
    a live teacher                     rows · (3 · student + teacher)
    a cached teacher                   rows · 3 · student + distinct rows · teacher
    continuations (MiniLLM)            rows · (4 · student + 2 · teacher), over continued prompts:
                                       both generate, the teacher reads, the student learns

A cache runs its teacher once per row, and further epochs reuse the outputs; this pass is counted in
the step that uses them. Work done before a step for any number of students (texts that a teacher
generates, scores of a corpus) is not counted here: a plan has a separate column for it.

Source of the papers' counting: Gu et al. 2024, arXiv 2410.17215, appendix (3·N_s·T / (3·N_s + N_t)
steps of distillation and 3·N_s·T / (4·N_s + 2·N_t) of MiniLLM for T steps without a teacher). It
ignores MiniLLM's additional loss on texts, and so does the count without embeddings here.

A forward and backward pass multiplies each weight matrix three times with as many rows as it reads
tokens: for its output, and for the gradients of its input and of its weights. In an
encoder-decoder, a matrix reads the tokens of one side. Only these products are timed, each with the
rows of one micro-batch. A real step also has attention, norms, activations, the loss, the optimizer
and padding. A teacher multiplies each of its matrices once.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from attar.artifacts import read_result
from attar.errors import ArtifactError, UsageError
from attar.models.cost import Cost, non_embedding_params
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.families import FAMILIES
from attar.step import CountedFlops
from attar.training.config import Matched, TrainStep

ROWS_OF_A_HEAD = 1024
"""A matrix wider than WIDE times its height, such as a head, is multiplied in parts of this many
rows."""
WIDE = 8
MULTIPLIED = ("Linear", "Conv1D")
"""GPT-2's Conv1D is a Linear with transposed weight."""


@dataclass(frozen=True)
class TrainingWork:
    """The computation of a train step, planned or done: its FLOPs for any number of steps."""

    config: TrainStep
    rows: int
    """Rows per epoch."""
    student: CountedFlops
    """FLOPs of one forward pass of a row."""
    teacher: CountedFlops | None = None
    """None: there is none, or no loss uses it."""
    is_cached: bool = False
    """Whether the teacher's outputs come from a cache."""
    continued: tuple[CountedFlops, CountedFlops] | None = None
    """FLOPs of one forward pass of student and teacher over a continued prompt; None: no loss uses
    continuations."""

    def flops(self, steps: int) -> CountedFlops:
        """FLOPs of this many optimizer steps."""
        return CountedFlops(*(self._taken(steps, count) for count in ("all", "non_embedding")))

    def _taken(self, steps: int, count: str) -> int:
        read = self.config.rows_read(steps, self.rows)
        student, teacher = (getattr(of, count, 0) for of in (self.student, self.teacher))
        if self.continued is None:
            taught = min(read, self.rows) if self.is_cached else read
            return read * 3 * student + taught * teacher
        own, asked = (getattr(of, count) for of in self.continued)
        taken = read * (4 * own + 2 * asked)
        if count == "non_embedding":
            return taken
        losses = self.config.text_losses
        is_taught = any(loss.needs_teacher for loss in losses)
        return taken + read * (3 * student * bool(losses) + teacher * is_taught)

    def matched(self, budget: CountedFlops, name: str, word: str) -> Matched:
        """The largest number of optimizer steps within a FLOP budget.

        Args:
            name: of this step, for messages.
            word: name of the step with this budget.

        Raises:
            UsageError: the budget is too small for one step.
        """
        count = self.config.count_flops or "all"
        steps, steps_by_the_other = (
            self._paid_by(budget, each) for each in sorted(COUNTS, key=lambda each: each != count)
        )
        if steps < 1:
            one, paid = (getattr(flops, count) for flops in (self.flops(1), budget))
            size = "batch_size" if self.config.batch_tokens is None else "batch_tokens"
            raise UsageError(
                f'{name}: match_flops = "{word}" is less than one optimizer step: a step takes '
                f'{one:.3g} FLOPs, and "{word}" took {paid:.3g} in all; train "{word}" at least '
                f'{math.ceil(one / max(paid, 1))} times as long, or lower {size} of "{name}"'
            )
        return Matched(
            to=word,
            count=count,
            budget=getattr(budget, count),
            steps=steps,
            steps_by_the_other_count=steps_by_the_other,
        )

    def _paid_by(self, budget: CountedFlops, count: str) -> int:
        def taken(steps: int) -> int:
            return getattr(self.flops(steps), count)

        paid = getattr(budget, count)
        row = self.student if self.continued is None else self.continued[0]
        most = paid // max(3 * getattr(row, count), 1)  # a step reads at least one row
        return bisect_right(range(1, most + 1), paid, key=taken)


COUNTS = {
    "all": "all matrix products",
    "non_embedding": "parameters without embeddings and head",
}


def matched_words(found: Matched) -> str:
    """Describe in a sentence what was matched."""
    other = next(words for count, words in COUNTS.items() if count != found["count"])
    return (
        f"{found['steps']:,} steps, for the {found['budget']:.3g} FLOPs of {found['to']!r} "
        f"({COUNTS[found['count']]}; by {other} {found['steps_by_the_other_count']:,})"
    )


def forward_flops(model: Cost, tokens: int, written: int | None = None) -> CountedFlops:
    """FLOPs of one forward pass of a row of this many tokens.

    Args:
        written: number of decoder input tokens, in an encoder-decoder; None: as many as are read.
    """
    fed = non_embedding_params(model.model) * tokens
    if written is not None:
        decoder: Any = model.model.get_decoder()
        fed += non_embedding_params(decoder) * (written - tokens)
    return CountedFlops(model.flops(1, tokens, written), 2 * fed)


def continued_flops(
    config: TrainStep, student: Cost, teacher: Cost | None
) -> tuple[CountedFlops, CountedFlops] | None:
    """FLOPs of one forward pass of both models over the longest continued prompt; None: no
    continuations.
    """
    if config.rollout_loss is None or teacher is None:
        return None
    tokens = sum(config.rollout_loss.lengths(config.max_length))
    return forward_flops(student, tokens), forward_flops(teacher, tokens)


def flops_of_run(folder: Path) -> CountedFlops:
    """FLOPs of the train step that made a folder.

    Raises:
        ArtifactError: its result does not contain them.
    """
    metrics = read_result(folder).metrics
    try:
        return CountedFlops(int(metrics["flops"]), int(metrics["flops_non_embedding"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder} does not say how many FLOPs its training took ({error!r}); remove it and "
            "run its recipe again"
        ) from error


def matmul_seconds(
    model: PreTrainedModel,
    tokens: int,
    written: int | None = None,
    *,
    products: int = 3,
    dtype: torch.dtype,
) -> float:
    """Time of the products of every weight matrix with the tokens it reads, in seconds.

    Args:
        tokens: number of tokens that the model reads, over all texts.
        written: number of decoder input tokens, in an encoder-decoder; None: as many as `tokens`.
        products: 3 for training; 1 for a forward pass.
        dtype: of the products.
    """
    shapes = Counter(_shapes(model, tokens, written))
    device = next(model.parameters()).device
    return sum(
        count * _seconds(shape, rows, products, dtype, device)
        for (shape, rows), count in shapes.items()
    )


def _shapes(
    model: PreTrainedModel, tokens: int, written: int | None
) -> Iterator[tuple[tuple[int, int], int]]:
    """Input and output features of every matrix that is multiplied, and the tokens it reads."""
    matrices: Any = (m for m in model.modules() if type(m).__name__ in MULTIPLIED)
    rows = {} if written is None else dict.fromkeys(_of_decoder(model), written)
    for module in matrices:
        first, second = module.weight.shape
        shape = (second, first) if isinstance(module, nn.Linear) else (first, second)
        yield shape, rows.get(module, tokens)


def _of_decoder(model: PreTrainedModel) -> set[nn.Module]:
    """The modules that read the decoder's tokens: the head and the decoder, without the key and
    value maps of cross-attention, which are only known in families with a row."""
    decoder: Any = model.get_decoder()
    blocks = anatomy_of(model).blocks if model.config.model_type in FAMILIES else ()
    crossed = [a for block in blocks for a in block.attentions if a.is_cross]
    of_encoder = {view.module for attention in crossed for view in (attention.k, attention.v)}
    return {*decoder.modules(), model.get_output_embeddings()} - of_encoder


def _seconds(
    shape: tuple[int, int], tokens: int, products: int, dtype: torch.dtype, device: torch.device
) -> float:
    width, height = shape
    rows = min(tokens, ROWS_OF_A_HEAD) if height > WIDE * width else tokens
    weight = torch.ones(width, height, dtype=dtype, device=device)
    given = torch.ones(rows, width, dtype=dtype, device=device)
    made = given @ weight  # the first product packs and allocates
    _wait_for(device)
    began = time.perf_counter()
    torch.matmul(given, weight, out=made)
    if products == 3:
        torch.matmul(made, weight.T)
        torch.matmul(given.T, made)
    _wait_for(device)
    return (time.perf_counter() - began) * tokens / rows


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
