"""What every judge of a study gives: one number a row, and what it is held against.

That is the form in which every metric can be resampled; how the number comes about is not the
metric's business.
Letters: N rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from attar.analysis.subject import UNTUNED_MAX_LENGTH, Subject
from attar.models.structure.anatomy import anatomy_of
from attar.numerics.statistics import Bootstrapped, bootstrap


class RowJudge(ABC):
    """A model and the rows that judge it."""

    subject: Subject
    metric: str
    against: np.ndarray
    """What answers are held against, (N,)."""
    unit: str
    """What a row is."""

    @abstractmethod
    def answers(self, name: str) -> np.ndarray:
        """What the model says now of every row, (N,).

        Raises:
            NonFiniteError: a logit is NaN or infinite.
        """

    def bootstrapped(
        self, answers: Mapping[str, np.ndarray], resamples: int, seed: int
    ) -> dict[str, Bootstrapped]:
        """The metric of several sets of answers, on the rows and on the same resamples of them."""
        return bootstrap(self.metric, answers, self.against, resamples=resamples, seed=seed)


def room(subject: Subject) -> int:
    """Tokens a model reads at most."""
    task, most = subject.loaded.task, anatomy_of(subject.model).max_tokens
    if task is not None:
        return task.max_length
    return UNTUNED_MAX_LENGTH if most is None else min(most, UNTUNED_MAX_LENGTH)
