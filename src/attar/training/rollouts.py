"""Sample continuations of a step's texts from student and teacher, with the student's current
weights, as examples for a loss.

    prompt   the first tokens of each row of the batch
    y_t      ~ mix · p_teacher + (1 − mix) · q_student, up to an end token
    loss     `attar.losses.policy_gradient`, from the log-probabilities of sampling

A token depends only on (weights, seed, step, row), so a resumed run samples the same tokens as an
uninterrupted one. Every optimizer step samples again: continuations from earlier weights would have
to be stored in checkpoints and corrected for. The teacher reads them twice: during sampling, and
again for its distribution at every position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import NonFiniteError
from attar.losses.config import PolicyGradient
from attar.losses.policy_gradient import sampled_tokens
from attar.losses.targets import UNLABELLED, Counts, SampledTokens, Targets
from attar.losses.total import TotalLoss
from attar.models.sampling import Drawn, Sampling, row_uniforms, sample
from attar.scoring.in_memory import evaluating
from attar.seeds import derive_seed
from attar.training.objectives.examples import Examples
from attar.training.teaching.live import LiveTeacher


@dataclass(frozen=True)
class Continuations:
    """The continued texts of one step; a row keeps the number of the row it continues."""

    texts: Sequence[Tensor]
    """Prompt and continuation of each, (n,)."""
    tokens: SampledTokens
    """The sampled tokens, (B, S)."""
    lengths: Tensor
    """Number of tokens of each continuation, (B,)."""
    places: dict[int, int]
    """Row → its index here."""
    end_id: int
    facts: dict[str, float]

    def counts(self, rows: np.ndarray) -> Counts:
        places = self._places(rows)
        sampled = int(self.lengths[places].sum())
        read = sum(len(self.texts[place]) - 1 for place in places)
        return {"prediction": sampled, "labelled": sampled, "decoder": read}

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        """Inputs (B, T), with labels at the positions where a token was sampled."""
        places = self._places(rows)
        shape = len(places), max(len(self.texts[place]) for place in places) - 1
        ids = torch.full(shape, self.end_id, device=device)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, UNLABELLED)
        known = [torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(3)]
        given = self.tokens.advantages, self.tokens.log_sampled, self.tokens.carried
        for row, place in enumerate(places):
            text, new = self.texts[place], int(self.lengths[place])
            read = len(text) - 1
            ids[row, :read], mask[row, :read] = text[:-1], 1
            labels[row, read - new : read] = text[len(text) - new :]
            for to, values in zip(known, given, strict=True):
                to[row, read - new : read] = values[place, :new]
        advantages, log_sampled, carried = known
        sampled = SampledTokens(labels, advantages, log_sampled, carried)
        inputs = {"input_ids": ids, "attention_mask": mask}
        return inputs, Targets(labels, {"decoder": mask}, sampled, facts=self.facts)

    def _places(self, rows: np.ndarray) -> list[int]:
        return [self.places[row] for row in rows.tolist()]


@dataclass(frozen=True)
class Rollouts:
    """Samples continuations, and holds the loss on them."""

    config: PolicyGradient
    loss: TotalLoss
    examples: Examples
    teacher: LiveTeacher
    max_length: int
    end_id: int
    seed: int

    def sample(
        self, student: PreTrainedModel, rows: np.ndarray, size: int, step: int
    ) -> Continuations:
        """Continue these rows, `size` at a time.

        Args:
            student: the student; its train mode is restored afterwards.
            step: number of the optimizer step.

        Raises:
            NonFiniteError: a model's logits are NaN or infinite.
        """
        seed = derive_seed(self.seed, "rollouts", step)
        prompts: list[Tensor] = []
        drawn: list[Drawn] = []
        with evaluating(student):
            for at in range(0, len(rows), size):
                part = rows[at : at + size]
                prompts += (own := self._prompts(part, student.device))
                try:
                    drawn.append(self._drawn(student, own, part, seed))
                except NonFiniteError as error:
                    named = ", ".join(map(str, part))
                    raise NonFiniteError(
                        f"step {step}: train rows {named} cannot be continued: {error}"
                    ) from error
        lengths = torch.cat([each.lengths for each in drawn])
        ids = torch.cat([each.ids for each in drawn])
        log_sampled = torch.cat([each.log_p for each in drawn])
        log_q, log_p = (torch.cat([each.log_each[model] for each in drawn]) for model in range(2))
        is_sampled = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        found = {"log_q": log_q, "log_p": log_p, "log_sampled": log_sampled}
        ratios = (log_q - log_sampled)[is_sampled].exp()
        last = ids.gather(1, lengths[:, None] - 1)
        facts = {
            "new_tokens": float(lengths.double().mean()),
            "ended": float((last == self.end_id).double().mean()),
            "lowest_ratio": float(ratios.min()),
            "highest_ratio": float(ratios.max()),
        }
        return Continuations(
            [
                torch.cat([prompt, row[:length]])
                for prompt, row, length in zip(prompts, ids, lengths.tolist(), strict=True)
            ],
            sampled_tokens(self.config, ids, is_sampled, **found),
            lengths,
            {row: place for place, row in enumerate(rows.tolist())},
            self.end_id,
            {f"{self.config.kind}.{name}": value for name, value in facts.items()},
        )

    def _prompts(self, rows: np.ndarray, device: torch.device) -> list[Tensor]:
        longest, _ = self.config.lengths(self.max_length)
        inputs, _ = self.examples.batch(rows, device)
        counts = inputs["attention_mask"].sum(dim=1).clamp(max=longest)
        return [
            ids[:count] for ids, count in zip(inputs["input_ids"], counts.tolist(), strict=True)
        ]

    def _drawn(
        self, student: PreTrainedModel, prompts: Sequence[Tensor], rows: np.ndarray, seed: int
    ) -> Drawn:
        _, new_tokens = self.config.lengths(self.max_length)
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.end_id, device=student.device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
        return sample(
            student,
            ids,
            mask,
            row_uniforms(seed, rows.tolist(), new_tokens),
            Sampling(end_ids=(self.end_id,)),
            teacher=self.teacher.model,
            mix=self.config.mix,
        )
