"""What a plan knows as it goes through a recipe: texts, models that do not exist yet, speed.

    def plan(config: TrainStep, context: PlanContext) -> StepPlan: ...

Each step's plan stands in the `plan.py` beside it; this is what all of them read, as `StepContext`
is what all steps read. Parameters and FLOPs of a forward pass are exact: each model is built on
torch's meta device, without weights. Texts are counted with the model's own tokenizer:

    classification, regression    a row per text, as long as the tokenizer says    classifier's head
    tags, parts of texts          windows of a text that share a third           head at all tokens
    classes as words, seq2seq     the same                                         language head
    language modelling            ceil(tokens of all documents / max_length)       language head
                                  blocks of max_length tokens

Lengths are those of some texts, evenly spread. Left out: what a template adds to a text. Time is
FLOPs over the speed of a matrix product measured here and now, times the share of that speed a
whole step reaches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attar.artifacts import MIB, read_json
from attar.data.corpus.view import ALL, CorpusView
from attar.data.documents import without_answers
from attar.data.load import left_out, load_data
from attar.data.packing import END, SEPARATOR, token_blocks
from attar.data.tables import UNLABELLED, Split, TextData
from attar.data.tokenize import TextEncoder
from attar.data.windows import WindowEncoder
from attar.models.architecture import input_names_of
from attar.models.config import ChangedModel, FromConfig, ModelReference, referenced_model
from attar.models.cost import Cost
from attar.models.planned_head import Head, cost_under
from attar.models.sources.references import resolve_model
from attar.models.sources.sentence_transformers import is_sentence_model
from attar.models.static_student import static_config
from attar.models.surgery import changed
from attar.special_tokens import require_reading, vocabulary_of
from attar.step import StepPlan
from attar.tasks.embedding import Embedding
from attar.tasks.table import CAUSAL_LM, KINDS, MASKED_LM
from attar.tasks.task import Task

RUNTIME_MIB = 450
"""Resident size of Python with torch and transformers loaded, before any model."""
TRAIN_SHARE, FORWARD_SHARE = 0.4, 0.5
"""Share of a plain matrix product's speed that training and inference reach on small models;
measured on the demo (benchmarks/results)."""
OPEN_SECONDS = 5.0
"""Opening one model: hardly depends on the model."""
CORPUS_BYTES_A_TOKEN = 3.5
"""On disk: two or four bytes of the id, and the text, packed."""
SHARD_BYTES_A_TOKEN = 24
"""In memory, of the shard of a corpus that is being written."""
SAMPLED_TEXTS = 512
"""Texts tokenized to know how long they are."""
ONE_BLOCK = 1 << 40
"""A length that no documents reach."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ModelPlan:
    """A model that does not exist yet: its cost, where its tokenizer is, and bytes per weight."""

    cost: Cost
    tokenizer_folder: Path
    bytes_per_param: float = 4.0
    max_length: int = 128

    @property
    def size_mib(self) -> float:
        return self.cost.num_params * self.bytes_per_param / MIB

    def activation_mib(self, tokens: int) -> float:
        """Kept for the backward pass of one text, in float32."""
        return 4 * self.cost.kept_floats(tokens) / MIB


@dataclass(frozen=True)
class PlannedTokenizer:
    """A tokenizer to count with."""

    folder: Path
    vocab_size: int
    """Of the tokenizer that it stands for: one that is yet to be learned is learned for the plan
    from a little text, which may not have as many tokens."""
    end_id: int | None


@dataclass(frozen=True)
class PlannedChunks:
    """Chunks of a corpus, or of a part or a selection of it."""

    chunks: int
    tokens: int
    """That a model is fed of all of them."""
    is_exact: bool
    """False: estimated from some documents."""

    @classmethod
    def of(cls, view: CorpusView) -> PlannedChunks:
        """Of chunks that are there."""
        return cls(len(view), max(view.tokens - len(view), 1), is_exact=True)

    @property
    def mean_tokens(self) -> int:
        return max(1, round(self.tokens / max(self.chunks, 1)))

    def __add__(self, other: PlannedChunks) -> PlannedChunks:
        chunks, tokens = self.chunks + other.chunks, self.tokens + other.tokens
        return PlannedChunks(chunks, tokens, self.is_exact and other.is_exact)


@dataclass(frozen=True)
class PlannedCorpus:
    """The form of a corpus, or of what a selection is from."""

    tokenizer: PlannedTokenizer
    max_length: int
    """Tokens that a model reads of the longest chunk."""


class PlannedTexts:
    """The data of a recipe, each read once.

    Args:
        data: name → the `[data.<name>]` config.
        say: told what is read, which takes a while where there is much.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        recipe_folder: Path,
        seed: int,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._configs, self._recipe_folder, self._seed, self._say = data, recipe_folder, seed, say
        self._data: dict[tuple[str, bool], TextData] = {}
        self._made: dict[str, TextData] = {}
        self._chunks: dict[str, Mapping[str, PlannedChunks]] = {}

    def add(
        self, step: str, data: TextData, chunks: Mapping[str, PlannedChunks] | None = None
    ) -> None:
        """What a step that makes rows will have made, with other texts in the place of those.

        Args:
            chunks: of a corpus or a selection, by part.
        """
        self._made[step] = data
        if chunks is not None:
            self._chunks[step] = chunks

    def chunks_of(self, data: str, part: str = ALL) -> PlannedChunks | None:
        """The chunks that a step will read; None: the data is neither a corpus nor a selection."""
        parts = self._chunks.get(data)
        if parts is not None:
            return parts[part] if part in parts else reduce(add, parts.values())
        train = self.loaded(data).splits.get("train")
        if train is None or train.chunks is None:
            return None
        is_selected = train.chunks.kept is not None
        view = train.chunks if part == ALL or is_selected else replace(train.chunks, part=part)
        return PlannedChunks.of(view)

    def judged(self, name: str) -> TextData:
        """The texts of a data set whose train split is not needed, and left unread where it can
        be."""
        config = without_answers(self._configs[name], self._recipe_folder)
        return load_data(config, self._recipe_folder, name=name, seed=self._seed, train=False)

    def loaded(self, name: str, *, texts_only: bool = False) -> TextData:
        """One data set by its name in the recipe.

        Args:
            texts_only: it may lack labels and targets.
        """
        if name in self._made:
            return self._made[name]
        config, folder = self._configs[name], self._recipe_folder
        if texts_only:
            config = without_answers(config, folder)
        key = name, config is self._configs[name]
        if key not in self._data:
            self._say(f"reading data {name!r}")
            self._data[key] = load_data(config, folder, name=name, seed=self._seed)
        return self._data[key]

    def leave_unread(self, name: str) -> TextData:
        """Running text that a plan does without: one short row stands for each split."""
        unread = Split((("unread text",),), np.full(1, UNLABELLED, np.int64))
        splits = {"train": unread, "validation": unread}
        made = TextData(name, CAUSAL_LM.name, (), CAUSAL_LM.metrics, splits)
        self._made[name] = made
        return made

    def read(self, name: str) -> TextData | None:
        """A data set that was read for the steps; None: it was not."""
        return next((data for (word, _), data in self._data.items() if word == name), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the steps will say about the data that was read for them."""
        return tuple(
            note for data in self._data.values() for note in (*data.notes, *left_out(data).values())
        )

    def count(self, data: str, split: str, model: ModelPlan) -> tuple[int, int]:
        """Rows of a split, or windows where every token is answered, and the mean number of tokens
        of one (0, 1 if there is no such split).

        Raises:
            DataError, ModelError: documents that a step could not cut into blocks either.
        """
        texts = self.loaded(data)
        if split not in texts.splits:
            return 0, 1
        chunks = texts.splits[split].chunks
        if chunks is not None and len(chunks):
            return len(chunks), round(chunks.tokens / len(chunks))
        rows = texts.splits[split].texts
        if texts.kind.embeds:  # each text of a row is read by itself
            rows = [(text,) for row in rows for text in row]
        sampled = rows[:: max(1, len(rows) // SAMPLED_TEXTS)]
        if texts.kind.is_running:
            total = self.running_tokens(data, split, model)
            # a last block of one token predicts nothing and is left out
            return math.ceil((total - 1) / model.max_length), min(total, model.max_length)
        names = input_names_of(model.cost.model.config)
        if texts.kind.answers_tokens:
            task = Task(
                objective=texts.objective,
                label_names=texts.label_names,
                max_length=model.max_length,
                input_names=names,
            )
            lengths = WindowEncoder(model.tokenizer_folder, task).encode(sampled).encoded.lengths
            return round(len(lengths) * len(rows) / len(sampled)), round(float(lengths.mean()))
        encoder = TextEncoder.from_folder(model.tokenizer_folder, model.max_length, names)
        return len(rows), max(1, round(float(encoder.encode(sampled).lengths.mean())))

    def running_tokens(self, data: str, split: str, model: ModelPlan) -> int:
        """Tokens of a split as running text, an end token behind each row.

        Raises:
            DataError, ModelError: text that a step could not read either.
        """
        rows = self.loaded(data).splits[split].texts
        sampled = rows[:: max(1, len(rows) // SAMPLED_TEXTS)]
        end = SEPARATOR if type(model.cost.model).__name__.endswith(MASKED_LM.heads) else END
        where = f"split {split!r}"
        blocks = token_blocks(model.tokenizer_folder, sampled, ONE_BLOCK, where, end)
        return round(len(blocks.encoded.ids) * len(rows) / len(sampled))

    def has_classes(self, data: str) -> bool:
        """Whether each row has one of some classes."""
        return self.loaded(data).kind.has_classes

    def head(self, data: str, objective: str | None = None) -> Head:
        """What a model for this data needs on top.

        Args:
            objective: of the step; text_to_text on data with classes names them by words.
        """
        texts = self.loaded(data)
        kind = KINDS[objective or texts.objective]
        if kind.embeds:
            return Head(None, embedding=Embedding())
        if kind.predicts_words:
            return Head(None, kind)
        return Head(len(texts.label_names) or len(kind.outputs), kind=kind)


@dataclass(frozen=True)
class PlanContext:
    """Everything the plan of a step may know beside its config."""

    name: str
    """The step's name in the recipe."""
    seed: int
    recipe: Mapping[str, Any]
    """The whole recipe as plain data."""
    recipe_folder: Path
    texts: PlannedTexts
    models: dict[str, ModelPlan] = field(default_factory=dict[str, ModelPlan])
    """Step → the model it will make, filled by the plans of such steps."""
    caches: dict[str, Any] = field(default_factory=dict[str, Any])
    """Step → the teacher whose answers it will hold."""
    tokenizers: dict[str, PlannedTokenizer] = field(default_factory=dict[str, PlannedTokenizer])
    """Step → the tokenizer its folder will have."""
    corpora: dict[str, PlannedCorpus] = field(default_factory=dict[str, PlannedCorpus])
    """Step → the form of the chunks it will make or choose."""
    made: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Step → its artifact, of the steps that are done."""
    scratch: Path = Path()
    """An empty folder that is removed after the plan."""
    plans: dict[str, StepPlan] = field(default_factory=dict[str, StepPlan])
    """Step → its plan, of the steps before this one."""
    flops_per_s: float | None = None
    """What a device is assumed to do, all in all; None: the speed of a matrix product is measured
    here, and a step reaches a share of it."""

    def model(self, reference: ModelReference, head: Head | None, max_length: int) -> ModelPlan:
        """A model with the head that is asked for; None: with its own."""
        word = referenced_model(reference)
        if isinstance(reference, FromConfig):
            tokenizer = self.tokenizer(reference.tokenizer)
            plain = reference.plain(tokenizer.vocab_size, tokenizer.end_id)
            require_reading(str(plain.get("model_type")), tokenizer.folder, self.name)
            return ModelPlan(cost_under(head, plain), tokenizer.folder, 4.0, max_length)
        if word in self.models:
            plan = self.models[word]
        else:
            folder = resolve_model(str(word), {}, self.recipe_folder)
            config = read_json(folder / "config.json")
            if head is None and is_sentence_model(folder):
                head = Head(None, embedding=Embedding())
            plan = ModelPlan(cost_under(head, config), folder, 4.0, max_length)
        if isinstance(reference, ChangedModel):
            if (width := reference.static_width) is not None:
                table = static_config(plan.cost.model.config.to_dict(), width)
                return replace(plan, cost=cost_under(head, table), max_length=max_length)
            smaller = Cost(changed(plan.cost.model, reference))
            return ModelPlan(smaller, plan.tokenizer_folder, 4.0, max_length)
        return plan

    def tokenizer(self, word: str) -> PlannedTokenizer:
        """A tokenizer; that of a step is the one which the step itself was given."""
        if word in self.tokenizers:
            return self.tokenizers[word]
        if word in self.models:
            folder = self.models[word].tokenizer_folder
        else:
            folder = resolve_model(word, {}, self.recipe_folder)
        return PlannedTokenizer(folder, *vocabulary_of(folder))

    def corpus(self, data: str) -> PlannedCorpus:
        """The form of the chunks that a step will read."""
        if data in self.corpora:
            return self.corpora[data]
        view = self.texts.loaded(data).split("train").chunks
        assert view is not None, "check refuses anything but chunks"
        about, folder = view.corpus.about, view.corpus.folder
        tokenizer = PlannedTokenizer(folder, about["vocabulary"], about["end_id"])
        return PlannedCorpus(tokenizer, about["max_length"])

    def seconds(
        self,
        *,
        forward: float = 0,
        training: float = 0,
        precision: str = "fp32",
        device: torch.device = CPU,
    ) -> float:
        """How long so many operations take, of forward passes and of training."""
        if self.flops_per_s is not None:
            return (forward + training) / self.flops_per_s
        speed = measured_flops_per_s(precision, device)
        return (forward / FORWARD_SHARE + training / TRAIN_SHARE) / speed


@cache
def measured_flops_per_s(precision: str, device: torch.device = CPU, seconds: float = 0.3) -> float:
    """Operations a second of a small model's matrix product, here; measured once a process."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left = torch.ones(1024, 384, dtype=dtype, device=device)
    right = torch.ones(384, 1536, dtype=dtype, device=device)
    torch.matmul(left, right)[0, 0].item()  # the first one packs and allocates
    products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        torch.matmul(left, right)[0, 0].item()  # waits for an accelerator
        products += 1
    return 2 * left.numel() * right.shape[1] * products / elapsed
