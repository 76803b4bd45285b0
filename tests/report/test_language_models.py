"""Language models on the page: what they cost has three figures, and less is better."""

from __future__ import annotations

import math
import re
from html import unescape
from pathlib import Path
from typing import Any

import made_up_run
from attar.evaluation.compare import sentence
from attar.numerics.statistics import Difference


def entry(nll: float, size: float) -> dict[str, Any]:
    figures = {"nll": nll, "perplexity": math.exp(nll), "bits_per_byte": nll / 2.9}
    return {
        "form": "float",
        "size_mib": size,
        "num_params": 6e6,
        "flops": 1e9,
        "tokens_per_s": 5234.0,
        "context": 128,
        "stride": 128,
        **{
            name: {"value": value, "ci95": [0.98 * value, 1.02 * value], "n": 1738}
            for name, value in figures.items()
        },
    }


def test_a_page_of_language_models_has_their_metrics_and_says_that_down_is_better(
    tmp_path: Path,
) -> None:
    metrics = ["nll", "perplexity", "bits_per_byte"]
    said = Difference(0.25, 0.24, 0.26, 1738)
    content = {
        "data": {"name": "novels", "split": "validation", "rows": 1738, "metrics": metrics},
        "models": {"teacher": entry(3.9, 24.1), "student": entry(4.15, 12.4)},
        "differences": [
            {
                "model": "student",
                "against": "teacher",
                "metric": metric,
                "value": said.value,
                "ci95": [said.low, said.high],
                "n": said.n,
                "within_noise": False,
                "sentence": sentence("student", "teacher", metric, said),
            }
            for metric in metrics
        ],
    }
    folder = made_up_run.write_step(tmp_path / "run", "scores", "evaluate", content)
    step = {"run": "evaluate", "models": ["teacher", "student"], "data": "novels"}
    page = made_up_run.make_report(
        tmp_path / "report", {"scores": folder}, {"name": "novels", "steps": {"scores": step}}
    )
    text = unescape(page.read_text())
    assert "Better is down and to the left" in text
    assert "Better is up" not in text
    assert "student is worse than teacher by 0.250 bits per byte" in text
    assert not re.search(r"by [0-9.]+ nats per token", text)  # the three rise and fall together
    for metric, value in (("nll", "4.150"), ("perplexity", "63.4"), ("bits_per_byte", "1.431")):
        assert metric in text
        assert value in text
