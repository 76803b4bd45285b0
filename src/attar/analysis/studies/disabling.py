"""`disabling`: measures the quality lost without the outlier dimensions.

The model is evaluated with these dimensions of the residual stream disabled (overwritten after the
embeddings and after every block, see `models.structure.residual`), and several times with the same
number of random other dimensions disabled:

    damage = score with everything − score without
    ratio  = damage(outliers) / mean damage(others)

Zeroing removes both the information in a dimension and its mean; replacing it by its mean removes
only the information. If only zeroing is harmful, the dimension acts as a bias. The random
dimensions are drawn from those that are not outliers anywhere in the stack. Rows and random choices
are resampled together (`numerics.damage`).
Source: Kovaleva et al. (2021), who zero LayerNorm weights; EOFD (NAACL 2025), table 5, with one
random choice, zeroing, and no intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar.analysis.config import MOST_DIMENSIONS, DisablingStep
from attar.analysis.disabling_sentence import disabling_sentence
from attar.analysis.judging import TextJudge, open_judge
from attar.analysis.outlying.criteria import recognise
from attar.analysis.outlying.hidden import run_with_states
from attar.analysis.studies.outliers import shared_dimensions
from attar.analysis.subject import Finding, Subject, Watched
from attar.errors import ModelError
from attar.models.capture import capture
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.residual import disabled
from attar.numerics.damage import Damage, damage_of, damages, standard_error
from attar.numerics.statistics import Bootstrapped, bootstrap
from attar.quantization.calibration.real_tokens import RealTokens
from attar.scoring.judging import Judge
from attar.seeds import derive_seed, generator
from attar.step import StepContext

Dimensions = Mapping[str, Sequence[int]]
"""Stack → dimensions."""
FULL, OUTLIER = "full", "outlier"


@dataclass(frozen=True)
class Chosen:
    """Dimensions to disable in each stack."""

    outliers: Dimensions
    """Outlier dimensions, strongest first."""
    others: tuple[Dimensions, ...]
    """Random choices of the same number of other dimensions."""

    @property
    def count(self) -> str:
        """Number of disabled dimensions per stack, as text."""
        return " + ".join(str(len(each)) for each in self.outliers.values() if each)


def disabling(config: DisablingStep, context: StepContext) -> Finding:
    """Measure the score with all dimensions, without the outliers, and without random others.

    Returns: `metrics.damage`: replacement → damages, ratio and p; empty if the criterion finds no
        outliers, which is noted in the facts.
    Raises:
        ModelError: the model does not fit the data, or has no such stack.
        DataError: no labelled validation rows.
        NonFiniteError: a logit is NaN or infinite.
    """
    subject, judge = open_judge(config, context)
    chosen = choose(config, subject, context)
    facts = _facts(config, judge, chosen)
    if not any(chosen.outliers.values()):
        facts["found"] = (
            f"no outlier dimensions: criterion {config.criterion} finds none, so nothing was "
            "disabled; try another criterion, such as activation_std"
        )
        context.progress.say(f"{context.name}: {facts['found']}")
        return Finding(facts, {"rows": [], "summary": []}, {"damage": {}})
    answers = _runs(config, subject, judge, chosen)
    rows_seed = derive_seed(context.seed, "bootstrap")
    scores = bootstrap(
        judge.metric, answers, judge.labels, resamples=config.bootstrap, seed=rows_seed
    )
    seed = derive_seed(context.seed, "bootstrap of choices")
    found = {
        word: damages(scores[FULL], scores[f"{word} {OUTLIER}"], _nulls(scores, word), seed=seed)
        for word in config.replacement
    }
    rows = _rows(config, scores, chosen)
    summary = [_summary(word, damage, judge.metric, chosen) for word, damage in found.items()]
    facts |= {"full": scores[FULL].value, "full_se": standard_error(scores[FULL])}
    for row in summary:
        context.progress.say(f"{context.name}: {row['sentence']}")
    damage = {
        row["replacement"]: {k: v for k, v in row.items() if k != "sentence"} for row in summary
    }
    return Finding(facts, {"rows": rows, "summary": summary}, {"damage": damage})


def choose(config: DisablingStep, subject: Subject, context: StepContext) -> Chosen:
    """Choose the outlier dimensions of each stack, and random other dimensions.

    Raises:
        ModelError: the stack does not exist, or has fewer other dimensions than outliers.
    """
    anatomy = anatomy_of(subject.model)
    stacks = config.stacks or tuple(stack.name for stack in anatomy.stacks)
    for name in stacks:
        anatomy.stack(name)
    shared = shared_dimensions(recognise(config, subject))
    every, first = {}, {}
    for name in stacks:
        own = [row for row in shared if row["stack"] == name]
        own.sort(key=lambda row: (-row["norms"], -row["largest"]))
        every[name] = [int(row["dimension"]) for row in own]
        first[name] = every[name][: config.count or MOST_DIMENSIONS]
        if config.count is not None and len(every[name]) < config.count:
            context.progress.warn(
                f"count is {config.count}, {config.criterion} recognises {len(every[name])} "
                f"outlier dimensions in the {name}; all of them are disabled"
            )
    width = int(subject.model.config.hidden_size)
    others = tuple(
        {
            name: _others(width, every[name], len(first[name]), context.seed, name, choice)
            for name in stacks
        }
        for choice in range(config.null_seeds)
    )
    return Chosen(first, others)


def _others(
    width: int, outliers: Sequence[int], count: int, seed: int, stack: str, choice: int
) -> list[int]:
    """Random dimensions that are not outliers anywhere in the stack."""
    left = np.setdiff1d(np.arange(width), outliers)
    if len(left) < count:
        raise ModelError(
            f"{len(outliers)} of the {stack}'s {width} dimensions are outliers, which leaves "
            f"{len(left)} to choose {count} from; set count to {len(left)} or less"
        )
    drawn = generator(seed, "null dimensions", stack, choice).choice(left, count, replace=False)
    return sorted(map(int, drawn))


def stream_means(subject: Watched) -> dict[str, Tensor]:
    """Mean over the real tokens of the calibration texts at every place of the residual stream:
    stack → (L + 1, D).
    """
    real, sums, counts = RealTokens(), {}, {}
    passed = real.each(subject.batches, subject.context, "means of the residual stream", "a study")
    with torch.inference_mode(), capture(subject.model, scores=False) as seen:
        for batch in passed:
            run_with_states(subject.model, batch)
            for stack, states in seen.hidden.items():
                counts_here = real.side(stack) > 0  # pyright: ignore[reportArgumentType]
                total = torch.stack([s[counts_here].double().sum(dim=0) for s in states])
                sums[stack] = sums.get(stack, 0) + total
                counts[stack] = counts.get(stack, 0) + int(counts_here.sum())
    return {stack: (total / counts[stack]).float() for stack, total in sums.items()}


def _runs(
    config: DisablingStep, subject: Subject, judge: Judge | TextJudge, chosen: Chosen
) -> dict[str, np.ndarray]:
    """Name of a run → its predictions, (N,)."""
    model = subject.model
    found = {FULL: judge.answers(model, "nothing disabled")}
    for word in config.replacement:
        values = stream_means(subject) if word == "mean" else None
        for name, dimensions in _sets(chosen):
            with disabled(model, dimensions, values):
                found[f"{word} {name}"] = judge.answers(model, f"{name} set to {word}")
    return found


def _sets(chosen: Chosen) -> list[tuple[str, Dimensions]]:
    null = [(f"null {choice}", each) for choice, each in enumerate(chosen.others)]
    return [(OUTLIER, chosen.outliers), *null]


def _nulls(scores: Mapping[str, Bootstrapped], word: str) -> list[Bootstrapped]:
    return [score for name, score in scores.items() if name.startswith(f"{word} null ")]


def _rows(
    config: DisablingStep, scores: Mapping[str, Bootstrapped], chosen: Chosen
) -> list[dict[str, Any]]:
    full = scores[FULL]
    rows: list[dict[str, Any]] = [
        {"run": FULL, "replacement": None, "value": full.value, "se": standard_error(full)}
    ]
    for word in config.replacement:
        for name, dimensions in _sets(chosen):
            score = scores[f"{word} {name}"]
            lost = damage_of(full, score)
            rows.append(
                {
                    "run": name,
                    "replacement": word,
                    "dimensions": {stack: list(each) for stack, each in dimensions.items()},
                    "value": score.value,
                    "se": standard_error(score),
                    "damage": lost.value,
                    "damage_ci95": [lost.low, lost.high],
                }
            )
    return rows


def _summary(word: str, damage: Damage, metric: str, chosen: Chosen) -> dict[str, Any]:
    ratio = damage.ratio
    lost = {"outlier": damage.outlier, "null": damage.null, "excess": damage.excess}
    return {
        "replacement": word,
        **{name: each.value for name, each in lost.items()},
        **{f"{name}_ci95": [each.low, each.high] for name, each in lost.items()},
        "ratio": ratio.value,
        "ratio_ci95": [end if isfinite(end) else None for end in (ratio.low, ratio.high)],
        "null_within_noise": damage.null.within_noise,
        "as_bad": damage.as_bad,
        "choices": damage.choices,
        "p_value": damage.p_value,
        "sentence": disabling_sentence(word, damage, metric, chosen.count),
    }


def _facts(config: DisablingStep, judge: Judge | TextJudge, chosen: Chosen) -> dict[str, Any]:
    said = "; ".join(
        f"{stack} {', '.join(map(str, each))}" for stack, each in chosen.outliers.items() if each
    )
    return {
        "criterion": config.criterion,
        "disabled": said or "none",
        "metric": judge.metric,
        "num_rows" if isinstance(judge, Judge) else "num_passages": len(judge.labels),
        "null_seeds": config.null_seeds,
    }
