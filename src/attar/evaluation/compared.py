"""The models of an `evaluate` step and the rows they are compared on, for any type of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from attar.artifacts import disk_errors_explained
from attar.data.tables import Split, TextData
from attar.data.tokenize import Encoded
from attar.evaluation.config import EvaluateStep
from attar.numerics.statistics import Bootstrapped, bootstrap
from attar.scoring.rows import AfterBatch, longest_first, score_rows, score_tokens
from attar.seeds import derive_seed
from attar.step import StepContext

if TYPE_CHECKING:
    from attar.scoring.forms import Form

Metrics = Mapping[str, Mapping[str, Bootstrapped]]
"""Metric → model → value and resamples."""
Judged = tuple[Metrics, Mapping[str, dict[str, Any]]]
"""The metrics, and model → other figures, such as tokens per second or figures per class."""


@dataclass(frozen=True)
class Compared:
    """Open models and the rows of one split."""

    config: EvaluateStep
    context: StepContext
    forms: Mapping[str, Form]
    columns: Mapping[str, np.ndarray]
    """Model → for each class of the data, its column in the model's scores."""
    data: TextData
    split: Split

    def encode(self, name: str) -> Encoded:
        """Tokenize the rows for a model; warns about truncated texts."""
        encoded = self.forms[name].encode(self.split.texts)
        self.warn_of_cut(name, encoded)
        return encoded

    def warn_of_cut(self, name: str, encoded: Encoded) -> None:
        """Warn about texts that are truncated for a model, once for all that truncate alike."""
        if count := int(encoded.is_cut.sum()):
            limit = self.forms[name].task.max_length
            self.context.progress.warn(
                f"{count} of {len(encoded)} rows have more than {limit} tokens and are truncated "
                f"for models with a limit of {limit}"
            )

    def progress(
        self, unit: str, total: int, *, counts_work: bool = False
    ) -> AbstractContextManager[Callable[..., None]]:
        """A progress bar, as in `StepContext.counted`. Yields a function to call after each batch,
        with the number of units done and the model."""
        title = f"{self.context.name}: {unit}"
        return self.context.counted(title, total, "measuring models", counts_work=counts_work)

    def scores(
        self,
        name: str,
        encoded: Encoded,
        after_batch: AfterBatch = lambda rows: None,
        *,
        of_tokens: bool = False,
    ) -> np.ndarray:
        """Model outputs for each encoded row, (N, …), or for each token, (tokens, C).

        Raises:
            NonFiniteError: an output is NaN or infinite.
        """
        form, score = self.forms[name], score_tokens if of_tokens else score_rows
        batches = longest_first(encoded.lengths, self.config.batch_size)
        return score(form.logits, encoded, batches, f"model {name!r}", after_batch, form.padded)

    def bootstrap(
        self, metric: str, answers: Mapping[str, ArrayLike], labels: ArrayLike
    ) -> dict[str, Bootstrapped]:
        """The metric of each model on the rows, and on resamples that all models share."""
        seed = self.context.seed if self.config.seed is None else self.config.seed
        return bootstrap(
            metric,
            answers,
            labels,
            resamples=self.config.bootstrap,
            seed=derive_seed(seed, "bootstrap"),
        )

    def means(self, scores: Mapping[str, Mapping[str, ArrayLike]]) -> Metrics:
        """The data's metrics, each computed as the mean over rows.

        Args:
            scores: model → metric → its value for each row, (N,).
        """
        metrics = self.data.metrics
        unused_labels = np.zeros(np.shape(next(iter(scores.values()))[metrics[0]])[0])
        return {
            metric: self.bootstrap(
                metric, {name: values[metric] for name, values in scores.items()}, unused_labels
            )
            for metric in metrics
        }

    @staticmethod
    def numbers(count: int) -> np.ndarray:
        """Row numbers, the first column of `predictions.parquet`."""
        return np.arange(count, dtype=np.int32)

    def write(self, columns: Mapping[str, Any], **metadata: str) -> None:
        """Write the predictions, with the name of the data."""
        write_predictions(self.context.folder, columns, {"data": self.data.name, **metadata})


def write_predictions(
    folder: Path, columns: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Write columns (arrays or lists) to `predictions.parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(dict(columns)).replace_schema_metadata(dict(metadata))
    with disk_errors_explained(folder):
        pq.write_table(table, folder / "predictions.parquet", compression="zstd")
