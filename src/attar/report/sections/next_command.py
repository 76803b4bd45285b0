"""The suggested next command, at the end of a run and on the page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attar.report.reading import Made, table
from attar.report.sections.comparison import comparisons
from attar.report.sections.gates import gates
from attar.report.sections.headline import headline
from attar.report.sections.measured import DEPLOYED
from attar.report.sections.verdict import NOT_READY

NEXT: Mapping[str, str] = {
    "tokenize": "attar peek {step}",
    "select": "attar peek {step} --best",
    "generate": "attar peek {step}",
    "score": "attar select CORPUS --teacher {step} --reference SCORES",
    "train": "attar evaluate --model {step} --data DATA",
    "fold": "attar evaluate --model {step} --data DATA",
    "quantize": "attar export --model {step} --data DATA",
    "export": 'attar predict {step} "a text"',
    "analyze": "attar report {run}",
    "evaluate": "attar report {run}",
    "extrapolate": "attar report {run}",
}
"""Kind of the last step → suggested next command."""


def next_command(made: Sequence[Made], recipe: Mapping[str, Any], folder: Path) -> str:
    """The command for the model to deploy, otherwise for the last step; "" if there is none.

    Args:
        folder: the run's folder, as it is to be shown.
    """
    first = headline(made, comparisons(made), gates(made, recipe))
    if first.verdict.word == NOT_READY:
        return ""  # the verdict says what to try
    deployed = [s for s in made if s.run == "export" and s.metrics.get("format") in DEPLOYED]
    steps = [table(step) for step in table(recipe.get("steps")).values()]
    is_reported = any(step.get("run") == "report" for step in steps)  # the end of such a run
    wanted = [step for step in deployed if step.name == first.product] or deployed
    for step in (wanted or ([] if is_reported else made))[-1:]:
        places = {"step": folder / step.name, "run": folder}
        shown = {name: shlex.quote(str(place)) for name, place in places.items()}
        return NEXT.get(step.run, "").format(**shown)
    return ""
