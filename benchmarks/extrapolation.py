"""Does a law that is fitted to the first quarter of a run predict its end, at 4 × the budget?

    python benchmarks/extrapolation.py RUN…              each RUN is the folder of a train step
    python benchmarks/extrapolation.py RUN --longer L    fit all of RUN, predict the end of L
    python benchmarks/extrapolation.py --world WORLD     train the runs, in the closed world of
                                                         `selection_noise`; 25 minutes of one core

Of the first form: only evaluations up to a quarter of the run's tokens are fitted, of which the
first fifth is left out as warm-up, so a run needs 24 evaluations or more. A learning rate that
falls to the end makes the end lower than any law of its beginning says: train with
`schedule = "constant"`, or use the second form with two runs, each with a whole schedule of its
own. The last columns say whether the real loss lies in the 95 % interval of the prediction.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from attar.evaluation.config import PowerLawFit
from attar.evaluation.extrapolation import fit_curves
from attar.evaluation.recovery import Curve, read_curve
from attar.recipe.run import run_recipe
from baselines import CORPUS
from record import table, write_page

SHARE = 0.25
QUESTION = "A power law fitted to a run's losses: does it predict 4 × the budget?"

RECIPE = 'name = "laws"\nseed = 0\n' + CORPUS
STEP = """
[steps.constant{seed}]
run = "train"
model = {{ size = "pico", family = "llama", tokenizer = "{world}/corpus" }}
seed = {seed}
data = "corpus"
part = "scored"
max_length = 256
batch_tokens = 2048
max_tokens = {tokens}
learning_rate = 2e-3
schedule = "constant"
evaluations = 40
keep = "last"
precision = "fp32"
"""
TOKENS = 2_200_000
"""Once through almost all that is scored there."""


def trained(world: Path, seeds: int, tokens: int) -> list[Path]:
    """Folders of runs whose learning rate stays the same to the end."""
    folder = world.resolve()
    given = {"world": folder / "runs/closed_world", "folder": folder, "tokens": tokens}
    text = RECIPE.format(**given) + "".join(STEP.format(**given, seed=s) for s in range(seeds))
    file = world / "laws.toml"
    file.write_text(text, encoding="utf-8")
    run = run_recipe(file, out=world / "runs").folder
    return [run / f"constant{seed}" for seed in range(seeds)]


def predicted(name: str, seen: Curve, tokens: float, real: float, fit: PowerLawFit) -> list[str]:
    """A row of the table."""
    law = fit_curves([seen], fit, 0, name)
    found = law.at(tokens * seen.flops_per_token)
    floor = f"{law.law.floor:.3f}" if law.is_identified else "not identified"
    return [
        name,
        str(law.points),
        f"{seen.total_tokens:,} → {tokens:,.0f} ({tokens / seen.total_tokens:.2f} ×)",
        f"{law.law.alpha:.3f}",
        floor,
        f"{seen.losses[-1]:.4f}",
        f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})",
        f"{real:.4f}",
        f"{found.value - real:+.4f}",
        "yes" if found.low <= real <= found.high else "no",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--world", type=Path, help="folder of `selection_noise` to train runs in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--longer", type=Path, help="a run with more tokens to predict the end of")
    parser.add_argument("--share", type=float, default=SHARE, help="of a run's tokens that is seen")
    parser.add_argument("--from-share", type=float, default=PowerLawFit().from_share)
    parser.add_argument("--bootstrap", type=int, default=2000)
    asked = parser.parse_args()
    fit = PowerLawFit(bootstrap=asked.bootstrap, from_share=asked.from_share)
    rows = []
    made = trained(asked.world, asked.seeds, asked.tokens) if asked.world else []
    for folder in (*asked.runs, *made):
        whole = read_curve(folder, folder.name)
        end = read_curve(asked.longer, asked.longer.name) if asked.longer else whole
        seen = whole if asked.longer else whole.until(asked.share * whole.total_tokens)
        rows.append(predicted(folder.name, seen, end.tokens[-1], end.losses[-1], fit))
    head = ("run", "points", "tokens seen → predicted", "α", "L∞", "last seen", "predicted")
    write_page(
        "extrapolation", QUESTION, table((*head, "real", "difference", "in the interval"), rows)
    )


if __name__ == "__main__":
    main()
