"""`run = "score"`: a corpus and a model in; a number for each chunk out.

A language model gives log p. Of a chunk of n tokens, n − 1 are predicted: its score is the sum of
their log-probabilities in nats, and their number. A teacher's and a reference's scores of one
corpus are two steps, so that another reference costs one pass and not two (MiniPLM,
arXiv 2410.17215). A proxy gives its prediction of the difference between the two.

Everything is computed in float32: two passes in bf16 differ by about 1e-2 nats a token, and what
`select` looks at is a difference. A shard is scored whole, put in place, and not touched again; a
killed run goes on with the first one that is missing. `work` is the only loop over shards, and what
it calls knows nothing of the others.

A chunk that a model cannot score is set aside: its score is NaN, and a file has the reason.
Memory: one batch, the logits of some hundred tokens, and the row numbers and scores of one shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from attar.artifacts import put_beside, read_result
from attar.data.corpus.published import corpus_of
from attar.data.corpus.token_store import Corpus, Shard
from attar.data.tables import SetAside
from attar.errors import ModelError, NonFiniteError
from attar.models.head_chunks import run_to_logits
from attar.models.load import build_model
from attar.models.sources.references import find_model_folder, resolve_model
from attar.numerics.logits import log_probabilities
from attar.selection.batches import padded, token_batches
from attar.selection.config import ScoreStep
from attar.selection.flops import OfflineFlops, forward_flops
from attar.selection.proxy_model import ProxyScorer, is_proxy, load_proxy
from attar.selection.sample import rows_to_score
from attar.selection.scores import ShardScores, read_scores, score_file
from attar.selection.set_aside import write_set_aside
from attar.special_tokens import open_tokenizer, tokenizer_digest
from attar.step import StepContext
from attar.tasks.table import CAUSAL_LM

SET_ASIDE_FILE = "set_aside.jsonl.gz"
NOT_FINITE = "the model's answer is NaN or infinite"
ROWS_NAMED = 5
"""In a message, of each reason."""


class Scorer(Protocol):
    """A model that gives chunks numbers."""

    quantity: ClassVar[str]
    """The field of `ShardScores` that they are."""
    model: PreTrainedModel
    vocabulary: int
    """Token ids that the model has embeddings for."""

    def __call__(self, chunks: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """A number for each chunk of one batch."""
        ...

    def summary(self, total: float, chunks: int, tokens: int) -> dict[str, float | None]:
        """For the result: a mean, of the numbers of chunks with so many predicted tokens."""
        ...


def score(config: ScoreStep, context: StepContext) -> dict[str, Any]:
    """Score the chunks of a part of the corpus, or a sample of them.

    Raises:
        AttarError: whatever a user can mend.
        StoppedError: asked to stop; whole shards are kept.
    """
    corpus = corpus_of(context, config.data)
    scorer = _open_scorer(config, context, corpus)
    rows_of = rows_to_score(corpus, config.part, config.chunks, context.seed)
    folder = context.scratch / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(len(corpus.shards))
    chunks = sum(len(rows_of(number)) for number in shards)
    begins = np.cumsum([0, *(shard["chunks"] for shard in corpus.about["shards"])])

    def set_aside(number: int, scores: ShardScores) -> list[SetAside]:
        return _set_aside(scores, corpus.shards[number], int(begins[number]), scorer.vocabulary)

    with context.progress.task(f"  {context.name}", len(shards)) as task:

        def do(number: int) -> Path:
            file = score_file(folder, number)
            if not file.exists():
                context.stop_if_asked("a shard")
                scores = shard_scores(
                    scorer, corpus.shards[number], rows_of(number), config.batch_tokens
                )
                _require_few(set_aside(number, scores), chunks, config, context.name)
                scores.write(file)
            task.advance(1)
            return file

        files = work(shards, do)
    counts = {"chunks": chunks, "tokens": 0, "flops": 0}
    total, faults = 0.0, list[SetAside]()
    for number, file in enumerate(files):
        scores = read_scores(file)
        faults += set_aside(number, scores)
        values, is_scored = scores.values, np.isfinite(scores.values)
        total += float(values.sum(dtype=np.float64, where=is_scored))
        counts["tokens"] += int(scores.tokens.sum(dtype=np.int64, where=is_scored))
        counts["flops"] += forward_flops(scorer.model, scores.tokens)
    _require_few(faults, chunks, config, context.name)
    for file in files:
        put_beside(file, context.folder)
    write_set_aside(context.folder / SET_ASIDE_FILE, faults)
    return {
        "data": config.data,
        "part": config.part,
        **counts,
        **scorer.summary(total, chunks - len(faults), counts["tokens"]),
        **_offline(config, context, counts),
        "set_aside": dict(Counter(fault.reason for fault in faults)),
    }


def work(shards: Iterable[int], do: Callable[[int], Path]) -> list[Path]:
    """`do` for every shard; the files it made. `do` is idempotent and needs no other shard, so that
    another engine may call it in other processes and in any order."""
    return [do(shard) for shard in shards]


def shard_scores(
    scorer: Scorer, shard: Shard, rows: NDArray[np.int64], batch_tokens: int
) -> ShardScores:
    """Scores of some rows of a shard; NaN where the model has no answer.

    Args:
        batch_tokens: of one forward pass, padding included.
    """
    lengths = shard.lengths[rows]
    values = np.full(len(rows), np.nan, np.float32)
    for batch in token_batches(lengths, batch_tokens):
        chunks = [shard.chunk(int(row)) for row in rows[batch]]
        is_readable = [int(chunk.max()) < scorer.vocabulary for chunk in chunks]
        read = [chunk for chunk, fits in zip(chunks, is_readable, strict=True) if fits]
        if read:
            values[batch[is_readable]] = scorer(read)
    values[~np.isfinite(values)] = np.nan
    return ShardScores(
        row=rows.astype("<u8"),
        tokens=np.maximum(lengths - 1, 0).astype("<u4"),
        digest=np.asarray(shard.digest)[rows],
        **{scorer.quantity: values},
    )


def _open_scorer(config: ScoreStep, context: StepContext, corpus: Corpus) -> Scorer:
    folder = resolve_model(config.model, context.inputs, context.recipe_folder)
    if is_proxy(folder):
        proxy = load_proxy(folder)
        require_fit(proxy.body, folder, corpus, context.name)
        return ProxyScorer(proxy)
    loaded = build_model(config.model, context.inputs, context.recipe_folder, None, context.seed)
    require_fit(loaded.model, loaded.folder, corpus, context.name)
    if not type(loaded.model).__name__.endswith(CAUSAL_LM.heads):
        raise ModelError(
            f"{context.name}: {config.model} is a {type(loaded.model).__name__}, which does not "
            "predict the next token; name a causal language model"
        )
    return LanguageScorer(loaded.model)


def _offline(
    config: ScoreStep, context: StepContext, counts: dict[str, int]
) -> dict[str, dict[str, float]]:
    """What scoring by a proxy of this recipe took in all, beside the teacher alone."""
    folder = context.inputs.get(config.model)
    if folder is None or not is_proxy(find_model_folder(folder)):
        return {}
    made = read_result(folder).metrics
    sampled = made["sample_tokens"] / max(counts["tokens"], 1)
    return {
        "offline": OfflineFlops(
            **made["flops"], predicting=counts["flops"], sampled=sampled
        ).as_json()
    }


class LanguageScorer:
    """log p of a chunk: the sum over its tokens but the first."""

    quantity: ClassVar[str] = "log_p"

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval()
        columns = int(model.config.get_text_config().vocab_size)
        self.vocabulary = min(columns, embeddings_of(model))

    @torch.inference_mode()
    def __call__(self, chunks: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Each chunk's sum, in float32 over at most its tokens."""
        ids, mask = padded(chunks)
        if ids.shape[1] < 2:
            return np.zeros(len(chunks), np.float32)
        # the last token is predicted and never read; padding is behind what is read
        inputs = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
        is_predicted = mask[:, 1:].bool()
        _, logits = run_to_logits(self.model, inputs, use_cache=False)
        index = is_predicted.nonzero(as_tuple=True)
        found = log_probabilities(logits, index, ids[:, 1:][index])
        sums = torch.zeros(len(chunks)).index_add_(0, index[0], found)
        return sums.numpy()

    def summary(self, total: float, chunks: int, tokens: int) -> dict[str, float | None]:
        return {"nll": -total / tokens if tokens else None}


def embeddings_of(model: PreTrainedModel) -> int:
    """How many token ids a model can read."""
    table: Any = model.get_input_embeddings()
    return int(table.weight.shape[0])


def require_fit(model: PreTrainedModel, folder: Path, corpus: Corpus, step: str) -> None:
    """Refuse a model that does not read the corpus's tokens as they were made, or whole chunks.

    Raises:
        ModelError: another tokenizer, or too few positions.
    """
    if tokenizer_digest(open_tokenizer(folder)) != corpus.about["tokenizer"]:
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


def _set_aside(scores: ShardScores, shard: Shard, begin: int, vocabulary: int) -> list[SetAside]:
    """The chunks without a score, and why; rows are counted over all shards from `begin`."""
    rows = scores.row[~np.isfinite(scores.values)]
    return [
        SetAside("train", begin + int(row), _reason(shard.chunk(int(row)), vocabulary))
        for row in rows
    ]


def _reason(chunk: NDArray[np.int64], vocabulary: int) -> str:
    if int(chunk.max()) >= vocabulary:
        return f"a token id is not below {vocabulary:,}, the number of the model's embeddings"
    return NOT_FINITE


def _require_few(faults: Sequence[SetAside], chunks: int, config: ScoreStep, step: str) -> None:
    """Raises:
    NonFiniteError, ModelError: more chunks have no score than `max_set_aside` allows.
    """
    if len(faults) <= config.max_set_aside * chunks:
        return
    counts = Counter(fault.reason for fault in faults)
    reasons = "; ".join(
        f"{count:,} × {reason} (chunk "
        + ", ".join(str(f.row) for f in [f for f in faults if f.reason == reason][:ROWS_NAMED])
        + (", …)" if count > ROWS_NAMED else ")")
        for reason, count in counts.most_common(ROWS_NAMED)
    )
    error = NonFiniteError if NOT_FINITE in counts else ModelError
    raise error(
        f"{step}: {len(faults):,} of {chunks:,} chunks have no score, max_set_aside allows "
        f"{config.max_set_aside:.1%}: {reasons}; look at the model, whose weights may have "
        "diverged, or raise max_set_aside"
    )
