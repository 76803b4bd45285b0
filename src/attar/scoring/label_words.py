"""How a language model is asked for a class: rows in a template, and a word for each class.

The model's own task says both, or a study does. An encoder-decoder reads the row as its source; a
decoder reads it as a prompt, whose beginning is cut where it is too long, so that the question at
its end remains. What is answered is the class whose word is likeliest (`attar.models.choice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from transformers import PreTrainedModel

from attar.data.prompts import INPUTS, prompts
from attar.data.tokenize import Encoded, TextEncoder
from attar.models.choice import Candidates, following_candidates, target_candidates
from attar.special_tokens import open_tokenizer
from attar.tasks.task import Task, filled


@dataclass(frozen=True)
class LabelWords:
    """A template and the classes' words, as one model's tokenizer writes them."""

    template: str
    """What a row's texts are read in, with {0} and {1} for them."""
    candidates: Candidates
    """The classes' words."""

    @classmethod
    def of(cls, model: PreTrainedModel, folder: Path, template: str, words: Sequence[str]) -> Self:
        """Words as the tokenizer in `folder` writes them for this model.

        Raises:
            ModelError: a word has no token, or is joined with the end of the template.
        """
        tokenizer = open_tokenizer(folder)
        if model.config.is_encoder_decoder:
            return cls(template, target_candidates(tokenizer, words))
        return cls(template, following_candidates(tokenizer, words, template))

    @classmethod
    def of_task(cls, model: PreTrainedModel, folder: Path, task: Task | None) -> Self | None:
        """Words as the model was taught to name its classes; None: it answers otherwise."""
        if task is None or not task.label_words:
            return None
        return cls.of(model, folder, task.template, task.label_words)

    def render(self, texts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Each row in the template.

        Raises:
            DataError: the template names a text that a row does not have.
        """
        return [(filled(self.template, row),) for row in texts]

    def encode(
        self,
        model: PreTrainedModel,
        folder: Path,
        texts: Sequence[tuple[str, ...]],
        max_length: int,
    ) -> Encoded:
        """Rows as this model reads them, at most `max_length` tokens with a class's words."""
        rendered = self.render(texts)
        if model.config.is_encoder_decoder:
            return TextEncoder.from_folder(folder, max_length, INPUTS).encode(rendered)
        room = max_length - max(map(len, self.candidates.inputs))
        return prompts(folder, [text for (text,) in rendered], room)
