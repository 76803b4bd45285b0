"""`run = "proxy"`: train a small model to predict the scores of chunks, from the scores of a
sample.

The problem: difference sampling runs a large teacher on every chunk of a corpus. The idea
(MiniPLM_prx, arXiv 2410.17215): teacher and reference score a sample; a small model, such as the
reference itself, learns to predict r(x) from the chunk (`attar.selection.proxy_model`), by mean
squared error on standardised scores; then only this model scores the whole corpus.

A share of the sample is held out. Half of it is evaluated during training, and the checkpoint with
the lowest loss is kept. The other half is used once, to measure the Spearman correlation of the
kept checkpoint, with a bootstrap interval, and that of the untrained head. Training loop and
checkpoints are those of `run = "train"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor
from transformers import PreTrainedModel

from attar.artifacts import read_result, write_bytes
from attar.data.corpus.published import corpus_of
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.data.tokenize import Encoded
from attar.errors import DataError
from attar.losses.config import CrossEntropy
from attar.losses.targets import Counts, Targets, count_units
from attar.losses.total import TotalLoss
from attar.models.cost import forward_flops
from attar.models.load import build_model
from attar.numerics.metrics import METRICS
from attar.numerics.selection import share_of
from attar.numerics.statistics import bootstrap, bootstrap_interval
from attar.scoring.in_memory import evaluating
from attar.scoring.rows import AfterBatch, longest_first, score_batches
from attar.seeds import generator
from attar.selection.config import ProxyMetrics, ProxyStep
from attar.selection.proxy_model import Proxy, Scale, read_of, save_proxy
from attar.selection.scorers import require_fit
from attar.selection.scores import Scored, read_scored
from attar.step import StepContext
from attar.tasks.table import REGRESSION
from attar.training.job import Job, first_batch
from attar.training.loop import Loop
from attar.training.objectives.examples import Validation
from attar.training.objectives.spans import padded
from attar.training.saving.state import Place
from attar.training.update.precision import open_accelerator

FEWEST = 20
"""Minimum size of a sample; with fewer chunks the held-out correlation is meaningless."""
HELD_OUT_FILE = "held_out.safetensors"
EPSILON = 1e-6
"""In nats per token; smaller differences between scores are rounding errors."""


@dataclass(frozen=True)
class ScoredChunks:
    """Chunks of a corpus with their target scores, for the training loop."""

    chunks: CorpusView
    targets: NDArray[np.float32]
    """Standardised scores, (N,)."""
    lengths: np.ndarray
    """Number of input tokens of each chunk, (N,)."""

    @classmethod
    def of(
        cls, corpus: Corpus, rows: NDArray[np.int64], targets: NDArray[np.float32]
    ) -> ScoredChunks:
        """Make examples from chunks of a corpus.

        Args:
            rows: of the corpus, in increasing order.
        """
        chunks = CorpusView(corpus, kept=rows)
        lengths = chunks.lengths(np.arange(len(rows)))
        return cls(chunks, targets, np.maximum(lengths - 1, 1))

    @property
    def texts(self) -> Sequence[Encoded]:
        return ()

    def __len__(self) -> int:
        return len(self.targets)

    def counts(self, rows: np.ndarray) -> Counts:
        return count_units(torch.from_numpy(self.targets[rows]), {})

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[dict[str, Tensor], Targets]:
        arrays = padded([read_of(chunk) for chunk in self.chunks.ids(rows)], pad=0)
        ids, mask = (torch.from_numpy(array).to(device) for array in arrays)
        inputs = {"input_ids": ids, "attention_mask": mask}
        return inputs, Targets(torch.from_numpy(self.targets[rows]).to(device), {})

    def validate(self, wanted: Validation) -> dict[str, float]:
        predicted = self.predictions(wanted.model, wanted.batch_size, wanted.after_batch)
        errors = (predicted - self.targets).astype(np.float64)
        return {
            "loss": float((errors**2).mean()),
            "spearman": METRICS["spearman"](predicted, self.targets),
        }

    def predictions(
        self, model: Any, batch_size: int, after_batch: AfterBatch = lambda rows: None
    ) -> NDArray[np.float32]:
        """Predicted standardised scores, (N,), in float32.

        Raises:
            NonFiniteError: a prediction is NaN or infinite.
        """

        def answer(rows: np.ndarray) -> np.ndarray:
            inputs, _ = self.batch(rows, model.device)
            with evaluating(model):
                return model(**inputs).logits[:, 0].float().cpu().numpy()

        batches = longest_first(self.lengths, batch_size)
        return score_batches(answer, batches, "the proxy", after_batch)


def proxy(config: ProxyStep, context: StepContext) -> ProxyMetrics:
    """Train a proxy on the scores of a sample.

    Raises:
        StoppedError: a stop was requested; a checkpoint is kept.
    """
    corpus = corpus_of(context, config.data)
    folders = {name: context.inputs[step] for name, step in config.scored_by.items()}
    sample = read_scored(corpus, folders, context.name, may_be_sample=True)
    rows, scores = usable(sample, context.name)
    parts = split_of(len(rows), config.held_out, context.seed)
    scale = Scale.of(scores[parts[0]])
    targets = scale.standardised(scores)
    training, choosing, judging = (
        ScoredChunks.of(corpus, rows[part], targets[part]) for part in parts
    )

    source = build_model(config.model, context.inputs, context.recipe_folder, None, context.seed)
    require_fit(source.model, source.folder, corpus, context.name)
    model = Proxy(cast("PreTrainedModel", source.model.base_model), scale, context.seed)
    job = _job(config, context, model, training, choosing)
    accelerator, precision = open_accelerator(config.precision, context, first_batch(job))
    job.learned.to(accelerator.device)
    untrained = judging.predictions(model, job.evaluation_batch_size)
    context.progress.say(
        f"  {context.name}: {len(training)} chunks to learn from, {len(choosing)} to choose the "
        f"best state by, {len(judging)} to judge it"
    )
    place = Loop(job, accelerator, context).run()

    trained = judging.predictions(model, job.evaluation_batch_size)
    save_proxy(cast("Proxy", model.to("cpu")), source, context.folder / "model")
    in_nats = {"score": scores[parts[2]], "predicted": scale.in_nats(trained)}
    write_bytes(context.folder / HELD_OUT_FILE, save({"row": rows[parts[2]], **in_nats}))
    errors = (in_nats["predicted"] - in_nats["score"]).astype(np.float64)
    return {
        "chunks": len(rows),
        "left_out": len(sample) - len(rows),
        "train_chunks": len(training),
        "spearman": _correlations(untrained, trained, judging.targets, context.seed),
        "rmse": float(np.sqrt((errors**2).mean())),
        "scale": asdict(scale),
        "num_params": sum(parameter.numel() for parameter in model.parameters()),
        "steps": place.step,
        "epochs": round(place.step / len(job.batches), 4),
        "kept_step": cast("int", place.best_step),
        "precision": precision.name,
        "train_seconds": round(place.seconds, 3),
        "sample_tokens": int(sample.tokens.sum()),
        "flops": {
            **{name: read_result(folder).metrics["flops"] for name, folder in folders.items()},
            "training": _training_flops(job, judging, model.body, place),
        },
    }


def usable(sample: Scored, step: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of the chunks that have a score.

    Raises:
        DataError: there are too few, or all scores are equal.
    """
    is_usable = np.isfinite(sample.score) & (sample.tokens > 0)
    rows, scores = sample.rows()[is_usable], sample.score[is_usable]
    if len(rows) < FEWEST:
        raise DataError(
            f"{step}: {len(rows)} of {len(sample)} chunks of the sample have a score; a proxy "
            f"needs at least {FEWEST}, and some thousands to be useful: raise chunks in the score "
            "steps"
        )
    spread = float(scores.max() - scores.min())
    if spread < EPSILON:
        raise DataError(
            f"{step}: all {len(rows):,} scores of the sample are {scores[0]:.4g} nats per token, "
            "so there is nothing to learn; teacher and reference must be different models"
        )
    return rows, scores


def split_of(count: int, held_out: float, seed: int) -> list[NDArray[np.int64]]:
    """Split `count` places into training places, places that choose the checkpoint, and places that
    measure it; each sorted and not empty."""
    drawn = generator(seed, "held out").permutation(count)
    held = min(max(2, share_of(held_out, count)), count - 1)
    cuts = [held // 2, held]
    choosing, judging, training = np.split(drawn, cuts)
    return [np.sort(part) for part in (training, choosing, judging)]


def _job(
    config: ProxyStep,
    context: StepContext,
    model: Proxy,
    training: ScoredChunks,
    choosing: ScoredChunks,
) -> Job:
    return Job(
        name=context.name,
        config=config.training,
        seed=context.seed,
        model=cast("PreTrainedModel", model),  # the loop only calls it and reads its device
        input_names=("input_ids", "attention_mask"),
        teacher=None,
        loss=TotalLoss((CrossEntropy(),), REGRESSION.name),
        train=training,
        validation=choosing,
        metrics=("loss",),
    )


def _correlations(
    untrained: NDArray[np.float32],
    trained: NDArray[np.float32],
    scores: NDArray[np.float32],
    seed: int,
) -> dict[str, float]:
    predictions = {"untrained": untrained, "trained": trained}
    drawn = bootstrap("spearman", predictions, scores, seed=seed)
    interval = bootstrap_interval(drawn["trained"])
    return {**asdict(interval), "untrained": drawn["untrained"].value}


def _training_flops(job: Job, judging: ScoredChunks, body: PreTrainedModel, place: Place) -> int:
    """FLOPs of training. A backward pass counts as two forward passes; the head is ignored."""
    once, chosen, judged = (
        forward_flops(body, chunks.lengths) for chunks in (job.train, job.validation, judging)
    )
    share = job.rows_read(place.step) / len(job.train)
    return round(3 * share * once) + len(job.evaluation_steps) * chosen + 2 * judged
