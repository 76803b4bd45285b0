"""An exported model answering texts, with no torch in the process.

Texts are sorted by length before they are cut into batches, so that short ones are not padded to
the longest of all; answers come back in the order asked. Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import NonFiniteError, UsageError
from attar.escaping import for_terminal
from attar.models.deployed.runtimes import open_runtime
from attar.models.task import Task

BATCH_SIZE = 32
"""Texts computed together: larger is no faster on a CPU and holds more memory."""
MOST_LABEL = 200
"""Characters of a label in a line for people; JSON has the whole."""


@dataclass(frozen=True)
class Prediction:
    """One answer."""

    label: str
    """Name of the most probable class; the score in words for regression."""
    probability: float | None
    """Of that label, 0 to 1; None for regression."""
    milliseconds: float
    """Time from text to answer; in a batch, the batch's time over its texts."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Probability of every class; for regression the one score."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One line for people."""
        share = "" if self.probability is None else f"  {self.probability:.3f}"
        return f"{for_terminal(self.label, MOST_LABEL)}{share}  {self.milliseconds:.1f} ms"


class Deployed:
    """An exported folder, open for questions.

    Args:
        threads: cores to use; None: all that this process may use.
    Raises:
        ArtifactError: the folder is no exported model, or is damaged.
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        self.folder = Path(folder)
        self._runtime = open_runtime(self.folder, threads)
        self.task = Task.read(self.folder)
        self._encoder = TextEncoder.from_folder(
            self.folder, self.task.max_length, self.task.input_names
        )

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """Answer every text, or pair of texts, in the order given.

        Raises:
            UsageError: one string instead of a list of them, or something that is no text.
            NonFiniteError: the model gives NaN or an infinity.
        """
        rows = _as_rows(texts)
        started = time.perf_counter()
        encoded = self._encoder.encode(rows)
        encoding_ms = (time.perf_counter() - started) * 1e3 / max(len(rows), 1)
        by_length = np.argsort(-encoded.lengths, kind="stable")
        answers: list[Prediction | None] = [None] * len(rows)
        for start in range(0, len(rows), BATCH_SIZE):
            chosen = by_length[start : start + BATCH_SIZE]
            for index, answer in zip(
                chosen, self._answer(encoded, chosen, encoding_ms), strict=True
            ):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def _answer(self, encoded: Encoded, chosen: np.ndarray, encoding_ms: float) -> list[Prediction]:
        started = time.perf_counter()
        logits = self._runtime.logits(encoded.batch(chosen))
        each_ms = encoding_ms + (time.perf_counter() - started) * 1e3 / len(chosen)
        if not np.isfinite(logits).all():
            raise NonFiniteError(
                f"the model in {self.folder} answers NaN or infinity for one of {len(chosen)} "
                "texts; check the model it was exported from with attar evaluate"
            )
        if self.task.objective == "regression":
            return [self._score(float(row[0]), each_ms) for row in logits]
        return [self._class(row, each_ms) for row in _softmax(logits)]

    def _class(self, probabilities: np.ndarray, each_ms: float) -> Prediction:
        names = self.task.label_names
        best = int(probabilities.argmax())
        scores = {name: float(p) for name, p in zip(names, probabilities, strict=True)}
        return Prediction(names[best], float(probabilities[best]), each_ms, scores)

    def _score(self, value: float, each_ms: float) -> Prediction:
        name = self.task.label_names[0] if self.task.label_names else "score"
        return Prediction(f"{value:.4f}", None, each_ms, {name: value})


def _as_rows(texts: Any) -> list[tuple[str, ...]]:
    if isinstance(texts, str):
        raise UsageError('predict wants a list of texts, got one string; write predict(["…"])')
    rows: list[tuple[str, ...]] = []
    for position, text in enumerate(texts):
        row = (text,) if isinstance(text, str) else tuple(text) if _is_pair(text) else None
        if row is None:
            raise UsageError(
                f"text {position} is a {type(text).__name__}; allowed are a string or a pair of "
                "strings"
            )
        rows.append(row)
    return rows


def _is_pair(text: Any) -> bool:
    return (
        isinstance(text, (tuple, list))
        and len(text) == 2
        and all(isinstance(part, str) for part in text)
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, in float64 and safe from overflow.

    Example:
        >>> _softmax(np.array([[1000.0, 1000.0]])).tolist()
        [[0.5, 0.5]]
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
