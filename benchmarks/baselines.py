"""Every baseline at equal training FLOPs: what does a student learn from a teacher, and how?

The closed world of `selection_noise` (its corpus, teacher, reference and selection, in its folder):
English novels with 30 % of known noise. Seven ways to train one student (0.8 M parameters outside
the embeddings) with a teacher of 2.7 M; each has the training FLOPs of `none`.

    none           cross-entropy on the scored chunks, in random order
    vanilla_kd     ½ cross-entropy + ½ KL with the live teacher, on the same chunks
    seqkd          cross-entropy on texts that the teacher wrote, from the beginnings of such chunks
    minillm        policy gradient of the reverse KL on sampled continuations, + ½ cross-entropy,
                   from random weights
    minillm_warm   half of the FLOPs as none, the other half as minillm at a tenth of the learning
                   rate: MiniLLM's authors start from a trained student and lower the rate
    miniplm        as none, on the half that the teacher is ahead on
    miniplm_kd     as vanilla_kd, on that half

Judged by bits per byte of held-out novels. A difference is taken passage by passage, within a seed;
its interval is a bootstrap over passages and, as a second level, over seeds. Share: of the way from
`none` to the teacher. Beside it stand the losses that a power law expects at more compute.

    python benchmarks/baselines.py NOVELS --out FOLDER         about 75 minutes of one core, 3 seeds

FOLDER may be that of `selection_noise`, whose world is then used as it is; otherwise it is made
(another 35 minutes). The same command goes on where it was stopped. `--shrink 0.02 --seeds 1`: a
trial of two minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from record import table, write_page
from selection_noise import HEAD, SCORING, SELECTIONS, SETTINGS, prepare

STUDENT_TOKENS = 0.9e6
"""That `none` reads: once through half of what was scored. 440 steps."""
WRITTEN_TOKENS, PROMPT = 255, 64
"""Of a text that the teacher writes, and of the beginning that it is given."""
FARTHER = (4, 16)
"""Multiples of the budget at which the losses are read off."""
RESAMPLES = 2000
WARM = "first_half"
"""What `minillm_warm` starts from."""
WARMED = "minillm_warm"
REVERSE_KL = [
    {"kind": "policy_gradient", "mix": 0.2},
    {"kind": "cross_entropy", "weight": 0.5},
]
ARMS = {
    "none": {"data": "corpus"},
    "vanilla_kd": {"data": "corpus", "teacher": "{teacher}"},
    "seqkd": {"data": "written"},
    "minillm": {"data": "corpus", "teacher": "{teacher}", "losses": REVERSE_KL},
    "minillm_warm": {"data": "corpus", "teacher": "{teacher}", "losses": REVERSE_KL},
    "miniplm": {"data": "kept"},
    "miniplm_kd": {"data": "kept", "teacher": "{teacher}"},
}
"""Arm → the settings of its train step that are its own."""
CORPUS = """
[data.corpus]
source = "corpus"
path = "{world}/corpus"

[data.corpus.validation]
source = "files"
path = "{folder}/mixture"
text = "text"
objective = "causal_lm"
max_set_aside = 0.05
validation_rows = 40
"""
WORLD = f"""
name = "baselines"
seed = 0
{CORPUS}
[data.kept]
source = "corpus"
path = "{{world}}/kept"

[data.kept.validation]
source = "files"
path = "{{folder}}/mixture"
text = "text"
objective = "causal_lm"
max_set_aside = 0.05
validation_rows = 40

[data.novels]
source = "files"
path = "{{folder}}/mixture"
text = "text"
objective = "causal_lm"
max_set_aside = 0.05
"""
WRITING = """
[steps.written]
run = "generate"
model = "{teacher}"
data = "corpus"
part = "scored"
chunks = {texts}
prompt_tokens = {prompt}
new_tokens = {new}
"""
STUDENT = """
[steps.{arm}{seed}]
run = "train"
model = {model}
seed = {seed}
{length}
{own}
{settings}"""
JUDGE = """
[steps.judged{seed}]
run = "evaluate"
models = {models}
data = "novels"
speed = false
memory = false
"""
END = """
[steps.law]
run = "extrapolate"
models = {groups}
read_off_tokens = [{tokens}]
read_off_budgets = {farther}
fit = {{ bootstrap = 1000 }}

[steps.report]
run = "report"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("novels", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shrink", type=float, default=1.0, help="of all amounts; 0.02: a trial")
    parser.add_argument("--render", action="store_true", help="only write the page")
    asked = parser.parse_args()
    folder = asked.out.resolve()
    world = folder / "runs" / "closed_world"
    if not asked.render:
        prepare(asked.novels, folder, asked.shrink)
        if not (world / "kept" / "result.json").exists():
            run(folder, "world", world_recipe(folder, asked.shrink))
        run(folder, "baselines", recipe(folder, world, asked.seeds, asked.shrink))
    body = page(folder / "runs" / "baselines", world, asked.seeds, asked.shrink)
    if asked.shrink == 1:
        write_page("baselines", "Distillation in pre-training, at equal FLOPs", body)
    else:
        print(body)


def run(folder: Path, name: str, text: str) -> None:
    file = folder / f"{name}.toml"
    file.write_text(text)
    attar = [sys.executable, "-m", "attar", "run", str(file), "--out", str(folder / "runs")]
    subprocess.run(attar, check=True)


def world_recipe(folder: Path, shrink: float) -> str:
    """That of `selection_noise`, up to its selections."""
    tokens = {"teacher_tokens": int(3e6 * shrink), "reference_tokens": int(0.9e6 * shrink)}
    scoring = SCORING.format(**tokens, settings=SETTINGS)
    return HEAD.format(folder=folder) + scoring + SELECTIONS


def recipe(folder: Path, world: Path, seeds: int, shrink: float) -> str:
    """Every arm with every seed; all but `none` are as long as its FLOPs pay for."""
    tokens, teacher = int(STUDENT_TOKENS * shrink), str(world / "teacher")
    settings = SETTINGS.replace("evaluations = 1", "evaluations = 12")
    if shrink < 0.2:  # steps enough for twelve evaluations
        settings = settings.replace("batch_tokens = 2048", "batch_tokens = 512")
    parts = [
        WORLD.format(folder=folder, world=world),
        WRITING.format(
            teacher=teacher,
            texts=-(-tokens // WRITTEN_TOKENS),
            prompt=PROMPT,
            new=WRITTEN_TOKENS + 1 - PROMPT,
        ),
    ]
    slower = settings.replace("learning_rate = 2e-3", "learning_rate = 2e-4")
    random_weights = f'{{ size = "pico", family = "llama", tokenizer = "{world}/corpus" }}'
    for seed in range(seeds):
        for arm, own in {WARM: ARMS["none"], **ARMS}.items():
            length, model, own_settings = f'match_flops = "none{seed}"', random_weights, settings
            if arm in ("none", WARM):
                length = f"max_tokens = {tokens // 2 if arm == WARM else tokens}"
            if arm == WARMED:
                model, own_settings = f'"{WARM}{seed}"', slower
                length = f'match_flops = "{WARM}{seed}"'
            part = 'part = "scored"\n' if own["data"] == "corpus" else ""
            parts.append(
                STUDENT.format(
                    arm=arm,
                    seed=seed,
                    model=model,
                    length=length,
                    own=part + toml(own).replace("{teacher}", teacher),
                    settings=own_settings,
                )
            )
        judged = [*(f"{arm}{seed}" for arm in ARMS), teacher]
        parts.append(JUDGE.format(seed=seed, models=json.dumps(judged)))
    groups = [[f"{arm}{seed}" for seed in range(seeds)] for arm in ARMS if arm != WARMED]
    parts.append(END.format(groups=json.dumps(groups), tokens=4 * tokens, farther=list(FARTHER)))
    return "\n".join(parts)


def toml(settings: dict[str, Any]) -> str:
    return "\n".join(f"{name} = {value_of(value)}" for name, value in settings.items())


def value_of(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {value_of(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_of, value)) + "]"
    return json.dumps(value)


def page(done: Path, world: Path, seeds: int, shrink: float) -> str:
    results = {arm: [metrics_of(done / f"{arm}{seed}") for seed in range(seeds)] for arm in ARMS}
    judged = [
        Judged.read(done / f"judged{seed}", seed, str(world / "teacher")) for seed in range(seeds)
    ]
    laws = metrics_of(done / "law")["models"]
    warmed = with_first_half(done, results[WARMED])
    whole = {arm: runs for arm, runs in results.items() if arm != WARMED}
    offline = offline_flops(done, world)
    budget = results["none"][0]
    parts = [
        f"Amounts × {shrink:g}; seeds: {seeds}. Every arm has the training FLOPs of `none`, "
        f"{budget['flops']:.3g}, with all matrix products counted "
        f"({budget['flops_non_embedding']:.3g} by 6·N, parameters without embeddings and head). "
        "Beforehand: FLOPs spent on an arm's data for all its seeds, and on one of the students "
        "that share them. The teacher is given.",
        table(
            ["arm", "steps", "by 6·N", "tokens", "FLOPs", "minutes", "beforehand", "a student"],
            [
                cost_row(arm, runs, offline, seeds)
                for arm, runs in {**results, WARMED: warmed}.items()
            ],
        ),
        "## Bits per byte of held-out novels",
        f"{judged[0].size:,} passages. Less than `none`: positive is better. In parentheses 95 % "
        "bootstrap intervals: passages and seeds are drawn with replacement.",
        table(
            [
                *("trained by", *(f"seed {seed}" for seed in range(seeds)), "mean"),
                *("less than none", "share of the gap to the teacher"),
            ],
            quality_rows(judged),
        ),
        "## Losses further on",
        "Validation nll by a power law through the evaluations of all seeds, read off at multiples "
        "of the budget (in FLOPs, the same for all arms), with its 95 % interval. Learning rates "
        "fall with a cosine, so the order says more than the values.",
        table(
            ["arm", "at the budget", *(f"at {times} ×" for times in FARTHER), "L∞"],
            [
                law_row(arm, runs, law)
                for (arm, runs), law in zip(whole.items(), laws.values(), strict=True)
            ],
        ),
    ]
    return "\n\n".join(parts)


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())["metrics"]


def offline_flops(done: Path, world: Path) -> dict[str, int]:
    """Of what an arm's data rests on."""
    scoring = [world / name for name in ("by_teacher", "by_reference", "reference")]
    scored = sum(metrics_of(folder)["flops"] for folder in scoring)
    offline = {"miniplm": scored, "miniplm_kd": scored}
    if "seqkd" in ARMS:
        offline["seqkd"] = metrics_of(done / "written")["flops"]
    return offline


def with_first_half(done: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs that went on from another, with what that one took."""
    added = ("steps", "tokens", "flops", "train_seconds")
    earlier = [metrics_of(done / f"{WARM}{seed}") for seed in range(len(runs))]
    return [
        {**run, "matched": None, **{name: run[name] + half[name] for name in added}}
        for run, half in zip(runs, earlier, strict=True)
    ]


def cost_row(
    arm: str, runs: list[dict[str, Any]], offline: dict[str, int], seeds: int
) -> list[str]:
    first, before = runs[0], offline.get(arm, 0)
    matched = first["matched"]
    students = seeds * sum(value == before for value in offline.values())
    return [
        arm,
        f"{first['steps']:,}",
        f"{matched['steps_by_the_other_count']:,}" if matched else f"{first['steps']:,}",
        f"{first['tokens']:,}",
        f"{first['flops']:.3g}",
        f"{sum(run['train_seconds'] for run in runs) / len(runs) / 60:.1f}",
        f"{before:.3g}" if before else "",
        f"{before / students:.3g}" if before else "",
    ]


@dataclass(frozen=True)
class Judged:
    """Nats of every passage, of the models of one seed."""

    nats: dict[str, NDArray[Any]]
    """Arm, or "teacher", → nats."""
    bytes: NDArray[Any]

    @classmethod
    def read(cls, folder: Path, seed: int, teacher: str) -> Judged:
        rows = pq.read_table(folder / "predictions.parquet")
        names = {arm: f"{arm}{seed}" for arm in ARMS} | {"teacher": teacher}
        nats = {arm: rows[f"{name}.nats"].to_numpy() for arm, name in names.items()}
        return cls(nats, rows["bytes"].to_numpy())

    @property
    def size(self) -> int:
        return len(self.bytes)

    def bits(self, arm: str) -> float:
        return float(self.nats[arm].sum() / math.log(2) / self.bytes.sum())


def quality_rows(judged: list[Judged]) -> list[list[str]]:
    rows: list[list[str]] = []
    for arm in (*ARMS, "teacher"):
        bits = [each.bits(arm) for each in judged]
        found = [arm, *(f"{value:.4f}" for value in bits), f"{statistics.mean(bits):.4f}"]
        less, share = resampled(judged, arm)
        shown = "" if arm == "none" else said(less, "+.4f")
        rows.append([*found, shown, "" if arm in ("none", "teacher") else said(share, ".0%")])
    return rows


def resampled(judged: list[Judged], arm: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bits per byte less than `none`, and the share of the way to the teacher: the values found,
    then those of resamples."""
    draw = np.random.default_rng(0)
    size, seeds = judged[0].size, len(judged)
    passages = np.ones((RESAMPLES + 1, size))
    passages[1:] = draw.multinomial(size, np.full(size, 1 / size), RESAMPLES)
    weights = np.full((RESAMPLES + 1, seeds), 1 / seeds)
    weights[1:] = draw.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds

    def less(than: str) -> NDArray[Any]:
        nats = np.stack([each.nats["none"] - each.nats[than] for each in judged], axis=1)
        return (passages @ nats * weights).sum(1) / math.log(2) / (passages @ judged[0].bytes)

    return less(arm), less(arm) / less("teacher")


def said(values: NDArray[Any], form: str) -> str:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:{form}} ({low:{form}} to {high:{form}})"


def law_row(arm: str, runs: list[dict[str, Any]], law: dict[str, Any]) -> list[str]:
    reached = statistics.mean(run["validation"]["nll"] for run in runs)
    farther = [
        f"{at['value']:.3f} ({at['low']:.3f} to {at['high']:.3f})" for at in law["at_budgets"]
    ]
    floor = f"{law['floor']['value']:.2f}" if law["floor_identified"] else "not identified"
    return [arm, f"{reached:.3f}", *farther, floor]


if __name__ == "__main__":
    main()
