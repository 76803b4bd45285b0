"""Labelled rows that judge a quantized model refuse answers that mean nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import deployments
from attar.errors import NonFiniteError
from attar.quantization.labelled_rows import LabelledRows


class Answers(nn.Module):
    """A model that answers what it is given."""

    def forward(self, given: torch.Tensor) -> Any:
        return SimpleNamespace(logits=given)


@pytest.mark.parametrize(("kind", "metric"), [(np.int64, "accuracy"), (np.float32, "pearson")])
def test_answers_that_are_not_finite_are_no_score(
    tmp_path: Path, kind: type[np.generic], metric: str
) -> None:
    width = 2 if kind is np.int64 else 1
    logits = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])[:, -width:]
    labels = logits.argmax(1).numpy() if width == 2 else logits[:, 0].numpy()
    context = deployments.context_for(tmp_path, "int8", {})
    batches: Any = [{"given": logits[:2]}, {"given": logits[2:]}]
    rows = LabelledRows(batches, labels.astype(kind), metric, np.arange(width), context)
    model: Any = Answers()
    assert rows.score(model) == pytest.approx(1.0, abs=1e-6)
    logits[3] = torch.nan
    with pytest.raises(NonFiniteError, match=r"for 1 of 4 rows \(rows 3\)"):
        rows.score(model)
