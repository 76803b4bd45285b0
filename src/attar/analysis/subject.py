"""What a study looks at: a float model, data, and the texts the model is watched on.

The texts are those that would calibrate the model: a seeded choice of training rows in batches of
like length, and what a model with a decoder writes to them, be it the words of classes. A model
without a head is watched all the same; only what judges answers needs one.
Shape letters: `N` values that count, `D` hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.analysis.config import JudgedStudy, Texts, TextStudy
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
from attar.scoring.label_words import LabelWords
from attar.step import StepContext

Place = Site | HiddenState
"""Where hidden dimensions are looked at: a norm's output, or a layer's hidden state."""
UNTUNED_MAX_LENGTH = 128
"""Tokens at which texts are cut for a model whose task is not known."""


@dataclass(frozen=True)
class Watched:
    """A model and the batches it is watched reading."""

    loaded: LoadedModel
    context: StepContext

    @cached_property
    def batches(self) -> Sequence[Batch]:
        """Padded on the right."""
        raise NotImplementedError

    @property
    def model(self) -> PreTrainedModel:
        return self.loaded.model

    @property
    def num_examples(self) -> int:
        return sum(len(batch["input_ids"]) for batch in self.batches)

    @property
    def reading(self) -> dict[str, int]:
        """Texts and their real tokens, for the facts of a study."""
        return {"examples": self.num_examples, "tokens": num_tokens(self.batches)}

    def watch(self, seers: Mapping[Place, Watcher], title: str) -> None:
        """One pass over the texts; the real values (N, D) of each place are shown to its seer,
        batch by batch.

        Raises:
            NonFiniteError: a hidden state holds NaN or infinity.
        """
        real, batches = RealTokens(), self.batches  # made before anyone watches
        states = {p: see for p, see in seers.items() if isinstance(p, HiddenState)}
        sites = {p: see for p, see in seers.items() if not isinstance(p, HiddenState)}
        with (
            inserted(self.model, {s: Watching(real.of(s), see) for s, see in sites.items()}),
            torch.inference_mode(),
            self.context.progress.task(title, len(batches)) as bar,
        ):
            for batch in batches:
                self.context.stop_if_asked("a study")
                real.read(batch)
                if states:
                    _show(run_with_states(self.model, batch), real, states)
                else:
                    final_states(self.model, batch)  # a language head's V logits are not looked at
                bar.advance()


@dataclass(frozen=True)
class Given(Watched):
    """A model and a few batches that come from no data."""

    given: Sequence[Batch]

    @cached_property
    def batches(self) -> Sequence[Batch]:
        return self.given


@dataclass(frozen=True)
class Subject(Watched):
    """A model and what it reads of some data."""

    data: TextData
    texts: Texts
    """Which of the data's training texts."""
    named: LabelWords | None = None
    """How a language model is asked for the data's classes; None: as it was taught."""

    @cached_property
    def batches(self) -> Sequence[Batch]:
        """The texts. Made when they are first asked for: a model that writes takes minutes for its
        part, and not every study reads.
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
        word: as the recipe names it.
        shows_probabilities: with attention whose probabilities are a site.
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
    """The model and the data of a study.

    Raises:
        ModelError: the model's family is unknown, or the study judges answers and the model gives
            none that it can judge.
        DataError: the data cannot be read.
    """
    loaded = open_model(config.model, context, shows_probabilities=shows_probabilities)
    if isinstance(config, JudgedStudy):
        require_classes_or_numbers(config, loaded)
    return Subject(loaded, context, data_of(context, config.data), config.calibration)


def require_classes_or_numbers(config: JudgedStudy, loaded: LoadedModel) -> None:
    """Refuse a model whose answers a study cannot judge, before anything is computed with it.

    Raises:
        ModelError: the model is not fine-tuned, writes text, or answers with words.
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
    """A model's tokenizer with the inputs and the length of its task, if it has one."""
    if loaded.task is not None:
        return TextEncoder.from_folder(
            loaded.folder, loaded.task.max_length, loaded.task.input_names
        )
    longest = anatomy_of(loaded.model).max_tokens or UNTUNED_MAX_LENGTH
    names = input_names_of(loaded.model.config)
    return TextEncoder.from_folder(loaded.folder, min(longest, UNTUNED_MAX_LENGTH), names)
