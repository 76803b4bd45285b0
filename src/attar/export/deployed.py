"""Inference with an exported model, without torch.

Texts are batched by length to reduce padding; answers are returned in the input order. A `Deployed`
can be shared between threads; with asyncio, use `await asyncio.to_thread(model.predict, texts)`.
Each process must load the folder itself. Imports no torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import NonFiniteError, UsageError
from attar.escaping import for_terminal
from attar.models.deployed.runtimes import open_runtime
from attar.numerics.classification import softmax
from attar.scoring.vectors import unit_length
from attar.tasks.embedding import Side
from attar.tasks.table import Gold
from attar.tasks.task import Task

BATCH_SIZE = 32
"""Texts per batch: larger batches are not faster on a CPU and need more memory."""
SHOWN_NUMBERS = 5
"""Values of a vector in text output; JSON output has all."""
MOST_LABEL = 200
"""Characters of a label in text output; JSON output has all."""


class Answered(Protocol):
    """An answer as `attar predict` prints it."""

    @property
    def is_cut(self) -> bool:
        """Whether the text was truncated."""
        ...

    def as_json(self) -> dict[str, Any]: ...

    def text(self) -> str:
        """The answer as one line of text."""
        ...


@dataclass(frozen=True)
class Prediction:
    label: str
    """Name of the most probable class; for regression the score as text; for multi-label tasks all
    predicted labels, separated by "|"."""
    probability: float | None
    """Probability of the label, 0 to 1; None for regression and multi-label tasks."""
    milliseconds: float
    """Time from text to answer; for a batch, its time divided by the number of texts."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Probability of every class; for regression the score."""
    is_cut: bool = False
    """Whether the text was truncated to the model's maximum length (`task.max_length`)."""
    labels: tuple[str, ...] | None = None
    """Multi-label tasks: the predicted labels, most probable first; otherwise None."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        share = "" if self.probability is None else f"  {self.probability:.3f}"
        return f"{for_terminal(self.label, MOST_LABEL)}{share}  {self.milliseconds:.1f} ms"


@dataclass(frozen=True)
class EmbeddedText:
    """The result of an embedding model."""

    vector: np.ndarray
    """The embedding, float32 (W,)."""
    milliseconds: float
    is_cut: bool = False

    def as_json(self) -> dict[str, Any]:
        numbers = [round(float(x), 7) for x in self.vector]
        return {"vector": numbers, "milliseconds": self.milliseconds, "is_cut": self.is_cut}

    def text(self) -> str:
        first = " ".join(f"{x:.4f}" for x in self.vector[:SHOWN_NUMBERS])
        return f"{first} … ({len(self.vector)} numbers)  {self.milliseconds:.1f} ms"


class Deployed:
    """An exported model, ready for inference from any number of threads.

    Args:
        threads: number of cores to use; None: all available to this process.
    Raises:
        ArtifactError: the folder is not an exported model, or is damaged.
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        self.folder = Path(folder)
        self._process = os.getpid()
        self._is_cold = True
        """Whether nothing has been answered yet: the runtime compiles in its first call."""
        self._runtime = open_runtime(self.folder, threads)
        self.task = Task.read(self.folder)
        self._encoder = TextEncoder.from_folder(
            self.folder, self.task.max_length, self.task.input_names
        )

    def predict(
        self, texts: Sequence[str | tuple[str, str]], *, side: Side = "query"
    ) -> list[Prediction | EmbeddedText]:
        """Predict for every text or pair of texts, in input order. Empty texts are allowed.

        Args:
            side: embedding models only: which of the two prefixes to put before the texts.

        Raises:
            UsageError: `texts` is a single string or contains something other than texts; pairs
                are given to a model of single texts, or the reverse; or the process was forked
                after loading.
            NonFiniteError: an output is NaN or infinite.
        """
        self._require_own_process()
        if self.task.kind.answers_tokens:
            raise UsageError(
                f"the model in {self.folder} is made for {self.task.objective}; open it with "
                f"attar.load and call {self.task.shown.verb}(…) instead of predict(…)"
            )
        rows = as_rows(texts, self.task.num_texts, "predict")
        if self.task.embedding is not None:
            rows = self.task.embedding.read_as(side, [text for text, *_ in rows])
        self._warm_up(self._predicted, rows)
        return self._predicted(rows)

    def _warm_up(self, answer: Callable[[Sequence[Any]], object], rows: Sequence[Any]) -> None:
        """Answer the first batch of the first call once before it is timed."""
        if self._is_cold and rows:
            self._is_cold = False
            with suppress(UsageError):  # raised again for all rows
                answer(rows[:BATCH_SIZE])

    def _predicted(self, rows: Sequence[tuple[str, ...]]) -> list[Prediction | EmbeddedText]:
        started = time.perf_counter()
        encoded = self._encoder.encode(rows)
        _require_tokens(encoded)
        encoding_ms = (time.perf_counter() - started) * 1e3 / max(len(rows), 1)
        by_length = np.argsort(-encoded.lengths, kind="stable")
        answers: list[Prediction | EmbeddedText | None] = [None] * len(rows)
        for start in range(0, len(rows), BATCH_SIZE):
            chosen = by_length[start : start + BATCH_SIZE]
            for index, answer in zip(
                chosen, self._answer(encoded, chosen, encoding_ms), strict=True
            ):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def embed(self, texts: Sequence[str], *, side: Side = "passage") -> np.ndarray:
        """Embed texts: float32 (N, W), in input order.

        Args:
            side: "query" for queries, "passage" for texts to be searched. Has no effect for models
                without prefixes.
        Raises:
            UsageError: not an embedding model; otherwise as `predict`.
        """
        if self.task.embedding is None:
            raise UsageError(
                f"the model in {self.folder} is a {self.task.objective} model and has no vectors; "
                "use predict, or load a sentence_embedding model"
            )
        vectors = [answer.vector for answer in self.predict(texts, side=side)]  # pyright: ignore
        return np.stack(vectors) if vectors else np.zeros((0, self.task.embedding.width or 0), "f4")

    def similarity(self, queries: Sequence[str], passages: Sequence[str]) -> np.ndarray:
        """Cosine of each query with each passage, float32 (Q, P). Raises: as `embed`."""
        first, second = self.embed(queries, side="query"), self.embed(passages)
        return unit_length(first) @ unit_length(second).T

    def rank(self, query: str, passages: Sequence[str]) -> list[tuple[int, float]]:
        """Rank passages for a query. Returns (index, score) pairs, best first; ties in input order.

        Raises:
            UsageError: the model does not score pairs of texts; otherwise as `predict`.
        """
        if not self.task.kind.is_score:
            raise UsageError(
                f"the model in {self.folder} answers with {self.task.objective}, and only a model "
                "trained for reranking, or another that scores pairs, ranks passages"
            )
        answers = self.predict([(query, passage) for passage in passages])
        scores = [next(iter(answer.scores.values())) for answer in answers]  # pyright: ignore
        return sorted(enumerate(scores), key=lambda pair: -pair[1])

    def _answer(
        self, encoded: Encoded, chosen: np.ndarray, encoding_ms: float
    ) -> list[Prediction] | list[EmbeddedText]:
        started = time.perf_counter()
        batch = encoded.batch(chosen, pad_to=self._padded(int(encoded.lengths[chosen].max())))
        logits = self._runtime.logits(batch)
        each_ms = encoding_ms + (time.perf_counter() - started) * 1e3 / len(chosen)
        if not np.isfinite(logits).all():
            raise NonFiniteError(
                f"the model in {self.folder} returned NaN or infinity for one of {len(chosen)} "
                "texts; check the model it was exported from with attar evaluate"
            )
        if self.task.embedding is not None:
            cut = encoded.is_cut[chosen].tolist()
            return [EmbeddedText(v, each_ms, c) for v, c in zip(logits, cut, strict=True)]
        answers = ANSWERS[self.task.kind.gold](self.task, logits)
        return [
            Prediction(label, probability, each_ms, scores, bool(is_cut), labels)
            for (label, probability, scores, labels), is_cut in zip(
                answers, encoded.is_cut[chosen], strict=True
            )
        ]

    def answers(self, rows: Sequence[str | tuple[str, str]]) -> Sequence[Answered]:
        """The answers that `attar predict` prints for the rows. Raises: as `predict`."""
        return self.predict(rows)

    def _padded(self, tokens: int) -> int:
        return min(self._runtime.padded(tokens), self.task.max_length)

    def _require_own_process(self) -> None:
        """Refuse to run in a forked process, where it could deadlock: the threads of the runtime do
        not exist there, and locks held by other threads are never released."""
        if os.getpid() != self._process:
            raise UsageError(
                f"the model in {self.folder} was loaded in process {self._process}, and this is "
                f"process {os.getpid()}, forked from it; load it in each process: "
                f"attar.load({str(self.folder)!r})"
            )

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "a loaded model cannot be pickled or copied; send the name of its folder and load it "
            f"in each process: attar.load({str(self.folder)!r})"
        )


def as_rows(texts: Any, num_texts: int | None, verb: str) -> list[tuple[str, ...]]:
    """Convert texts and pairs to tuples of one or two strings."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise UsageError(
            f'{verb} needs a list of texts, got one {type(texts).__name__}; write {verb}(["…"])'
        )
    asked = list(texts)
    rows: list[tuple[str, ...]] = []
    for number, text in enumerate(asked, start=1):
        row = (text,) if isinstance(text, str) else tuple(text) if _is_pair(text) else None
        which = f"text {number} of {len(asked)}"
        if row is None:
            raise UsageError(
                f"{which} has type {type(text).__name__}; allowed are a string or a pair of strings"
            )
        if num_texts is not None and len(row) != num_texts:
            got, reads = ("one text", "pairs") if len(row) == 1 else ("a pair", "single texts")
            raise UsageError(f"{which} is {got}, and this model reads {reads}: {_short(text)}")
        require_unicode(row, which)
        rows.append(row)
    return rows


def _is_pair(text: Any) -> bool:
    return (
        isinstance(text, (tuple, list))
        and len(text) == 2
        and all(isinstance(part, str) for part in text)
    )


def require_unicode(row: Sequence[str], which: str) -> None:
    for part in row:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{which} is not valid Unicode: {_short(part)} has half a surrogate pair at "
                f"character {error.start + 1}; decode it from its source again, as UTF-8"
            ) from None


def _require_tokens(encoded: Encoded) -> None:
    nothing = np.flatnonzero(encoded.lengths == 0)
    if len(nothing):
        raise UsageError(
            f"text {nothing[0] + 1} of {len(encoded)} has no token in this model's vocabulary, so "
            f"there is nothing to predict ({len(nothing)} such texts in all); remove it"
        )


def _short(text: object) -> str:
    """repr(text), shortened for a message."""
    written = ascii(text)
    return written if len(written) <= 60 else written[:57] + "…"


Answer = tuple[str, float | None, dict[str, float], tuple[str, ...] | None]
"""label, probability, scores and labels of a `Prediction`."""


def _classes(task: Task, logits: np.ndarray) -> list[Answer]:
    answers: list[Answer] = []
    for shares in softmax(logits):
        best = int(shares.argmax())
        scores = _named(task, shares)
        answers.append((task.label_names[best], float(shares[best]), scores, None))
    return answers


def _sets(task: Task, logits: np.ndarray) -> list[Answer]:
    cuts, answers = np.array(task.cuts), []
    for row in logits.astype(np.float64):
        order = np.argsort(-row, kind="stable")
        given = tuple(task.label_names[place] for place in order if row[place] >= cuts[place])
        shares = softmax(np.stack([row, np.zeros_like(row)], axis=-1))[:, 0]
        answers.append(("|".join(given), None, _named(task, shares), given))
    return answers


def _numbers(task: Task, logits: np.ndarray) -> list[Answer]:
    name = task.label_names[0] if task.label_names else "score"
    return [(f"{value:.4f}", None, {name: value}, None) for value in logits[:, 0].tolist()]


def _named(task: Task, shares: np.ndarray) -> dict[str, float]:
    return {name: float(share) for name, share in zip(task.label_names, shares, strict=True)}


ANSWERS: Mapping[Gold, Callable[[Task, np.ndarray], list[Answer]]] = {
    "class": _classes,
    "labels": _sets,
    "number": _numbers,
    "relevance": _numbers,
}
"""(the task, logits (N, C)) → N answers."""
