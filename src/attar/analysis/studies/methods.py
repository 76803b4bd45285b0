"""`methods`: methods of quantization side by side, on one model, with the same texts and rows.

Every cell is a model quantized from the float one by a method's own defaults, with weights,
embeddings and activations at one width. Methods that train with labels have their own step; what a
method learns by gradient from the calibration texts belongs to it here too (`refine = false` leaves
it out, as the paper's table does).
Source: Outlier Suppression (Wei et al. 2022), table 14.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from attar.analysis.config import MethodsStep
from attar.analysis.judging import open_judge
from attar.analysis.quantizing import prepared, settings_of
from attar.analysis.study import Finding
from attar.analysis.subject import open_subject
from attar.models.simulated.quantized import Quantizer, site_of
from attar.models.structure.ports import inserted
from attar.numerics.agreement import finite_or_none, sqnr_db
from attar.quantization.solve import simulated, solve
from attar.step import StepContext


def methods(config: MethodsStep, context: StepContext) -> Finding:
    """The metric of every method at every width, with the seconds that making it took."""
    subject = open_subject(config, context, shows_probabilities=True)
    judge = open_judge(config, subject, context)
    plain = judge.value(subject.model, "float")
    rows: list[dict[str, Any]] = []
    for width in config.widths:
        for name in config.methods:
            started = time.perf_counter()
            # a method that learns only when it is asked to is not asked to
            left_out = {} if config.refine else {"refine": False}
            settings = settings_of(config, name, width, **left_out)
            problem, solution = solve(prepared(settings, subject, context))
            seconds = time.perf_counter() - started
            model = simulated(problem.model, solution.weights)
            found = torch.cat(list(problem.calibration.quantized_logits(model, solution.grids)))
            wanted = torch.cat(list(problem.calibration.logits))
            with inserted(model, {site_of(grid): Quantizer.of(grid) for grid in solution.grids}):
                value = judge.value(model, f"{name} at {width} bits")
            rows.append(
                {
                    "method": name,
                    "bits": width,
                    "value": value,
                    "change": value - plain,
                    "logits_sqnr_db": finite_or_none(sqnr_db(wanted, found)),
                    "seconds": seconds,
                }
            )
    facts = {
        "metric": judge.metric,
        "float": plain,
        "refine": config.refine,
        "num_rows": len(judge.split),
        "examples": subject.num_examples,
    }
    cells = {f"{row['method']}_w{row['bits']}a{row['bits']}": row["value"] for row in rows}
    return Finding(facts, {"rows": rows}, {"values": cells})
