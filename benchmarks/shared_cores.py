"""What is lost beside busy neighbours, and what the choice of `attar.cores` loses alone.

A small model is trained a little, quantized and exported. Then processes that train, calibrate and
predict take turns (A B C D, A B C D, …) beside 0, 2 and 6 processes that only compute. Each job has
one process that waits as attar chooses when it looks at these neighbours, and one that spins, which
is what the libraries do by themselves; alone, also one that never spins. A turn is time for as many
passes as fit into it, one at least.

    fair share    cores / (threads + neighbours), which threads that never wait would get
    kept          (ms alone, spinning / ms here) / fair share          goal: at least 0.8
    lost alone    ms as chosen / ms spinning − 1, median over rounds   goal: at most 2 %

    python benchmarks/shared_cores.py            about 10 minutes on two free cores
    python benchmarks/shared_cores.py --quick    one block, 0 and 2 neighbours, two rounds; no page
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attar import cores
from attar.cores import SET_BY_USER, Waiting, usable_cores
from record import table, write_page

RECIPE = """
name = "shared"
[data.docs]
source = "stdlib_docs"
[steps.model]
run = "train"
model = {{ from = "demo:minilm-l6", keep_blocks = {blocks} }}
data = "docs"
max_steps = 4
batch_size = 16
max_length = 64
evaluations = 1
precision = "fp32"
[steps.int8]
run = "quantize"
model = "model"
method = "minmax"
calibration = {{ data = "docs", examples = {examples} }}
[steps.openvino]
run = "export"
model = "int8"
format = "openvino"
data = "docs"
parity = {{ examples = 16, max_label_flips = 0.25 }}
[steps.onnxruntime]
run = "export"
model = "int8"
format = "onnxruntime"
data = "docs"
parity = {{ examples = 16, max_label_flips = 0.25 }}
"""
EXAMPLES = 32
JOBS = ("training", "calibration", "openvino", "onnxruntime")
CHOSEN, SPINNING, SLEEPING = "as chosen", "spinning", "never spinning"
TEXT = "open a socket and read what comes until it is closed again " * 6
BATCH, TOKENS = 16, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--turn", type=float, default=1.0, help="seconds of a turn, at the least")
    parser.add_argument("--worker", nargs=3, metavar=("JOB", "WAITING", "RUN"))
    asked = parser.parse_args()
    if asked.worker:
        job, waiting, run = asked.worker
        work(job, waiting, Path(run))
        return
    levels, rounds, turn = (0, 2, 6), asked.rounds, asked.turn
    if asked.quick:
        levels, rounds, turn = (0, 2), 2, 0.2
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(Path(folder), [0] if asked.quick else [0, 1, 2, 3, 4, 5])
        found = {level: measured(level, run, rounds, turn) for level in levels}
    body = page(found, rounds)
    if asked.quick:
        print(body)
    else:
        write_page("shared-cores", "What is lost beside busy neighbours?", body)


def prepared(folder: Path, blocks: list[int]) -> Path:
    (folder / "shared.toml").write_text(RECIPE.format(blocks=blocks, examples=EXAMPLES))
    command = [sys.executable, "-m", "attar", "run", str(folder / "shared.toml"), "--quiet"]
    subprocess.run([*command, "--out", str(folder)], check=True, capture_output=True)
    return folder / "shared"


def measured(
    level: int, run: Path, rounds: int, turn: float
) -> dict[tuple[str, str], tuple[str, list[float]]]:
    """(job, way of waiting) → what the process says of its threads, and ms a pass in each round."""
    ways = (CHOSEN, SPINNING) if level else (CHOSEN, SPINNING, SLEEPING)
    with ExitStack() as stack:
        stack.enter_context(neighbours(level))
        workers: dict[tuple[str, str], subprocess.Popen[str]] = {}
        told: dict[tuple[str, str], tuple[str, list[float]]] = {}
        for job in JOBS:
            for way in ways:  # one after the other: a process that loads is a busy neighbour too
                worker = workers[job, way] = stack.enter_context(process(job, way, run))
                assert worker.stdout
                told[job, way] = (worker.stdout.readline().strip(), [])
                if not told[job, way][0]:
                    raise SystemExit(f"{job} ({way}) failed: try --worker {job} '{way}' {run}")
        for _ in range(rounds):
            for name, worker in workers.items():
                assert worker.stdin and worker.stdout
                worker.stdin.write(f"{turn}\n")
                worker.stdin.flush()
                told[name][1].append(float(worker.stdout.readline()))
    return told


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for neighbour in busy:
            neighbour.kill()
            neighbour.wait()


@contextmanager
def process(job: str, way: str, run: Path) -> Iterator[subprocess.Popen[str]]:
    plain = {name: value for name, value in os.environ.items() if name not in SET_BY_USER}
    worker = subprocess.Popen(
        [sys.executable, __file__, "--worker", job, way, str(run)],
        env=plain | ({"OMP_WAIT_POLICY": "PASSIVE"} if way == SLEEPING else {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


def work(job: str, way: str, run: Path) -> None:
    """In a process of its own: say how threads wait, then milliseconds a pass for every turn."""
    if way == SPINNING:
        cores._decided = lambda *_: Waiting(True, "the libraries' default")
    told = cores.prepare_torch()
    one_pass = {"training": training, "calibration": calibration}.get(job, predict)(job, run)
    one_pass()
    one_pass()
    print(told, flush=True)
    for line in sys.stdin:
        began, passes = time.perf_counter(), 0
        while passes == 0 or time.perf_counter() - began < float(line):
            one_pass()
            passes += 1
        print(1000 * (time.perf_counter() - began) / passes, flush=True)


def training(_: str, run: Path) -> Callable[[], object]:
    import torch

    from attar.models.load import load_model

    torch.manual_seed(0)
    model = load_model(run / "model" / "model").model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(5, 1000, (BATCH, TOKENS))
    labels = torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def calibration(_: str, run: Path) -> Callable[[], object]:
    """The ranges of `EXAMPLES` texts: the whole step, from the float model to the folder."""
    import shutil

    from attar.progress import Progress
    from attar.quantization.run import quantize
    from attar.recipe.load import load_recipe
    from attar.step import StepContext

    recipe = load_recipe(run.parent / "shared.toml")
    folder = Path(tempfile.mkdtemp(dir=run.parent))
    context = StepContext(
        name="int8",
        folder=folder / "made",
        scratch=folder / "scratch",
        inputs={"model": run / "model"},
        data=dict(recipe.data),
        recipe_folder=run.parent,
        progress=Progress(quiet=True),
    )

    def step() -> None:
        shutil.rmtree(context.folder, ignore_errors=True)
        context.folder.mkdir()
        quantize(recipe.steps["int8"], context)  # pyright: ignore[reportArgumentType]

    return step


def predict(form: str, run: Path) -> Callable[[], object]:
    from attar.export.deployed import Deployed

    model = Deployed(run / form)
    return lambda: model.predict([TEXT])


def page(found: dict[int, dict[tuple[str, str], tuple[str, list[float]]]], rounds: int) -> str:
    alone = {job: statistics.median(found[0][job, SPINNING][1]) for job in JOBS}
    threads = usable_cores()
    parts = [f"{rounds} rounds in turns; median ms a pass. {threads} threads on {threads} cores."]
    for level, here in found.items():
        share = threads / (threads + level)
        rows: list[list[str]] = []
        for (job, way), (told, ms) in here.items():
            median = statistics.median(ms)
            times = [f"{value:.1f}" for value in (median, min(ms), max(ms))]
            rows.append([job, way, *times, f"{alone[job] / median / share:.2f}", told])
        parts.append(f"## Beside {level} busy processes (fair share {share:.2f})")
        head = (
            "job",
            "threads are",
            "ms",
            "min",
            "max",
            "kept of the fair share",
            "they say: they …",
        )
        parts.append(table(head, rows))
    lost = [f"{job} {_lost(found[0], job, CHOSEN):+.1%}" for job in JOBS]
    never = [f"{job} {_lost(found[0], job, SLEEPING):+.1%}" for job in JOBS]
    parts.append(
        f"Lost alone, median of the rounds' ratios to spinning: as chosen {', '.join(lost)}; never "
        f"spinning {', '.join(never)}."
    )
    return "\n\n".join(parts)


def _lost(here: dict[tuple[str, str], tuple[str, list[float]]], job: str, way: str) -> float:
    ours: Sequence[float] = here[job, way][1]
    theirs: Sequence[float] = here[job, SPINNING][1]
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) - 1


if __name__ == "__main__":
    main()
