"""Train steps whose validation losses follow a power law: what a real run leaves behind, in a
millisecond."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import made_up_run
from attar.numerics.power_law import PowerLaw

FLOPS_PER_TOKEN = 1e6
LAW = PowerLaw(300.0, 0.25, 2.5)
"""In FLOPs."""
TOKENS = 2_000_000


def write_run(
    out: Path,
    name: str,
    law: PowerLaw = LAW,
    *,
    evaluations: int = 20,
    noise: float = 0.0,
    flops_per_token: float = FLOPS_PER_TOKEN,
    metric: str = "nll",
    validation_rows: int = 8,
) -> Path:
    """The folder of a train step with so many evaluations."""
    metrics = {
        "objective": "causal_lm" if metric == "nll" else "classification",
        "tokens": TOKENS,
        "flops": TOKENS * flops_per_token,
        "data": {"validation_rows": validation_rows},
    }
    folder = made_up_run.write_step(out, name, "train", metrics)
    drawn = np.random.default_rng(len(name)).normal(size=evaluations)
    lines = []
    for step in range(1, evaluations + 1):
        tokens = TOKENS * step // evaluations
        loss = law(tokens * flops_per_token) * float(np.exp(noise * drawn[step - 1]))
        at = {"step": step, "epoch": 0.0, "tokens": tokens}
        lines += [{**at, "loss": loss}, {**at, "validation": {metric: loss}}]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
