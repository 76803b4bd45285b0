"""`run = "generate"`: a corpus and a teacher in; a corpus of texts out that the teacher wrote.

The problem: a teacher with another architecture or another vocabulary cannot be asked for
distributions that a student understands. The idea of sequence-level distillation (SeqKD; Kim and
Rush, arXiv 1606.07947): the student learns from what the teacher says. The teacher reads the first
`prompt_tokens` of a chunk and draws what follows; prompt and continuation are a chunk of the new
corpus, which trains, is scored, selected from and retokenized as any corpus is. How long the prompt
is stays beside the tokens, so that training may leave it out of the loss.

A text is a function of (seed, row of its prompt in the corpus) and of the model alone, as
`attar.models.sampling` draws it. All prompts are of one length, so nothing is padded, and the
batches of a shard are consecutive chunks. A shard is put in place when it is whole; a stopped run
goes on with the batch it was at, a killed one with a batch of the minute before, and both end with
the same bytes. That needs the same batches too: another `batch_tokens` may round a probability
otherwise, and once in a few million draws that is another token.

Memory: the teacher, the cache of one batch, and one shard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from tokenizers import Tokenizer

from attar.artifacts import put_beside, write_bytes
from attar.data.corpus.order import shuffled
from attar.data.corpus.packing import Chunk
from attar.data.corpus.published import view_of
from attar.data.corpus.token_store import PARTS, Corpus, ShardFiles, ShardWriter
from attar.data.corpus.view import CorpusView, Places
from attar.data.packing import INPUTS
from attar.distillation.config import GenerateMetrics, GenerateStep
from attar.distillation.written import ReadBeside, measured
from attar.errors import DataError, ModelError, StoppedError
from attar.models.cost import forward_flops
from attar.models.load import LoadedModel, build_model
from attar.models.sampling import Sampling, has_cache, row_uniforms, sample
from attar.numerics.selection import share_of
from attar.progress import Task
from attar.special_tokens import open_tokenizer, tokenizer_digest, write_tokenizer
from attar.step import StepContext
from attar.tasks.table import CAUSAL_LM
from attar.training.objectives.preparing import require_embeddings
from attar.training.update.precision import device_here

KEEP_EVERY_S = 60.0
WRITTEN_PART = PARTS[0]
"""Of every chunk: all of them may be scored and selected from."""


def generate(config: GenerateStep, context: StepContext) -> GenerateMetrics:
    """Write the shards and `corpus.json`; counts and what the report shows.

    Raises:
        AttarError: whatever a user can mend.
        StoppedError: asked to stop; what is written so far is kept.
    """
    view, _ = view_of(context, config.data, config.part)
    teacher = _teacher(config, context, view.corpus)
    places, too_short = prompts_of(config, view, context)
    writer = _Writer(config, context, view, places, teacher)
    corpus = _published(config, context, view, writer.shards())
    write_tokenizer(view.corpus.folder, context.folder, None, INPUTS)  # it names the end token
    read = ReadBeside(view, corpus, places, writer.tokenizer)
    lengths = np.concatenate([shard.lengths for shard in corpus.shards])
    found: dict[str, Any] = measured(config, context, read) | corpus.counts()
    return {
        "data": config.data,
        "part": config.part,
        "texts": len(places),
        "too_short": too_short,
        "prompt_tokens": config.prompt_tokens,
        "new_tokens": int(lengths.sum()) - config.prompt_tokens * len(places),
        "flops": forward_flops(teacher.model, lengths - 1),
        **found,  # pyright: ignore[reportReturnType]
    }


def prompts_of(config: GenerateStep, view: CorpusView, context: StepContext) -> tuple[Places, int]:
    """The chunks whose beginnings are continued, rising, and how many were too short for it. 8
    bytes a text.

    Raises:
        DataError: all are too short.
    """
    size = len(view)
    drawn = np.arange(num_texts(config, size))
    if len(drawn) < size:
        drawn = np.sort(shuffled(drawn, size, context.seed, 0))
    lengths = view.lengths(drawn)
    places = drawn[lengths >= config.prompt_tokens]
    if not len(places):
        longest = int(lengths.max(initial=0))
        raise DataError(
            f"{context.name}: none of the {len(drawn):,} chunks of {config.data!r} has "
            f"prompt_tokens = {config.prompt_tokens} tokens, the longest has {longest}; lower "
            "prompt_tokens, or tokenize with a higher max_length"
        )
    if too_short := len(drawn) - len(places):
        context.progress.say(
            f"  {context.name}: {too_short:,} of {len(drawn):,} chunks have fewer than "
            f"prompt_tokens = {config.prompt_tokens} tokens and are left out"
        )
    return places, too_short


def num_texts(config: GenerateStep, chunks: int) -> int:
    """Texts that are written, of so many chunks."""
    wanted = share_of(config.share, chunks) if config.chunks is None else config.chunks
    return min(max(1, wanted), chunks)


def _teacher(config: GenerateStep, context: StepContext, corpus: Corpus) -> LoadedModel:
    """The model, on the device there is."""
    loaded = build_model(config.model, context.inputs, context.recipe_folder, None, context.seed)
    kind = type(loaded.model).__name__
    if not kind.endswith(CAUSAL_LM.heads):
        raise ModelError(
            f"{context.name}: {config.model} is a {kind}, which does not predict the next token; "
            "name a causal language model"
        )
    if tokenizer_digest(open_tokenizer(loaded.folder)) != corpus.about["tokenizer"]:
        raise ModelError(
            f"{context.name}: the tokenizer of {config.model} is not the one that "
            f"{config.data!r} was made with; tokenize the texts with this model's tokenizer (a "
            "student with another one reads what is written by "
            f'{{ from = "{context.name}", retokenize = true }})'
        )
    length = config.prompt_tokens + config.new_tokens
    positions = getattr(loaded.model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and length > positions:
        raise ModelError(
            f"{context.name}: prompt_tokens + new_tokens is {length}, and {config.model} has "
            f"{positions} positions; set the two to {positions} together, or less"
        )
    require_embeddings(loaded.model, corpus.about["vocabulary"] - 1, context.name)
    if not has_cache(loaded.model):
        context.progress.warn(
            f"{context.name}: models of type {loaded.model.config.model_type!r} keep nothing of "
            "what they have read, so the whole text is read again for every token"
        )
    loaded.model.to(device_here()).eval()  # pyright: ignore[reportArgumentType]
    return loaded


@dataclass
class _Begun:
    """The texts of a shard while it is written; on disk about once a minute."""

    texts: list[NDArray[np.int32]]
    """Prompt and continuation of each, batch by batch."""
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, file: Path) -> _Begun:
        """What a stopped or killed run left; else the beginning."""
        with suppress(OSError, SafetensorError, KeyError, ValueError):
            found = load_file(file)
            return cls(np.split(found["ids"], found["ends"][:-1]))
        return cls([])

    def save(self, file: Path) -> None:
        if self.texts:
            ends = np.cumsum([len(text) for text in self.texts])
            write_bytes(file, save({"ids": np.concatenate(self.texts), "ends": ends}))
        self.saved_at = time.monotonic()


class _Writer:
    """Writes the shards of a corpus that a teacher makes of the beginnings of another's chunks."""

    def __init__(
        self,
        config: GenerateStep,
        context: StepContext,
        view: CorpusView,
        places: Places,
        teacher: LoadedModel,
    ) -> None:
        self._config, self._context, self._teacher = config, context, teacher
        self._view, self._places = view, places
        self._about = view.corpus.about
        self._sampling = Sampling(
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            end_ids=(self._about["end_id"],),
            min_new_tokens=config.min_new_tokens,
            vocabulary=self._about["vocabulary"],
        )
        self.tokenizer = open_tokenizer(view.corpus.folder)

    def shards(self) -> list[ShardFiles]:
        """Write those that are not there yet."""
        folder, rows = self._context.scratch / "shards", self._config.shard_rows
        folder.mkdir(parents=True, exist_ok=True)
        made: list[ShardFiles] = []
        with self._context.progress.task(f"  {self._context.name}", len(self._places)) as task:
            for number, begin in enumerate(range(0, len(self._places), rows)):
                files, places = ShardFiles(folder, number), self._places[begin : begin + rows]
                if files.tokens.exists():  # put in place last
                    task.skip(len(places))
                else:
                    self._write(files, places, task)
                made.append(files)
        return made

    def _write(self, files: ShardFiles, places: Places, task: Task) -> None:
        part = files.tokens.with_suffix(".part")
        begun = _Begun.read(part)
        task.skip(len(begun.texts))
        fill_(begun, self._batches(places, begun, part), task, part)
        shard = ShardWriter(self._about["vocabulary"])
        sources, documents = (self._view.column(name, places) for name in ("source", "document"))
        for ids, source, document in zip(begun.texts, sources, documents, strict=True):
            shard.add(self._chunk(ids, int(document)), int(source))
        shard.write(files)
        part.unlink(missing_ok=True)

    def _batches(
        self, places: Places, begun: _Begun, part: Path
    ) -> Iterator[list[NDArray[np.int32]]]:
        """Texts of the batches that have not come yet."""
        config, model = self._config, self._teacher.model

        def stop_if_asked() -> None:
            if self._context.should_stop():
                begun.save(part)
                raise StoppedError(
                    f"{self._context.name} stopped after {len(begun.texts):,} texts of a shard; "
                    "they are saved, and `attar resume` (or the same command again) goes on from "
                    "there"
                )

        for begin in range(len(begun.texts), len(places), config.batch_rows):
            batch = places[begin : begin + config.batch_rows]
            given = np.stack([ids[: config.prompt_tokens] for ids in self._view.ids(batch)])
            prompts = torch.from_numpy(given)
            rows = self._view.rows(batch).tolist()
            with torch.inference_mode():
                drawn = sample(
                    model,
                    prompts,
                    torch.ones_like(prompts),
                    row_uniforms(self._context.seed, rows, config.new_tokens),
                    self._sampling,
                    before_token=stop_if_asked,
                )
            written, lengths = drawn.ids.cpu().numpy(), drawn.lengths.tolist()
            yield [
                np.concatenate([prompt, ids[:length]]).astype(np.int32)
                for prompt, ids, length in zip(given, written, lengths, strict=True)
            ]

    def _chunk(self, ids: NDArray[np.int32], document: int) -> Chunk:
        return Chunk(
            part=WRITTEN_PART,
            source="",
            document=document,
            ids=ids,
            pieces=pieces_of(ids, self._about["end_id"], self.tokenizer),
            ends_document=True,  # what follows in the corpus is another text
            prompt=self._config.prompt_tokens,
        )


def fill_(
    begun: _Begun, batches: Iterator[list[NDArray[np.int32]]], task: Task, part: Path
) -> None:
    """Take the texts of all batches, and save them about once a minute."""
    start = time.monotonic()
    for texts in batches:
        begun.texts += texts
        rate = sum(map(len, texts)) / max(time.monotonic() - start, 1e-9)
        task.advance(len(texts), f"{rate:,.0f} tokens/s, prompts included")
        if time.monotonic() - begun.saved_at > KEEP_EVERY_S:
            begun.save(part)
        start = time.monotonic()


def pieces_of(ids: NDArray[np.integer], end_id: int, tokenizer: Tokenizer) -> tuple[str, ...]:
    """The text of each document in some tokens, and of the part of a document at the end."""
    ends = np.flatnonzero(ids == end_id)
    parts = [part[part != end_id].tolist() for part in np.split(ids, ends + 1)]
    if len(ends) and ends[-1] == len(ids) - 1:
        parts.pop()  # nothing is behind the last end token
    return tuple(tokenizer.decode_batch(parts, skip_special_tokens=False))


def _published(
    config: GenerateStep, context: StepContext, view: CorpusView, shards: list[ShardFiles]
) -> Corpus:
    counts: list[dict[str, int]] = []
    for files in shards:
        starts = files.arrays()["starts"]
        counts.append({"chunks": len(starts) - 1, "tokens": int(starts[-1])})
        put_beside(files.tokens, context.folder)
        put_beside(files.texts, context.folder)
    about = {**view.corpus.about, "data": config.data, "max_length": config.max_length}
    corpus = Corpus(context.folder, {**about, "shards": counts})
    corpus.write_about()
    return corpus
