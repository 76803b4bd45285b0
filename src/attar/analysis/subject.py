"""The subject of a study: a float model, its data, and calibration texts.

The texts are the same as in calibration: a seeded sample of training rows in batches of similar
length, with generations or label words for models with a decoder. The model does not need a head
unless the study evaluates predictions.
Shape letters: `N` values that count, `D` hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.analysis.config import JudgedStudy, TextStudy
from attar.analysis.outlying.hidden import HiddenState, require_finite, run_with_states
from attar.data.load import data_of
from attar.data.tables import TextData
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError
from attar.models.load import LoadedModel, input_names_of, load_model
from attar.models.sources.references import resolve_model
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.plain_linears import use_linears_
from attar.models.structure.ports import inserted, use_attar_attention_
from attar.models.structure.site_kinds import StackName
from attar.models.structure.sites import Site
from attar.quantization.calibration.calibrate import (
    Batch,
    Watcher,
    Watching,
    num_tokens,
    right_padded,
)
from attar.quantization.calibration.outputs import final_states
from attar.quantization.calibration.real_tokens import RealTokens
from attar.quantization.calibration.texts import calibration_texts
from attar.quantization.config import Texts
from attar.scoring.label_words import LabelWords
from attar.step import StepContext

Place = Site | HiddenState
"""A place where hidden dimensions are examined: the output of a norm, or a hidden state."""
UNTUNED_MAX_LENGTH = 128
"""Maximum number of tokens for a model without a task."""


@dataclass(frozen=True)
class Finding:
    """Plain data throughout."""

    facts: Mapping[str, Any]
    """Conditions of the study: number of examples, bits, metric, value of the float model."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    """Name → rows, in display order; the main table is "rows"."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Metrics for gates and other programs, in addition to the facts."""


@dataclass(frozen=True)
class Watched:
    """A model and the batches to observe it on."""

    loaded: LoadedModel
    context: StepContext

    @cached_property
    def batches(self) -> Sequence[Batch]:
        """Batches, padded on the right."""
        raise NotImplementedError

    @property
    def model(self) -> PreTrainedModel:
        return self.loaded.model

    @property
    def num_examples(self) -> int:
        return sum(len(batch["input_ids"]) for batch in self.batches)

    @property
    def reading(self) -> dict[str, int]:
        """Numbers of texts and of real tokens, for the facts of a study."""
        return {"examples": self.num_examples, "tokens": num_tokens(self.batches)}

    def watch(self, seers: Mapping[Place, Watcher], title: str) -> None:
        """Run the model over the texts and call each place's watcher with its values (N, D) at real
        tokens, per batch.

        Raises:
            NonFiniteError: a hidden state contains NaN or infinity.
        """
        real, batches = RealTokens(), self.batches  # prepared before observing
        states = {p: see for p, see in seers.items() if isinstance(p, HiddenState)}
        sites = {p: see for p, see in seers.items() if not isinstance(p, HiddenState)}
        with (
            inserted(self.model, {s: Watching(real.of(s), see) for s, see in sites.items()}),
            torch.inference_mode(),
        ):
            for batch in real.each(batches, self.context, title, "a study"):
                if states:
                    _show(run_with_states(self.model, batch), real, states)
                else:
                    final_states(self.model, batch)  # without the V logits of a language head


@dataclass(frozen=True)
class Given(Watched):
    """A model and given batches, without data."""

    given: Sequence[Batch]

    @cached_property
    def batches(self) -> Sequence[Batch]:
        return self.given


@dataclass(frozen=True)
class Subject(Watched):
    """A model and its texts from some data."""

    data: TextData
    texts: Texts
    """Selection of the training texts."""
    named: LabelWords | None = None
    """Template and label words for a language model; None: those of its training."""

    @cached_property
    def batches(self) -> Sequence[Batch]:
        """The calibration batches. They are made on first use, because generation takes minutes and
        not every study needs them.
        """
        wanted = self.texts
        made = calibration_texts(
            self.loaded,
            encoder_of(self.loaded),
            self.data,
            self.context,
            examples=wanted.examples,
            batch_size=wanted.batch_size,
            seed=wanted.seed,
            named=self.named,
        )
        return [right_padded(batch) for batch in made.batches]


def _show(
    seen: Mapping[StackName, Sequence[Tensor]],
    real: RealTokens,
    seers: Mapping[HiddenState, Watcher],
) -> None:
    for state, see in seers.items():
        values = seen[state.stack][state.index][real.side(state.stack) > 0].float()
        require_finite(state, values)
        see(values)


def open_model(
    word: str, context: StepContext, *, shows_probabilities: bool = False
) -> LoadedModel:
    """The float model of a study.

    Args:
        word: the model's name in the recipe.
        shows_probabilities: whether to use attention with probabilities as a site.
    """
    folder = resolve_model(word, context.inputs, context.recipe_folder)
    loaded = load_model(folder, attention="eager")
    for note in loaded.notes:
        context.progress.warn(note)
    use_linears_(loaded.model)
    if shows_probabilities:
        use_attar_attention_(loaded.model)
    return loaded


def open_subject(
    config: TextStudy, context: StepContext, *, shows_probabilities: bool = False
) -> Subject:
    """Open the model and the data of a study.

    Raises:
        ModelError: the model's family is unknown, or the study cannot evaluate its predictions.
        DataError: the data cannot be read.
    """
    loaded = open_model(config.model, context, shows_probabilities=shows_probabilities)
    if isinstance(config, JudgedStudy):
        require_classes_or_numbers(config, loaded)
    return Subject(loaded, context, data_of(context, config.data), config.calibration)


def require_classes_or_numbers(config: JudgedStudy, loaded: LoadedModel) -> None:
    """Check that a study can evaluate the predictions of a model, before running it.

    Raises:
        ModelError: the model is not fine-tuned, is generative, or uses label words.
    """
    if loaded.task is None:
        raise ModelError(
            f"model {config.model!r} is not fine-tuned: {loaded.folder} has no classification "
            "head, and this study measures its answers; fine-tune it with a train step first"
        )
    study = getattr(config, "study", "")
    if loaded.task.label_words or loaded.task.kind.is_running:
        raise ModelError(
            f"study {study} judges the classes and numbers of a head, model {config.model!r} "
            f"{loaded.task.answers}; ask for study disabling, which judges it, or name a "
            'classifier (a train step with objective = "classification")'
        )
    if loaded.task.kind.writes:
        raise ModelError(
            f"study {study} judges classes and numbers, model {config.model!r} "
            f"{loaded.task.answers}; judge what it writes with a quantize and an evaluate step, or "
            "ask for a study that needs no judge, such as site_cosine"
        )


def encoder_of(loaded: LoadedModel) -> TextEncoder:
    """A model's tokenizer, with the inputs and maximum length of its task, if it has one."""
    if loaded.task is not None:
        return TextEncoder.from_folder(
            loaded.folder, loaded.task.max_length, loaded.task.input_names
        )
    longest = anatomy_of(loaded.model).max_tokens or UNTUNED_MAX_LENGTH
    names = input_names_of(loaded.model.config)
    return TextEncoder.from_folder(loaded.folder, min(longest, UNTUNED_MAX_LENGTH), names)
