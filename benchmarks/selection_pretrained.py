"""Which noise does a pretrained teacher find? SmolLM2-135M, and a small reference trained here.

The text is that of `selection_noise`: English novels with 30 % of noise of known kinds. The teacher
has never seen this mixture; the reference learns on a reserved part of it, and both score the rest.
Shown for each kind: how often a clean chunk scores higher (area under the ROC curve) with a
bootstrap interval, the share of its chunks that survives, and a chunk that the method got wrong.

    python benchmarks/selection_pretrained.py NOVELS --out FOLDER       45 minutes of one core

FOLDER keeps the run; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from known_noise import CLEAN, NOISE, mixture, novels, write_rows
from record import table, write_page
from selection_noise import FILTERS, SELECTIONS, SETTINGS, rows_of_kinds, scored

RECIPE = """
name = "pretrained"
seed = 0

[data.mixture]
source = "files"
path = {mixture}
text = "text"
objective = "causal_lm"
max_set_aside = 0.05

[steps.corpus]
run = "tokenize"
data = "mixture"
tokenizer = "demo:smollm2-135m"
max_length = 256
source_column = "source"
reserve = 0.5

[steps.reference]
run = "train"
model = {{ size = "pico", family = "llama", tokenizer = "corpus" }}
data = "corpus"
part = "reserved"
max_tokens = {reference_tokens}
{settings}
[steps.by_reference]
run = "score"
model = "reference"
data = "corpus"

[steps.by_teacher]
run = "score"
model = "demo:smollm2-135m"
data = "corpus"
"""
CHARACTERS = 3.2e6
REFERENCE_TOKENS = 0.6e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("novels", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shrink", type=float, default=1.0, help="of all amounts; 0.02: a trial")
    asked = parser.parse_args()
    folder = asked.out.resolve()
    prepare(asked.novels, folder / "mixture", asked.shrink)
    recipe = folder / "pretrained.toml"
    scoring = RECIPE.format(
        mixture=json.dumps(str(folder / "mixture")),
        reference_tokens=int(REFERENCE_TOKENS * asked.shrink),
        settings=SETTINGS,
    )
    recipe.write_text(scoring + SELECTIONS)
    attar = [sys.executable, "-m", "attar", "run", str(recipe), "--out", str(folder / "runs")]
    subprocess.run(attar, check=True)
    body = page(folder / "runs" / "pretrained")
    if asked.shrink == 1:
        write_page("selection-pretrained", "Which noise does SmolLM2 find?", body)
    else:
        print(body)


def prepare(source: Path, folder: Path, shrink: float) -> None:
    """The mixture and a few held-out texts; once."""
    if (folder / "train.jsonl").exists():
        return
    draw = random.Random(1)
    texts = novels(source / "train.jsonl.gz")
    draw.shuffle(texts)
    folder.mkdir(parents=True, exist_ok=True)
    held_out = [{"text": text} for text in novels(source / "validation.jsonl.gz")[:20]]
    write_rows(folder / "validation.jsonl", held_out)
    write_rows(folder / "train.jsonl", mixture(iter(texts), int(CHARACTERS * shrink), draw))


def page(run: Path) -> str:
    sources = json.loads((run / "corpus" / "corpus.json").read_text())["sources"]
    scores, kinds, tokens = scored(run, sources)
    return "\n\n".join(
        [
            f"SmolLM2-135M (an instruction-tuned model, rounded to four bits) against a reference "
            f"trained on {int(REFERENCE_TOKENS):,} tokens of the mixture. Scored: {len(scores):,} "
            f"chunks of {int(tokens.sum()):,} tokens.",
            "AUC: how often a clean chunk scores higher; 95 % bootstrap interval.",
            table(
                ["kind", "chunks", "AUC", "mean score", *[f"kept, {f}" for f in FILTERS.values()]],
                list(rows_of_kinds(run, sources, scores, kinds)),
            ),
            "## Failures",
            "Of each kind, the chunk that scored highest; of the clean ones, lowest.",
            *failures(run, scores, kinds),
        ]
    )


def failures(run: Path, scores: np.ndarray, kinds: np.ndarray) -> Iterator[str]:
    files = sorted((run / "by_teacher").glob("*.scores.safetensors"))
    texts: list[str] = []
    for file in files:
        name = file.name.replace("scores.safetensors", "texts.parquet")
        chunks = pq.read_table(run / "corpus" / name)["pieces"].to_pylist()
        texts += ["".join(chunks[row]) for row in load_file(file)["row"]]
    ranked = np.argsort(scores, kind="stable")
    share = np.empty(len(scores))
    share[ranked] = np.arange(len(scores)) / len(scores)
    for kind in (CLEAN, *NOISE):
        mine = np.flatnonzero(kinds == kind)
        if not len(mine):  # in a trial
            continue
        worst = mine[scores[mine].argmin() if kind == CLEAN else scores[mine].argmax()]
        shown = " ".join(texts[worst].split())[:160].replace("`", "'")
        yield f"- {kind}: score {scores[worst]:+.2f}, above {share[worst]:.0%} of all: `{shown}`"


if __name__ == "__main__":
    main()
