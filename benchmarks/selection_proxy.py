"""How well does a proxy rank chunks, and for what share of the teacher's work?

    python benchmarks/selection_proxy.py RUN --out FOLDER [--shares 0.03 0.1] [--blocks 1 2 4]

RUN is a finished run with the steps corpus, teacher, reference, by_teacher, by_reference (scores of
every chunk) and kept, such as the closed world of `selection_noise.py` (FOLDER/runs/closed_world).
For each share of the chunks, teacher and reference score a sample of that size; for each number of
blocks, a proxy made of the first blocks of the reference learns the sample's scores and predicts
those of every chunk.

Shown, for chunks outside of the sample: Spearman's correlation of predicted and true scores, with a
bootstrap interval. For all chunks: the share of what difference sampling keeps that the proxy's
selection keeps too (a half at random), how much of it is clean, and all FLOPs (sample, training,
prediction) as a share of the teacher's on every chunk. FOLDER keeps the run; the same command goes
on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from attar.artifacts import read_result
from attar.data.corpus.token_store import Corpus
from attar.numerics.statistics import bootstrap, bootstrap_interval
from attar.selection.scores import Scored, read_scored
from record import table, write_page

CLEAN = "clean"
HEAD = """name = "proxies"
seed = {seed}

[data.world]
source = "corpus"
path = {corpus}
"""
SAMPLE = """
[steps.teacher{percent}]
run = "score"
model = {teacher}
data = "world"
chunks = {chunks}

[steps.reference{percent}]
run = "score"
model = {reference}
data = "world"
chunks = {chunks}
"""
PROXY = """
[steps.proxy{name}]
run = "proxy"
model = {model}
data = "world"
teacher = "teacher{percent}"
reference = "reference{percent}"
epochs = {epochs}
batch_size = 16
learning_rate = 1e-3
precision = "fp32"

[steps.predicted{name}]
run = "score"
model = "proxy{name}"
data = "world"

[steps.kept{name}]
run = "select"
method = "proxy"
data = "world"
scores = "predicted{name}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.03, 0.1])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print", action="store_true", help="write no page")
    asked = parser.parse_args()
    run, out = asked.run.resolve(), asked.out.resolve()
    truth = read_scored(
        Corpus.open(run / "corpus"),
        {name: run / f"by_{name}" for name in ("teacher", "reference")},
        "selection_proxy",
    )
    out.mkdir(parents=True, exist_ok=True)
    recipe = out / "proxies.toml"
    recipe.write_text("".join(written(asked, run, len(truth))))
    attar = [sys.executable, "-m", "attar", "run", str(recipe), "--out", str(out / "runs")]
    subprocess.run(attar, check=True)
    body = page(asked, run, out / "runs" / "proxies", truth)
    if asked.print:
        print(body)
    else:
        write_page("selection-proxy", "How well does a proxy rank chunks?", body)


def combinations(asked: argparse.Namespace) -> Iterator[tuple[float, int, str]]:
    """Share of the chunks, blocks of the proxy, and the name of both."""
    for share in asked.shares:
        for blocks in asked.blocks:
            yield share, blocks, f"{percent(share)}_{blocks}"


def percent(share: float) -> str:
    return f"{100 * share:g}".replace(".", "_")


def written(asked: argparse.Namespace, run: Path, chunks: int) -> Iterator[str]:
    """The recipe."""
    folders = {name: json.dumps(str(run / name)) for name in ("corpus", "teacher", "reference")}
    yield HEAD.format(seed=asked.seed, corpus=folders["corpus"])
    for share in asked.shares:
        size = max(1, round(share * chunks))
        yield SAMPLE.format(percent=percent(share), chunks=size, **folders)
    for share, blocks, name in combinations(asked):
        reference = folders["reference"]
        model = f"{{ from = {reference}, keep_blocks = {list(range(blocks))} }}"
        if blocks == blocks_of(run / "reference"):
            model = reference
        yield PROXY.format(name=name, percent=percent(share), model=model, epochs=asked.epochs)


def blocks_of(step: Path) -> int:
    return json.loads((step / "model" / "config.json").read_text())["num_hidden_layers"]


def page(asked: argparse.Namespace, run: Path, made: Path, truth: Scored) -> str:
    corpus = Corpus.open(run / "corpus")
    sources = corpus.about["sources"]
    wanted = set(load_file(run / "kept" / "kept.safetensors")["row"].tolist())
    rows = [
        row_of(corpus, made, name, share, blocks, truth, wanted)
        for share, blocks, name in combinations(asked)
    ]
    head = ["sample", "blocks", "Spearman outside of the sample", "Spearman, as the step says"]
    head += ["untrained", "kept in common", "clean, of what is kept", "FLOPs, of the teacher's"]
    clean = clean_share(truth, np.array(sorted(wanted)), sources)
    return "\n\n".join(
        [
            f"{len(truth):,} chunks scored by both; {asked.epochs:g} epochs on each sample; "
            f"seed {asked.seed}. Difference sampling keeps {clean} clean chunks; of all chunks "
            f"{clean_share(truth, truth.rows(), sources)} are.",
            table(head, rows),
        ]
    )


def row_of(
    corpus: Corpus,
    made: Path,
    name: str,
    share: float,
    blocks: int,
    truth: Scored,
    wanted: set[int],
) -> list[Any]:
    predicted = read_scored(corpus, {"predicted": made / f"predicted{name}"}, name)
    folders = {
        whose: made / f"{whose}{name.rpartition('_')[0]}" for whose in ("teacher", "reference")
    }
    sample = read_scored(corpus, folders, name, may_be_sample=True)
    is_outside = ~np.isin(truth.rows(), sample.rows())
    drawn = bootstrap("spearman", {"proxy": predicted.score[is_outside]}, truth.score[is_outside])
    kept = load_file(made / f"kept{name}" / "kept.safetensors")["row"]
    said = read_result(made / f"proxy{name}").metrics["spearman"]
    offline = read_result(made / f"predicted{name}").metrics["offline"]
    return [
        f"{share:.3g} ({len(sample):,} chunks)",
        blocks,
        interval(**asdict(bootstrap_interval(drawn["proxy"]))),
        interval(**said),
        f"{said['untrained']:+.2f}",
        f"{len(wanted & set(kept.tolist())) / len(wanted):.0%}",
        clean_share(truth, kept, corpus.about["sources"]),
        f"{offline['share_of_teacher']:.1%}",
    ]


def interval(value: float, low: float, high: float, **_: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def clean_share(truth: Scored, rows: np.ndarray, sources: list[str]) -> str:
    """Of some rows; "–" where no source is called clean."""
    if CLEAN not in sources:
        return "–"
    members = truth.source[np.isin(truth.rows(), rows)]
    return f"{(members == sources.index(CLEAN)).mean():.1%}"


if __name__ == "__main__":
    main()
