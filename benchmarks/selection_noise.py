"""Does difference sampling find known noise, and does a student learn more from what it keeps?

A closed world (`known_noise`): English novels with 30 % of noise whose kind is known. The teacher
is trained on one mixture; the reference on the reserved part of another, whose other part both
score.

    1. Of each kind: how often a clean chunk scores higher than a chunk of noise (the area under the
       ROC curve), with a bootstrap interval; and the share of its chunks that survive, without and
       with the trim and the near-duplicate filter.
    2. Students of one size on equal tokens of what was selected, of a random half, and of clean
       text alone: bits per byte on four held-out novels. The share of the way from random to clean
       that the selection goes.

    python benchmarks/selection_noise.py NOVELS --out FOLDER      about an hour of two cores

NOVELS holds train.jsonl.gz and validation.jsonl.gz. FOLDER keeps all runs; the same command goes on
where it was stopped. Figures of fewer seeds are shown with `--seeds`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.stats import rankdata

from known_noise import CLEAN, NOISE, mixture, novels, write_rows
from record import table, write_page

ARMS = ("selected", "random", "clean")
FILTERS = {"kept": "none", "trimmed": "trim = 0.05", "filtered": "trim and near duplicates"}
"""Select step → what it sets aside."""
SETTINGS = """max_length = 256
batch_tokens = 2048
learning_rate = 2e-3
schedule = "cosine"
evaluations = 1
keep = "last"
precision = "fp32"
"""
HEAD = """
name = "closed_world"
seed = 0

[data.mixture]
source = "files"
path = "{folder}/mixture"
text = "text"
objective = "causal_lm"
max_set_aside = 0.05

[data.teaching]
source = "files"
path = "{folder}/teaching"
text = "text"
objective = "causal_lm"
max_set_aside = 0.05

[steps.corpus]
run = "tokenize"
data = "mixture"
tokenizer = {{ train_on = "teaching", vocab_size = 4096 }}
max_length = 256
source_column = "source"
reserve = 0.33
"""
SCORING = """
[steps.teacher]
run = "train"
model = {{ size = "nano", family = "llama", tokenizer = "corpus" }}
data = "teaching"
max_tokens = {teacher_tokens}
{settings}
[steps.reference]
run = "train"
model = {{ size = "pico", family = "llama", tokenizer = "corpus" }}
data = "corpus"
part = "reserved"
max_tokens = {reference_tokens}
{settings}
[steps.by_teacher]
run = "score"
model = "teacher"
data = "corpus"

[steps.by_reference]
run = "score"
model = "reference"
data = "corpus"
"""
SELECTIONS = """
[steps.kept]
run = "select"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"

[steps.trimmed]
run = "select"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"
trim = 0.05

[steps.filtered]
run = "select"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"
trim = 0.05
near_duplicates = 0.6
"""
STUDENTS = """
[steps.drawn{seed}]
run = "select"
method = "random"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"
seed = {seed}

[steps.only_clean{seed}]
run = "select"
method = "random"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"
keep = 0.0001
keep_by_source = {{ clean = 0.71 }}
seed = {seed}

[steps.selected{seed}]
run = "train"
model = {{ size = "pico", family = "llama", tokenizer = "corpus" }}
data = "kept"
seed = {seed}
max_tokens = {student_tokens}
{settings}
[steps.random{seed}]
run = "train"
model = {{ size = "pico", family = "llama", tokenizer = "corpus" }}
data = "drawn{seed}"
seed = {seed}
max_tokens = {student_tokens}
{settings}
[steps.clean{seed}]
run = "train"
model = {{ size = "pico", family = "llama", tokenizer = "corpus" }}
data = "only_clean{seed}"
seed = {seed}
max_tokens = {student_tokens}
{settings}
[steps.judged{seed}]
run = "evaluate"
models = ["selected{seed}", "random{seed}", "clean{seed}"]
data = "mixture"
speed = false
memory = false
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
    if not asked.render:
        prepare(asked.novels, folder, asked.shrink)
        recipe = folder / "world.toml"
        recipe.write_text(written(folder, asked.seeds, asked.shrink))
        attar = [sys.executable, "-m", "attar", "run", str(recipe), "--out", str(folder / "runs")]
        subprocess.run(attar, check=True)
    body = page(folder / "runs" / "closed_world", asked.seeds, asked.shrink)
    if asked.shrink == 1:
        write_page("selection-noise", "Does difference sampling find known noise?", body)
    else:
        print(body)


def prepare(source: Path, folder: Path, shrink: float) -> None:
    """The tokenizer, the two mixtures and the held-out text; once."""
    if (folder / "mixture" / "train.jsonl").exists():
        return
    draw = random.Random(0)
    texts = novels(source / "train.jsonl.gz")
    draw.shuffle(texts)
    rest = iter(texts)
    judged = novels(source / "validation.jsonl.gz")
    held_out = [{"text": text} for text in draw.sample(judged, int(200 * max(shrink, 0.05)))]
    for name, characters in (("teaching", 9e6), ("mixture", 10e6)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_rows(folder / name / "validation.jsonl", held_out)
        write_rows(folder / name / "train.jsonl", mixture(rest, int(characters * shrink), draw))


def written(folder: Path, seeds: int, shrink: float) -> str:
    """The recipe."""

    def tokens(millions: float) -> int:
        return int(millions * 1e6 * shrink)

    teaching = SCORING.format(
        teacher_tokens=tokens(3.0), reference_tokens=tokens(0.9), settings=SETTINGS
    )
    learning = [
        STUDENTS.format(seed=seed, student_tokens=tokens(0.9), settings=SETTINGS)
        for seed in range(seeds)
    ]
    head = HEAD.format(folder=folder)
    return "\n".join([head, teaching, SELECTIONS, *learning, '[steps.report]\nrun = "report"\n'])


def page(run: Path, seeds: int, shrink: float) -> str:
    sources = json.loads((run / "corpus" / "corpus.json").read_text())["sources"]
    scores, kinds, tokens = scored(run, sources)
    parts = [
        f"Scored: {len(scores):,} chunks of {int(tokens.sum()):,} tokens. Amounts × {shrink:g}.",
        "## The noise, found",
        "AUC: how often a clean chunk scores higher; 95 % bootstrap interval.",
        table(
            ["kind", "chunks", "AUC", "mean score", *[f"kept, {f}" for f in FILTERS.values()]],
            list(rows_of_kinds(run, sources, scores, kinds)),
        ),
        "## The students",
        "Bits per byte on held-out novels; less is better.",
        *students(run, seeds),
    ]
    return "\n\n".join(parts)


def scored(run: Path, sources: list[str]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Score, kind and tokens of each scored chunk, in corpus order."""
    scores, kinds, tokens = [], [], []
    for file in sorted((run / "by_teacher").glob("*.scores.safetensors")):
        teacher, reference = load_file(file), load_file(run / "by_reference" / file.name)
        shard = load_file(run / "corpus" / file.name.replace("scores", "tokens"))
        count = np.maximum(teacher["tokens"], 1)
        scores.append((teacher["log_p"] - reference["log_p"]) / count)
        kinds.append(np.array(sources)[shard["source"][teacher["row"]]])
        tokens.append(teacher["tokens"])
    return np.concatenate(scores), np.concatenate(kinds), np.concatenate(tokens)


def rows_of_kinds(
    run: Path, sources: list[str], scores: NDArray[Any], kinds: NDArray[Any]
) -> list[list[str]]:
    survivors = {step: kept_by_kind(run, step, sources) for step in FILTERS}
    clean = scores[kinds == CLEAN]
    rows: list[list[str]] = []
    for kind in (CLEAN, *NOISE):
        mine = scores[kinds == kind]
        if not len(mine):  # in a trial
            continue
        found = "" if kind == CLEAN else interval(clean, mine)
        kept = [f"{survivors[step][kind] / len(mine):.1%}" for step in FILTERS]
        rows.append([kind, f"{len(mine):,}", found, f"{mine.mean():+.3f}", *kept])
    return rows


def area(clean: NDArray[Any], noise: NDArray[Any]) -> float:
    """P(a clean chunk scores higher than a noisy one), ties by half."""
    ranks = rankdata(np.concatenate([clean, noise]))[: len(clean)]
    return (ranks.sum() - len(clean) * (len(clean) + 1) / 2) / (len(clean) * len(noise))


def interval(clean: NDArray[Any], noise: NDArray[Any], resamples: int = 500) -> str:
    draw = np.random.default_rng(0)
    again = [
        area(draw.choice(clean, len(clean)), draw.choice(noise, len(noise)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(again, [0.025, 0.975])
    return f"{area(clean, noise):.3f} ({low:.3f} to {high:.3f})"


def kept_by_kind(run: Path, step: str, sources: list[str]) -> Counter[str]:
    rows = load_file(run / step / "kept.safetensors")["row"]
    files = sorted((run / "corpus").glob("*.tokens.safetensors"))
    numbers = np.concatenate([load_file(file)["source"] for file in files])
    return Counter(np.array(sources)[numbers[rows]].tolist())


def students(run: Path, seeds: int) -> list[str]:
    bits: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        found = json.loads((run / f"judged{seed}" / "result.json").read_text())["metrics"]["models"]
        for arm in ARMS:
            bits[arm].append(found[f"{arm}{seed}"]["bits_per_byte"]["value"])
    rows = [
        [arm, *[f"{value:.4f}" for value in bits[arm]], f"{statistics.mean(bits[arm]):.4f}"]
        for arm in ARMS
    ]
    gains = [a - b for a, b in zip(bits["random"], bits["selected"], strict=True)]
    gaps = [a - b for a, b in zip(bits["random"], bits["clean"], strict=True)]
    shares = [gain / gap for gain, gap in zip(gains, gaps, strict=True)]
    return [
        table(["trained on", *[f"seed {seed}" for seed in range(seeds)], "mean"], rows),
        f"Random less selected: {', '.join(f'{gain:+.4f}' for gain in gains)} bits per byte.",
        f"Share of the way from random to clean: {', '.join(f'{share:.0%}' for share in shares)}.",
    ]


if __name__ == "__main__":
    main()
