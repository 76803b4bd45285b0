"""`run = "score"`: a language model and a corpus in; log p of every chunk out.

Of a chunk of n tokens, n − 1 are predicted: its score is the sum of their log-probabilities in
nats, and their number. A teacher's and a reference's scores of one corpus are two steps, so that
another reference costs one pass and not two (MiniPLM, arXiv 2410.17215).

Everything is computed in float32: two passes in bf16 differ by about 1e-2 nats a token, and what
`select` looks at is a difference. A shard is scored whole, put in place, and not touched again; a
killed run goes on with the first one that is missing. `work` is the only loop over shards, and what
it calls knows nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from transformers import PreTrainedModel

from attar.artifacts import put_beside, sha256_of, write_bytes
from attar.data.corpus.token_store import PARTS, Corpus, Shard
from attar.errors import ArtifactError, ModelError, NonFiniteError, UsageError
from attar.models.head_chunks import (
    head_of,
    last_hidden_states,
    log_probabilities,
    require_own_logits,
)
from attar.models.load import build_model
from attar.selection.batches import token_batches
from attar.selection.config import ScoreStep
from attar.special_tokens import TOKENIZER_FILE
from attar.step import MadeRows, StepContext


@dataclass(frozen=True)
class ShardScores:
    """Scores of the chunks of one shard, those of the wanted part, in their order."""

    row: NDArray[np.uint64]
    """Row in the shard, (N,)."""
    log_p: NDArray[np.float32]
    """Sum of log-probabilities in nats, (N,)."""
    tokens: NDArray[np.uint32]
    """How many were predicted, (N,)."""
    digest: NDArray[np.uint64]
    """The chunks' own, so that scores never meet another corpus, (N,)."""


def score_file(folder: Path, shard: int) -> Path:
    """Where the scores of a shard lie."""
    return folder / f"{shard:05}.scores.safetensors"


def score(config: ScoreStep, context: StepContext) -> dict[str, Any]:
    """Score every chunk of a part of the corpus.

    Raises:
        AttarError: whatever a user can mend.
        StoppedError: asked to stop; whole shards are kept.
    """
    corpus = corpus_of(context, config.data)
    loaded = build_model(config.model, context.inputs, context.recipe_folder, None, context.seed)
    _require_fit(loaded.model, loaded.folder, corpus, context.name)
    scorer = _Scorer(loaded.model.eval(), config)
    if corpus.shards and len(corpus.shards[0]):
        require_own_logits(loaded.model, torch.from_numpy(corpus.shards[0].chunk(0)[None, :16]))
    folder = context.scratch / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(len(corpus.shards))

    with context.progress.task(f"  {context.name}", len(shards)) as task:

        def do(number: int) -> Path:
            file = score_file(folder, number)
            if not file.exists():
                context.stop_if_asked("a shard")
                write_bytes(file, save(vars(scorer.scores(corpus.shards[number]))))
            task.advance(1)
            return file

        files = work(shards, do)
    total, predicted, chunks = 0.0, 0, 0
    for file in files:
        scores = read_scores(file)
        total += float(scores.log_p.astype(np.float64).sum())
        predicted += int(scores.tokens.sum(dtype=np.int64))
        chunks += len(scores.row)
        put_beside(file, context.folder)
    return {
        "data": config.data,
        "part": config.part,
        "chunks": chunks,
        "tokens": predicted,
        "nll": -total / predicted if predicted else None,
    }


def work(shards: Iterable[int], do: Callable[[int], Path]) -> list[Path]:
    """`do` for every shard; the files it made. `do` is idempotent and needs no other shard, so that
    another engine may call it in other processes and in any order."""
    return [do(shard) for shard in shards]


def corpus_of(context: StepContext, name: str) -> Corpus:
    """The corpus that a step named `name` made."""
    made = context.data[name]
    if not isinstance(made, MadeRows) or made.step.run != "tokenize":
        raise UsageError(
            f'{context.name}: data = {name!r} is not a corpus; name a step with run = "tokenize"'
        )
    return Corpus.open(made.folder)


class _Scorer:
    def __init__(self, model: PreTrainedModel, config: ScoreStep) -> None:
        self._model, self._config = model, config
        self._head = head_of(model)
        self._vocabulary = int(model.config.get_text_config().vocab_size)

    def scores(self, shard: Shard) -> ShardScores:
        rows = np.flatnonzero(np.asarray(shard.part) == PARTS.index(self._config.part))
        lengths = shard.lengths[rows]
        log_p = np.zeros(len(rows), np.float32)
        for batch in token_batches(lengths, self._config.batch_tokens):
            log_p[batch] = self._batch([shard.chunk(int(row)) for row in rows[batch]])
        if not np.isfinite(log_p).all():
            row = int(rows[np.flatnonzero(~np.isfinite(log_p))[0]])
            raise NonFiniteError(
                f"the log-probability of chunk {row} of {shard.files.tokens} is not finite; look "
                "at the model, whose weights may have diverged"
            )
        return ShardScores(
            rows.astype("<u8"),
            log_p,
            np.maximum(lengths - 1, 0).astype("<u4"),
            np.asarray(shard.digest)[rows],
        )

    @torch.inference_mode()
    def _batch(self, chunks: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Sum of log-probabilities of each chunk, summed in float32 over at most its tokens."""
        length = max(map(len, chunks))
        ids = torch.zeros((len(chunks), length), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, chunk in enumerate(chunks):
            ids[place, : len(chunk)] = torch.from_numpy(chunk)
            mask[place, : len(chunk)] = 1
        if length < 2:
            return np.zeros(len(chunks), np.float32)
        # the last token is predicted and never read; padding is behind what is read
        inputs = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
        is_predicted = mask[:, 1:].bool()
        hidden = last_hidden_states(self._model, inputs)[is_predicted]
        found = log_probabilities(self._head, hidden, ids[:, 1:][is_predicted], self._vocabulary)
        sums = torch.zeros(len(chunks)).index_add_(0, is_predicted.nonzero()[:, 0], found)
        return sums.numpy()


def read_scores(file: Path) -> ShardScores:
    """Raises:
    ArtifactError: the file is missing, damaged, or holds something else.
    """
    try:
        return ShardScores(**load_file(file))
    except (OSError, SafetensorError, TypeError) as error:
        raise ArtifactError(
            f"{file} cannot be read ({error}); remove the step's folder and run it again"
        ) from error


def _require_fit(model: PreTrainedModel, folder: Path, corpus: Corpus, step: str) -> None:
    """The model must read the corpus's tokens as they were made, and chunks of its length."""
    found = sha256_of(folder / TOKENIZER_FILE)
    if found != corpus.about["tokenizer"]:
        raise ModelError(
            f"{step}: the tokenizer of {folder} is not the one the corpus was made with, so its "
            "tokens mean something else to this model; tokenize the data with this model's "
            "tokenizer, and compare scores of one corpus only"
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and corpus.about["max_length"] > positions:
        raise ModelError(
            f"{step}: the corpus has chunks of {corpus.about['max_length']} tokens, the model has "
            f"{positions} positions; tokenize with max_length = {positions} or less"
        )
