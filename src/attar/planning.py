"""Shared context of the plans of a recipe: texts, future models, and speed.

    def plan(config: TrainStep, context: PlanContext) -> StepPlan: ...

The plan of each step is in its `plan.py`; all of them read `PlanContext`, as all steps read
`StepContext`. Parameters and FLOPs of a forward pass are exact: each model is built on torch's meta
device, without weights. Tokens are counted with the model's own tokenizer:

    classification, regression    one row per text                                 classifier's head
    tags, extractive answers      windows of a text, overlapping by a third      head at all tokens
    label words, seq2seq          one row per text                                 language head
    language modelling            ceil(tokens of all documents / max_length)       language head
                                  blocks of max_length tokens

Lengths are estimated from an evenly spaced sample of texts. Left out: tokens added by a template.
Time is FLOPs divided by the measured speed of a matrix product and by the share of that speed that
a whole step reaches.
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
from attar.models.cost import Cost, Head, cost_from_config
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
"""Time to open a model, which hardly depends on the model."""
CORPUS_BYTES_A_TOKEN = 3.5
"""Bytes per token on disk: two or four for the id, plus the compressed text."""
SHARD_BYTES_A_TOKEN = 24
"""Bytes per token in memory, for the shard of a corpus that is being written."""
SAMPLED_TEXTS = 512
"""Number of texts that are tokenized to estimate lengths."""
ONE_BLOCK = 1 << 40
"""A block length that exceeds any data."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ModelPlan:
    """A model that does not exist yet: its cost, tokenizer folder, and bytes per weight."""

    cost: Cost
    tokenizer_folder: Path
    bytes_per_param: float = 4.0
    max_length: int = 128

    @property
    def size_mib(self) -> float:
        return self.cost.num_params * self.bytes_per_param / MIB

    def activation_mib(self, tokens: int) -> float:
        """Memory of the activations of one text for the backward pass, in float32."""
        return 4 * self.cost.kept_floats(tokens) / MIB


@dataclass(frozen=True)
class PlannedTokenizer:
    """A tokenizer for counting tokens."""

    folder: Path
    vocab_size: int
    """Vocabulary size of the planned tokenizer. For the plan, a tokenizer is trained on a small
    part of the text and may have fewer tokens."""
    end_id: int | None


@dataclass(frozen=True)
class PlannedChunks:
    """Chunks of a corpus, or of a part or a selection of it."""

    chunks: int
    tokens: int
    """Total number of tokens that a model reads."""
    is_exact: bool
    """False: estimated from some documents."""

    @classmethod
    def of(cls, view: CorpusView) -> PlannedChunks:
        """Count existing chunks."""
        return cls(len(view), max(view.tokens - len(view), 1), is_exact=True)

    @property
    def mean_tokens(self) -> int:
        return max(1, round(self.tokens / max(self.chunks, 1)))

    def __add__(self, other: PlannedChunks) -> PlannedChunks:
        chunks, tokens = self.chunks + other.chunks, self.tokens + other.tokens
        return PlannedChunks(chunks, tokens, self.is_exact and other.is_exact)


@dataclass(frozen=True)
class PlannedCorpus:
    """Format of a corpus, or of the corpus of a selection."""

    tokenizer: PlannedTokenizer
    max_length: int
    """Number of tokens of the longest chunk that a model reads."""


class PlannedTexts:
    """The data of a recipe, each read once.

    Args:
        data: name → the `[data.<name>]` config.
        say: called with what is being read, which may take a while.
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
        self._running_tokens: dict[tuple[str, str, Path, str], int] = {}

    def add(
        self, step: str, data: TextData, chunks: Mapping[str, PlannedChunks] | None = None
    ) -> None:
        """Add the future rows of a step, represented by other texts.

        Args:
            chunks: chunks of a corpus or a selection, by part.
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
        """The texts of a dataset for evaluation; its train split is not read if possible."""
        config = without_answers(self._configs[name], self._recipe_folder)
        return load_data(config, self._recipe_folder, name=name, seed=self._seed, train=False)

    def loaded(self, name: str, *, texts_only: bool = False) -> TextData:
        """A dataset, by its name in the recipe.

        Args:
            texts_only: whether labels and targets can be missing.
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
        """Running text that the plan does not need: one short row represents each split."""
        unread = Split((("unread text",),), np.full(1, UNLABELLED, np.int64))
        splits = {"train": unread, "validation": unread}
        made = TextData(name, CAUSAL_LM.name, (), CAUSAL_LM.metrics, splits)
        self._made[name] = made
        return made

    def read(self, name: str) -> TextData | None:
        """A dataset that was read for the steps; None if it was not read."""
        return next((data for (word, _), data in self._data.items() if word == name), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes that the steps will give about the data that was read."""
        return tuple(
            note for data in self._data.values() for note in (*data.notes, *left_out(data).values())
        )

    def count(self, data: str, split: str, model: ModelPlan) -> tuple[int, int]:
        """Number of rows of a split (windows for token classification), and their mean number of
        tokens; (0, 1) if the split does not exist.

        Raises:
            DataError, ModelError: a step would fail to split the documents into blocks.
        """
        texts = self.loaded(data)
        if split not in texts.splits:
            return 0, 1
        chunks = texts.splits[split].chunks
        if chunks is not None and len(chunks):
            return len(chunks), round(chunks.tokens / len(chunks))
        rows = texts.splits[split].texts
        if texts.kind.embeds:  # each text of a row is read separately
            rows = [(text,) for row in rows for text in row]
        sampled = rows[:: max(1, len(rows) // SAMPLED_TEXTS)]
        if texts.kind.is_running:
            total = self.running_tokens(data, split, model)
            # a final block of one token predicts nothing and is dropped
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
        """Number of tokens of a split as running text, with an end token after each row.

        Raises:
            DataError, ModelError: a step would fail to read the text.
        """
        end = SEPARATOR if type(model.cost.model).__name__.endswith(MASKED_LM.heads) else END
        key = data, split, model.tokenizer_folder, end
        if key not in self._running_tokens:  # a sweep asks once for each of its models
            rows = self.loaded(data).splits[split].texts
            sampled = rows[:: max(1, len(rows) // SAMPLED_TEXTS)]
            where = f"split {split!r}"
            blocks = token_blocks(model.tokenizer_folder, sampled, ONE_BLOCK, where, end)
            self._running_tokens[key] = round(len(blocks.encoded.ids) * len(rows) / len(sampled))
        return self._running_tokens[key]

    def has_classes(self, data: str) -> bool:
        """Whether rows are labelled with classes."""
        return self.loaded(data).kind.has_classes

    def head(self, data: str, objective: str | None = None) -> Head:
        """The head of a model for this data.

        Args:
            objective: of the step; text_to_text on data with classes generates label words.
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
    """The input of a step's plan, in addition to its config."""

    name: str
    """The step's name in the recipe."""
    seed: int
    recipe: Mapping[str, Any]
    """The whole recipe as plain data."""
    recipe_folder: Path
    texts: PlannedTexts
    models: dict[str, ModelPlan] = field(default_factory=dict[str, ModelPlan])
    """Step → the model that it will make; set by the steps' plans."""
    caches: dict[str, Any] = field(default_factory=dict[str, Any])
    """Cache step → its teacher."""
    tokenizers: dict[str, PlannedTokenizer] = field(default_factory=dict[str, PlannedTokenizer])
    """Step → the tokenizer that its folder will have."""
    corpora: dict[str, PlannedCorpus] = field(default_factory=dict[str, PlannedCorpus])
    """Step → the format of the chunks that it will make or select."""
    made: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Step → its artifact, for steps that are done."""
    scratch: Path = Path()
    """An empty folder that is removed after planning."""
    plans: dict[str, StepPlan] = field(default_factory=dict[str, StepPlan])
    """Step → its plan, for the steps before this one."""
    flops_per_s: float | None = None
    """Assumed effective speed of the target device; None: a share of the speed of a matrix product
    measured on this machine."""

    def model(self, reference: ModelReference, head: Head | None, max_length: int) -> ModelPlan:
        """A model with the given head; None: with its own."""
        word = referenced_model(reference)
        if isinstance(reference, FromConfig):
            tokenizer = self.tokenizer(reference.tokenizer)
            plain = reference.plain(tokenizer.vocab_size, tokenizer.end_id)
            require_reading(str(plain.get("model_type")), tokenizer.folder, self.name)
            return ModelPlan(cost_from_config(plain, head), tokenizer.folder, 4.0, max_length)
        if word in self.models:
            plan = self.models[word]
        else:
            folder = resolve_model(str(word), {}, self.recipe_folder)
            config = read_json(folder / "config.json")
            if head is None and is_sentence_model(folder):
                head = Head(None, embedding=Embedding())
            plan = ModelPlan(cost_from_config(config, head), folder, 4.0, max_length)
        if isinstance(reference, ChangedModel):
            if (width := reference.static_width) is not None:
                table = static_config(plan.cost.model.config.to_dict(), width)
                return replace(plan, cost=cost_from_config(table, head), max_length=max_length)
            smaller = Cost(changed(plan.cost.model, reference))
            return ModelPlan(smaller, plan.tokenizer_folder, 4.0, max_length)
        return plan

    def tokenizer(self, word: str) -> PlannedTokenizer:
        """A tokenizer; for a step, the tokenizer that the step uses."""
        if word in self.tokenizers:
            return self.tokenizers[word]
        if word in self.models:
            folder = self.models[word].tokenizer_folder
        else:
            folder = resolve_model(word, {}, self.recipe_folder)
        return PlannedTokenizer(folder, *vocabulary_of(folder))

    def corpus(self, data: str) -> PlannedCorpus:
        """The format of the chunks that a step will read."""
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
        """Time for these FLOPs of forward passes and of training."""
        if self.flops_per_s is not None:
            return (forward + training) / self.flops_per_s
        speed = measured_flops_per_s(precision, device)
        return (forward / FORWARD_SHARE + training / TRAIN_SHARE) / speed


@cache
def measured_flops_per_s(precision: str, device: torch.device = CPU, seconds: float = 0.3) -> float:
    """Measured FLOP/s of a small model's matrix product on this machine; once per process."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left = torch.ones(1024, 384, dtype=dtype, device=device)
    right = torch.ones(384, 1536, dtype=dtype, device=device)
    torch.matmul(left, right)[0, 0].item()  # warm-up: packs and allocates
    products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        torch.matmul(left, right)[0, 0].item()  # waits for an accelerator
        products += 1
    return 2 * left.numel() * right.shape[1] * products / elapsed
